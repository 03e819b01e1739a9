"""Statistics of deliveries by recipient domain: pulled from the mid's ledger, kept, compared with the log's totals, read.

The mid counts them from its ledger, so they are right also where the log is behind. Once the feed has come to the mid's
count and nothing moves any more, they must equal the log's totals, state by state and reason by reason; where they do not,
the delivery is compared row by row at the next run of `reconcile` (gaps.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from midsource.marketing import deliveries
from midsource.model.delivery import FINAL, DeliveryState
from midsource.model.message import MessageState, Reason
from midsource.store.database import Connection, scalar
from midsource.wire.statistics import OTHERS, Statistics

OPEN_AGAIN = timedelta(minutes=30)
LATELY = timedelta(days=7)
ENDED_AGAIN = timedelta(days=1)
MOST_DUE = 500

_DUE = """
select d.id, d.account from delivery d
join external_account a on a.name = d.account and a.active
left join delivery_stat_read s on s.delivery_id = d.id
left join failed_try f on f.step = 'statistics' and f.account = d.account and f.delivery_id = d.id
where (%(accounts)s::text[] is null or d.account = any(%(accounts)s)) and not coalesce(f.failed_at >= %(since)s, false)
and d.started_at is not null and (
    (d.state <> all(%(final)s) and coalesce(s.read_at, '-infinity') < %(now)s - %(open)s)
    or (d.state = any(%(final)s) and d.finished_at > %(now)s - %(lately)s and (
        s.read_at is null or s.read_at < d.finished_at or s.read_at < %(now)s - %(ended)s
        or (s.agrees is not true and s.read_at < %(now)s - %(open)s))))
order by greatest(s.read_at, f.failed_at) nulls first, d.id limit %(most)s
"""
_AGREES = """
select not exists (
    select state, reason, sum(n) from (
        select state, reason, n from delivery_stat where delivery_id = %(id)s
        union all select state, reason, -n from broad_log_total where delivery_id = %(id)s and state <> 0) u
    group by 1, 2 having sum(n) <> 0)
"""


@dataclass(slots=True)
class DomainFigures:
    """What became of the messages of one domain. ``domain`` '': of all those not among the largest."""

    domain: str
    messages: int = 0
    by_state: dict[MessageState, int] = field(default_factory=dict)
    failed_because: dict[str, int] = field(default_factory=dict)
    first_at: datetime | None = None
    last_at: datetime | None = None

    @property
    def rate(self) -> float | None:
        """Messages a second that came to their end between the first try and the last change; None: too few to tell."""
        if self.first_at is None or self.last_at is None or self.last_at <= self.first_at:
            return None
        done = sum(self.by_state.get(state, 0) for state in (MessageState.SENT, MessageState.FAILED))
        return done / (self.last_at - self.first_at).total_seconds()

    def add(self, state: int, reason: int, n: int, first_at: datetime | None, last_at: datetime | None) -> None:
        """Add the messages in one state for one reason."""
        self.messages += n
        known = MessageState(state)
        self.by_state[known] = self.by_state.get(known, 0) + n
        if known is MessageState.FAILED:
            label = _reason(reason)
            self.failed_because[label] = self.failed_because.get(label, 0) + n
        self.first_at = min(filter(None, (self.first_at, first_at)), default=None)
        self.last_at = max(filter(None, (self.last_at, last_at)), default=None)


@dataclass(frozen=True, slots=True)
class Table:
    """The statistics of one delivery. ``read_at`` None: never pulled; ``agrees`` None: not to be told yet."""

    read_at: datetime | None
    domains: int
    agrees: bool | None
    rows: tuple[DomainFigures, ...]


def due(
    conn: Connection, now: datetime, since: datetime | None = None, accounts: Sequence[str] | None = None
) -> list[tuple[int, str]]:
    """Return the deliveries whose statistics are to be pulled now, with their accounts; those that waited longest first.

    ``since``: those that failed then or later are left out, None: none is; ``accounts``: only theirs, None: of all.
    """
    rows = conn.execute(
        _DUE,
        {
            "now": now,
            "since": since,
            "accounts": None if accounts is None else list(accounts),
            "open": OPEN_AGAIN,
            "lately": LATELY,
            "ended": ENDED_AGAIN,
            "final": [int(state) for state in FINAL],
            "most": MOST_DUE,
        },
    ).fetchall()
    return [(row[0], row[1]) for row in rows]


def keep(conn: Connection, delivery_id: int, told: Statistics) -> bool | None:
    """Replace a delivery's statistics and return whether they equal the log's totals; None where that cannot be told yet."""
    delivery = deliveries.get(conn, delivery_id, lock=True)
    conn.execute("delete from delivery_stat where delivery_id = %s", (delivery_id,))
    with (
        conn.cursor() as cursor,
        cursor.copy("copy delivery_stat (delivery_id, domain, state, reason, n, first_at, last_at) from stdin") as copy,
    ):
        for row in told.rows:
            copy.write_row((delivery_id, row.domain, row.state, row.reason, row.n, row.first_at, row.last_at))
    agrees = None
    if DeliveryState(delivery.state).is_final and _has_passed(conn, delivery.account, told):
        agrees = bool(scalar(conn, _AGREES, {"id": delivery_id}))
    conn.execute(
        "insert into delivery_stat_read (delivery_id, read_at, domains, agrees) values (%s, %s, %s, %s) on conflict (delivery_id) "
        "do update set read_at = excluded.read_at, domains = excluded.domains, agrees = excluded.agrees",
        (delivery_id, told.now, told.domains, agrees),
    )
    return agrees


def read(conn: Connection, delivery_id: int) -> Table:
    """Return the statistics of a delivery, the largest domain first, the rest at the end."""
    head = conn.execute(
        "select read_at, domains, agrees from delivery_stat_read where delivery_id = %s", (delivery_id,)
    ).fetchone()
    found: dict[str, DomainFigures] = {}
    for domain, *rest in conn.execute(
        "select domain, state, reason, n, first_at, last_at from delivery_stat where delivery_id = %s", (delivery_id,)
    ):
        found.setdefault(domain, DomainFigures(domain)).add(*rest)
    rows = sorted(found.values(), key=lambda row: (row.domain == OTHERS, -row.messages, row.domain))
    return Table(head[0] if head else None, head[1] if head else 0, head[2] if head else None, tuple(rows))


def as_dict(table: Table) -> dict[str, Any]:
    """Return them for programs."""
    return {
        "read_at": None if table.read_at is None else table.read_at.isoformat(),
        "domains": table.domains,
        "agrees": table.agrees,
        "rows": list(_rows(table)),
    }


def _rows(table: Table) -> Iterator[dict[str, Any]]:
    for row in table.rows:
        yield {
            "domain": row.domain or None,
            "messages": row.messages,
            **{state.label: row.by_state.get(state, 0) for state in MessageState if state is not MessageState.IGNORED},
            "failed_because": row.failed_because,
            "first_at": None if row.first_at is None else row.first_at.isoformat(),
            "last_at": None if row.last_at is None else row.last_at.isoformat(),
            "rate_per_second": None if row.rate is None else round(row.rate, 3),
        }


def _has_passed(conn: Connection, account: str, told: Statistics) -> bool:
    found = scalar(
        conn,
        "select seq from pointer where account = %s and stream = 'logs' and lane = 'backlog' and generation::text = %s "
        "and cursor <> ''",
        (account, told.generation),
    )
    return told.seq is not None and found is not None and found >= told.seq


def _reason(reason: int) -> str:
    try:
        return Reason(reason).label or "none"
    except ValueError:
        return str(reason)
