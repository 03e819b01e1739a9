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
select account_id, id from delivery
where ledger_dropped_at is null and started_at is not null and (finished_at is null or finished_at > %(since)s)
    and (account_id, id) > (%(account)s, %(delivery)s)
order by account_id, id limit %(most)s
"""


def named(conn: Connection, now: datetime, after: tuple[int, int] = (0, 0)) -> list[tuple[int, int]]:
    """Return (account, delivery) of what is to be counted, in order of key, after ``after``."""
    rows = conn.execute(
        _NAMED, {"since": now - ENDED, "account": after[0], "delivery": after[1], "most": MOST}
    ).fetchall()
    return [(row[0], row[1]) for row in rows]


def drift(database: Database, account_id: int, delivery_id: int) -> int:
    """Return how many counters of a delivery are wrong. Raises StatementTimeout for one too large to be counted in time."""
    with database.transaction(statement_seconds=COUNT_SECONDS) as conn:
        return len(counters.drift(conn, account_id, delivery_id))
