"""Counters of this mid's deliveries held against its ledger: open ones, and those that ended since they were last counted.

Each delivery is counted in one statement and, where its counters are wrong, corrected in a transaction of its own with its
row locked (mid/reconcile.py): the ledger wins. A delivery whose ledger `cleanup` has dropped is left alone.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from midsource.mid import counters
from midsource.store.database import Connection, Database

MOST = 2_000
"""Deliveries named at once."""
ENDED = timedelta(hours=2)
"""Those that ended within two runs are counted once more: late evidence comes mostly then."""
COUNT_SECONDS = 20

_NAMED = """
select d.account_id, d.id from delivery d
left join delivery_count c on c.account_id = d.account_id and c.delivery_id = d.id
where d.ledger_dropped_at is null and d.started_at is not null and (d.finished_at is null or d.finished_at > %(since)s)
    and not coalesce(c.counted_at >= %(began)s, false)
order by c.counted_at nulls first, d.account_id, d.id limit %(most)s
"""


def named(conn: Connection, now: datetime, began: datetime) -> list[tuple[int, int]]:
    """Return (account, delivery) of what was not counted since ``began``, those that waited longest first."""
    rows = conn.execute(_NAMED, {"since": now - ENDED, "began": began, "most": MOST}).fetchall()
    return [(row[0], row[1]) for row in rows]


def mark(database: Database, account_id: int, delivery_id: int, *, is_slow: bool) -> None:
    """Keep that a delivery was counted just now, or that there was not enough time for it."""
    with database.transaction() as conn:
        conn.execute(
            "insert into delivery_count (account_id, delivery_id, counted_at, is_slow) "
            "select account_id, id, clock_timestamp(), %s from delivery where account_id = %s and id = %s "
            "on conflict (account_id, delivery_id) do update set counted_at = excluded.counted_at, is_slow = excluded.is_slow",
            (is_slow, account_id, delivery_id),
        )


def slow(conn: Connection, began: datetime) -> list[int]:
    """Return the deliveries that could not be counted in time since ``began``."""
    rows = conn.execute(
        "select delivery_id from delivery_count where counted_at >= %s and is_slow order by counted_at limit %s",
        (began, MOST),
    ).fetchall()
    return [row[0] for row in rows]


def drift(database: Database, account_id: int, delivery_id: int) -> int:
    """Return how many counters of a delivery are wrong. Raises StatementTimeout for one too large to be counted in time."""
    with database.transaction(statement_seconds=COUNT_SECONDS) as conn:
        return len(counters.drift(conn, account_id, delivery_id))
