"""A marketing instance's database: migrated, described, with the partitions of the manual clock's months."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.marketing.preparation_scene import Work

from midsource.marketing import brands
from midsource.store import migrate
from midsource.store.database import Database
from midsource.testing.clock import ManualClock
from midsource.testing.link import LinkedHalves, linked, templates


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


@pytest.fixture(scope="session")
def link_templates(make_database: Callable[..., str]) -> tuple[str, str]:
    """Migrate both roles once."""
    return templates(make_database)


@pytest.fixture
def halves(
    make_database: Callable[..., str], link_templates: tuple[str, str], tmp_path: Path
) -> Iterator[LinkedHalves]:
    """Give an empty marketing instance with one external account, and its mid behind a real web server."""
    with linked(make_database, link_templates, tmp_path) as both:
        yield both


@pytest.fixture
def ready_db(marketing_db: Database) -> Database:
    """Give a database with the default brand and template and the external account mid1."""
    with marketing_db.transaction() as conn:
        brands.ensure_defaults(
            conn,
            from_name="Atelier",
            from_address="news@atelier.example",
            unsubscribe_url="https://m.example/u/{token}",
        )
        conn.execute(
            "insert into external_account (name, label, url, key_id, secret) values ('mid1', 'Mid 1', 'http://m', 'k', 's')"
        )
    return marketing_db


@pytest.fixture
def work(ready_db: Database, clock: ManualClock, tmp_path: Path) -> Work:
    """Give a database with a brand, a template and an account, and nobody in it yet."""
    return Work(ready_db, clock, tmp_path)
