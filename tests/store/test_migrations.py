"""Migrations on a real PostgreSQL: from nothing, twice, by two at once; refusals; partitions; errors as sentences."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from midsource.model.errors import ConfigError, Unhealthy
from midsource.model.ids import delivery_id
from midsource.store import migrate
from midsource.store.database import Database, StatementTimeout, scalar

NOW = datetime(2026, 12, 31, 23, 59, tzinfo=UTC)


@pytest.fixture(params=["marketing", "mid"])
def migrated(request: pytest.FixtureRequest, database: Callable[[], str]) -> Iterator[tuple[Database, str]]:
    role: str = request.param
    with Database(role, database(), application="tests") as opened:
        migrate.upgrade(opened, role)
        yield opened, role


def test_a_second_migration_changes_nothing_and_the_check_is_content(migrated: tuple[Database, str]) -> None:
    opened, role = migrated
    migrate.upgrade(opened, role)
    migrate.check(opened, role)


def test_two_migrators_at_once_make_one_schema(database: Callable[[], str]) -> None:
    dsn, failures = database(), []

    def run() -> None:
        try:
            with Database("mid", dsn, application="migrator") as opened:
                migrate.upgrade(opened, "mid")
        except Exception as exc:  # noqa: BLE001 - whatever it is, the test fails by it
            failures.append(exc)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_an_empty_and_a_newer_database_are_refused_with_the_remedy(database: Callable[[], str]) -> None:
    with Database("mid", database(), application="tests") as opened:
        with pytest.raises(Unhealthy, match="midsource init"):
            migrate.check(opened, "mid")
        migrate.upgrade(opened, "mid")
        with opened.connection() as conn:
            conn.execute("update alembic_version set version_num = '9999'")
        with pytest.raises(Unhealthy, match="newer than this version"):
            migrate.upgrade(opened, "mid")
        with pytest.raises(Unhealthy, match="9999, which is newer"):
            migrate.check(opened, "mid")


def test_a_database_belongs_to_one_instance(migrated: tuple[Database, str]) -> None:
    opened, role = migrated
    with opened.transaction() as conn:
        generation = migrate.describe_instance(conn, "one", role)
        assert migrate.describe_instance(conn, "one", role) == generation
        with pytest.raises(ConfigError, match="belongs to the"):
            migrate.describe_instance(conn, "two", role)


def test_partitions_are_made_ahead_once_over_the_turn_of_the_year(migrated: tuple[Database, str]) -> None:
    opened, role = migrated
    for _ in range(2):
        with opened.transaction() as conn:
            migrate.ensure_partitions(conn, role, NOW)
    parent = "broad_log" if role == "marketing" else "message"
    with opened.connection() as conn:
        assert scalar(conn, "select to_regclass(%s)::text", (f"{parent}_202702",)) == f"{parent}_202702"
        for moment in (NOW, datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 2, 28, tzinfo=UTC)):
            number = delivery_id(moment, 1)
            if role == "marketing":
                conn.execute(
                    "insert into broad_log (delivery_id, id, recipient_id, state, event_at) values (%s, 1, 1, 6, now())",
                    (number,),
                )
            else:
                conn.execute(
                    "insert into message (account_id, delivery_id, id, email, domain, data) values (1, %s, 1, 'a', 'b', '{}')",
                    (number,),
                )


def ask(opened: Database) -> None:
    with opened.connection() as conn:
        conn.execute("select 1")


def test_a_server_that_is_away_is_one_sentence() -> None:
    dsn = "postgresql://nobody@127.0.0.1:1/none?connect_timeout=1"
    with (
        Database("mid1", dsn, application="tests", wait_seconds=1) as opened,
        pytest.raises(Unhealthy, match=r"the database of mid1 (cannot be reached|gave no connection)"),
    ):
        ask(opened)


def test_a_statement_over_its_limit_is_told_apart(database: Callable[[], str]) -> None:
    def slowly(opened: Database) -> None:
        with opened.transaction(statement_seconds=0.05) as conn:
            conn.execute("select pg_sleep(5)")

    with Database("mid1", database(), application="tests") as opened, pytest.raises(StatementTimeout):
        slowly(opened)


def test_a_failed_block_leaves_nothing_behind(database: Callable[[], str]) -> None:
    def fail(opened: Database) -> None:
        with opened.transaction() as conn:
            conn.execute("create table t (a int)")
            raise RuntimeError

    with Database("mid1", database(), application="tests") as opened:
        with pytest.raises(RuntimeError):
            fail(opened)
        with psycopg.connect(opened.dsn) as conn:
            assert conn.execute("select to_regclass('t')").fetchone() == (None,)


@pytest.mark.parametrize("role", migrate.ROLES)
def test_the_revisions_by_name_are_the_revisions_in_order(role: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.MIGRATIONS / role))
    script = ScriptDirectory.from_config(config)
    assert migrate.revisions(role) == [revision.revision for revision in script.walk_revisions()][::-1]
    assert script.get_current_head() == migrate.revisions(role)[-1]


def test_who_only_checks_a_schema_loads_nothing_that_migrates() -> None:
    loaded = "import midsource.web.serve, midsource.mid.mta, sys; print([m for m in ('sqlalchemy', 'alembic') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
