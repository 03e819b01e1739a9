"""What a turn of the leader does to partitions; its ticks, its outbox and its reaper have files of their own."""

from __future__ import annotations

import psycopg

from midsource.engine.leader import Leader
from midsource.net.clock import SystemClock
from midsource.store import partitions
from midsource.store.database import Database, scalar

MONTH = f"{SystemClock().now():%Y%m}"
ROW = f"insert into broad_log (delivery_id, id, recipient_id, state, event_at) values ({MONTH}::bigint << 32, 1, 1, 6, now())"


def leader(database: Database) -> Leader:
    return Leader(database, "marketing", SystemClock(), lambda *_: None, lambda _: None, lambda _: None)


def test_a_turn_attaches_the_month_that_a_cut_drop_left(engine_db: Database) -> None:
    with engine_db.connection() as conn:
        conn.execute(ROW)
        conn.execute(f"alter table broad_log detach partition broad_log_{MONTH} concurrently", prepare=False)
        assert scalar(conn, "select count(*) from broad_log") == 0
    leader(engine_db).turn()
    with engine_db.connection() as conn:
        assert scalar(conn, "select count(*) from broad_log") == 1
        assert not any(found.is_left for found in partitions.listing(conn, "broad_log"))


def test_months_are_made_within_seconds_of_the_end_of_what_held_their_parent(engine_db: Database) -> None:
    with engine_db.connection() as conn:
        conn.execute(f"drop table broad_log_{MONTH}")
    one = leader(engine_db)
    with psycopg.connect(engine_db.dsn) as other:
        other.execute("lock table broad_log in share update exclusive mode")
        one.turn()
    with engine_db.connection() as conn:
        assert scalar(conn, "select to_regclass(%s)", (f"broad_log_{MONTH}",)) is None
    one._next_partitions -= 10
    one.turn()
    with engine_db.connection() as conn:
        assert scalar(conn, "select to_regclass(%s)", (f"broad_log_{MONTH}",)) is not None
