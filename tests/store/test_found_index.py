"""The index that finds rare log rows: made in a database that has months already, and again after a cut attempt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from midsource.store import migrate
from midsource.store.database import Database

NOW = datetime(2026, 12, 1, tzinfo=UTC)
MONTH = "broad_log_202612"
WHOLE = {("broad_log", True), (MONTH, True), ("broad_log_202701", True), ("broad_log_202702", True)}


def upgrade_to(url: str, revision: str) -> None:
    """Migrate a marketing database as far as ``revision``."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations" / "marketing"))
    config.set_main_option("path_separator", "os")
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=sa.NullPool)
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()


@pytest.fixture
def before(database: Callable[[], str]) -> Iterator[Database]:
    """Give a database of the schema before, with three months and a hundred log rows."""
    url = database()
    upgrade_to(url, "0002")
    with Database("marketing", url, application="tests") as opened:
        with opened.transaction() as conn:
            migrate.ensure_partitions(conn, "marketing", NOW)
            conn.execute(
                "insert into broad_log (delivery_id, id, recipient_id, state, event_at) "
                "select 202612::bigint << 32, n, n, 6, now() from generate_series(1, 100) n"
            )
        yield opened


def indexes(opened: Database) -> set[tuple[str, bool]]:
    """Return what has such an index, the log and its months, and whether it is whole."""
    with opened.connection() as conn:
        rows = conn.execute(
            "select i.indrelid::regclass::text, i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid "
            "join pg_am a on a.oid = c.relam where a.amname = 'brin' or c.relname = %s",
            (f"{MONTH}_found",),
        ).fetchall()
    return {(row[0], row[1]) for row in rows}


def test_months_that_exist_get_it_and_later_ones_too(before: Database) -> None:
    upgrade_to(before.dsn, "0003")
    assert indexes(before) == WHOLE
    with before.transaction() as conn:
        conn.execute("select ensure_month('broad_log', 202703)")
        conn.execute("set local enable_seqscan = off")
        plan = conn.execute("explain select from broad_log where state = 2")
        assert f"{MONTH}_found" in str(plan.fetchall())
    assert indexes(before) == WHOLE | {("broad_log_202703", True)}


def test_a_cut_attempt_is_cleared_away_and_repeated(before: Database) -> None:
    with before.connection() as conn, pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute(f"create unique index concurrently {MONTH}_found on {MONTH} (state)")
    assert indexes(before) == {(MONTH, False)}
    upgrade_to(before.dsn, "0003")
    assert indexes(before) == WHOLE
