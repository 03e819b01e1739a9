"""A mid's database: migrated once per run and copied for each test, with one account and its key."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from midsource.mid import accounts
from midsource.store import migrate
from midsource.store.database import Database
from midsource.testing.clock import ManualClock
from midsource.testing.mid import MidDatabase


@pytest.fixture
def clock() -> ManualClock:
    """Give a clock that stands at 1 March 2026, 12:00 UTC."""
    return ManualClock()


@pytest.fixture(scope="session")
def mid_template(make_database: Callable[..., str]) -> str:
    """Migrate once; tests copy it (50 ms instead of 500)."""
    dsn = make_database()
    with Database("mid1", dsn, application="tests") as opened:
        migrate.upgrade(opened, "mid")
    return dsn


@pytest.fixture
def mid_db(mid_template: str, make_database: Callable[..., str], clock: ManualClock) -> Iterator[MidDatabase]:
    """Give an empty mid with one account, ``default``."""
    with Database("mid1", make_database(mid_template), application="tests", max_connections=12) as opened:
        with opened.transaction() as conn:
            migrate.describe_instance(conn, "mid1", "mid")
            migrate.ensure_partitions(conn, "mid", clock.now())
            account_id, key = accounts.create(conn, "default")
        yield MidDatabase(opened, account_id, key, clock)
