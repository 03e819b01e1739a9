"""Where the pointers stand, for who looks, and what a jump forward would leave out. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from midsource.model.options import LAST_BROAD_LOG, LAST_DELIVERY
from midsource.store.database import Connection

OPTION_OF = {"deliveries": LAST_DELIVERY, "logs": LAST_BROAD_LOG}
WORKFLOW_OF = {"deliveries": "defaultMidSourcingDlv", "logs": "defaultMidSourcingLog"}
"""The technical workflow that moves the pointers of a stream."""
MAX_POSITIONS = 1_000
"""Two streams of five hundred accounts: more than any instance has."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a stream of an account stands; the option shows ``reached_at``.

    ``recent_at``: how far the recent lane has come while the backlog is being caught up; None: there is no such lane.
    """

    account: str
    stream: str
    reached_at: datetime
    recent_at: datetime | None
    moved_at: datetime

    @property
    def option(self) -> str:
        """Name of the option that shows this pointer."""
        return OPTION_OF[self.stream] + self.account


@dataclass(frozen=True, slots=True)
class Gap:
    """What a jump forward leaves out, as far as this side knows: deliveries and log rows still without result."""

    days: float
    deliveries: int
    rows: int

    def __str__(self) -> str:
        """Say it."""
        return (
            f"skips what the mid recorded in {self.days:.1f} days; {self.deliveries} deliveries with {self.rows} log rows "
            "still open here may miss results until reconciled"
        )


def positions(conn: Connection) -> list[Position]:
    """Return where every stream of every account stands, by account."""
    rows = conn.execute(
        "select b.account, b.stream, b.reached_at, r.reached_at, greatest(b.moved_at, r.moved_at) from pointer b "
        "left join pointer r on r.account = b.account and r.stream = b.stream and r.lane = 'recent' "
        "where b.lane = 'backlog' order by b.account, b.stream limit %s",
        (MAX_POSITIONS,),
    ).fetchall()
    return [Position(*row) for row in rows]


def gap(conn: Connection, account: str, reached_at: datetime, moment: datetime) -> Gap:
    """Return what moving a pointer of ``account`` from ``reached_at`` forward to ``moment`` leaves out."""
    row = conn.execute(
        """select count(distinct d.id), coalesce(sum(t.n), 0)::bigint
           from delivery d join broad_log_total t on t.delivery_id = d.id and t.state in (6, 61, 62)
           where d.account = %s and d.handed_over is not null and d.created_at < %s and t.n > 0""",
        (account, moment),
    ).fetchone()
    assert row is not None
    return Gap((moment - reached_at).total_seconds() / 86_400, row[0], row[1])
