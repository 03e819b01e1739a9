"""What a mid no longer had when it was asked for ("gone before T"), a row a delivery, until both sides are compared.

Noted in the transaction that moves the pointer to T, so a loss and the move that leaves it behind are one. Counted is
what is still open here: messages handed over before T that have no final outcome, uncertain ones too (logs), deliveries that are not over
(counters). It is an upper bound: what still runs may yet come. `reconcile` mends, by asking the mid's
ledger, and says so on the row (marketing/gaps.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from midsource.store.database import Connection

MAX_LISTED = 1_000
_NOTE = {
    "logs": """
insert into feed_loss as l (account, stream, delivery_id, rows, gone_before, noticed_at)
select d.account, 'logs', d.id, t.open, %(before)s, %(now)s
from delivery d cross join lateral (
    select sum(n) as open from broad_log_total where delivery_id = d.id and state in (6, 61, 62)) t
where d.account = %(account)s and d.handed_over is not null and d.log_dropped_at is null
    and coalesce(d.started_at, d.created_at) < %(before)s and t.open > 0
on conflict (account, stream, delivery_id) do update set rows = excluded.rows, gone_before = excluded.gone_before,
    noticed_at = excluded.noticed_at, mended_at = null
returning l.rows
""",
    "deliveries": """
insert into feed_loss as l (account, stream, delivery_id, rows, gone_before, noticed_at)
select d.account, 'deliveries', d.id, coalesce(d.handed_over, 0), %(before)s, %(now)s from delivery d
where d.account = %(account)s and d.state not in (85, 87, 95) and d.started_at < %(before)s
on conflict (account, stream, delivery_id) do update set rows = excluded.rows, gone_before = excluded.gone_before,
    noticed_at = excluded.noticed_at, mended_at = null
returning l.rows
""",
}


@dataclass(frozen=True, slots=True)
class Noted:
    """What was noted at once: deliveries, and messages of them."""

    deliveries: int
    rows: int

    def __str__(self) -> str:
        """Say it."""
        if not self.deliveries:
            return "nothing from before is open here"
        return (
            f"{self.deliveries} deliveries with {self.rows} messages from before are open here "
            "and may miss results until reconciled"
        )


@dataclass(frozen=True, slots=True)
class Loss:
    """A delivery that may miss results: of a stream of an account, up to ``gone_before``. ``rows``: messages then open."""

    account: str
    stream: str
    delivery_id: int
    rows: int
    gone_before: datetime
    noticed_at: datetime


def note(conn: Connection, account: str, stream: str, before: datetime, now: datetime) -> Noted:
    """Note what may be lost of everything before ``before``. In the transaction that moves the pointer there."""
    rows = conn.execute(_NOTE[stream], {"account": account, "before": before, "now": now}).fetchall()
    return Noted(len(rows), sum(int(n) for (n,) in rows))


def open_losses(conn: Connection) -> list[Loss]:
    """Return what is not mended, the largest first: what `reconcile` and the doctor read."""
    rows = conn.execute(
        "select account, stream, delivery_id, rows, gone_before, noticed_at from feed_loss where mended_at is null "
        "order by rows desc, delivery_id limit %s",
        (MAX_LISTED,),
    ).fetchall()
    return [Loss(*row) for row in rows]
