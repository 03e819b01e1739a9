"""A marketing instance's database: migrated, described, with the partitions of the manual clock's months."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from midsource.store import migrate
from midsource.store.database import Database
from midsource.testing.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """Give a clock that stands at 1 March 2026, 12:00 UTC."""
    return ManualClock()


@pytest.fixture
def marketing_db(database: Callable[[], str], clock: ManualClock) -> Iterator[Database]:
    """Give an empty marketing database."""
    with Database("marketing", database(), application="tests") as opened:
        migrate.upgrade(opened, "marketing")
        with opened.transaction() as conn:
            migrate.describe_instance(conn, "marketing", "marketing")
            migrate.ensure_partitions(conn, "marketing", clock.now())
        yield opened
