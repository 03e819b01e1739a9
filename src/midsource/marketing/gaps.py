"""What pulls are known to have left out, and which deliveries have to be compared with their mid for that or any reason.

A gap is recorded when a pointer is set forward by hand, and when a mid was restored. What a mid no longer had when it was asked
for is in ``feed_loss``, delivery by delivery.
It concerns every delivery of the account that was made before its end and had not ended before its beginning. It is filled
once each of them has a report that began afterwards and left nothing open, or says that nothing can be compared any more; that
of a restored mid not before the mid was told what is known here. A COMMIT of unknown fate leaves no gap: a page
and the pointer that covers it are one transaction.

Also compared: deliveries under way, once in OPEN_AGAIN; those that ended within LATELY, until a comparison after their end
left nothing open, then once in ENDED_AGAIN; and those whose statistics were not the log's totals (statistics.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from midsource.marketing.reconcile_reports import UNTOLD
from midsource.model.delivery import FINAL
from midsource.store.database import Connection, scalar

OPEN_AGAIN = timedelta(minutes=30)
"""Less than the hour between two runs, more than a run that was repeated."""
LATELY = timedelta(days=7)
"""A late reply or a corrected bounce comes within days."""
ENDED_AGAIN = timedelta(days=1)
MOST_DUE = 500
"""Deliveries named at once: more than an hour's comparisons."""
OPEN_GAPS = 1_000
BEFORE = timedelta(days=1)
"""What ended shortly before a gap began may have results in it: clocks differ, and the end is known before the last log row."""

_FIRST = datetime(2000, 1, 1, tzinfo=UTC)
"""Before any delivery."""

_CONCERNED = """
    d.account = g.account and d.created_at < g.to_at and (d.finished_at is null or d.finished_at >= g.from_at - %(before)s)
    and (d.handed_over is not null or d.state = 85) and d.targeted is not null and d.log_dropped_at is null
    and exists (select from broad_log_total t where t.delivery_id = d.id and t.state <> 0 and t.n > 0)
"""
_SETTLED = f"""
    select 1 from reconcile_report s where s.delivery_id = d.id and not s.dry_run and s.started_at > g.noted_at
        and s.finished_at is not null and s.unjudged + s.moving_blocks = 0 and s.problem <> '{UNTOLD}'
"""  # noqa: S608 - a constant

_DUE = f"""
select d.id, d.account from delivery d
join external_account a on a.name = d.account and a.active
left join lateral (
    select id, started_at, finished_at, problem, unjudged + moving_blocks as left_open from reconcile_report r
    where r.delivery_id = d.id and not r.dry_run order by id desc limit 1) r on true
left join failed_try f on f.step = 'comparison' and f.account = d.account and f.delivery_id = d.id
where (%(accounts)s::text[] is null or d.account = any(%(accounts)s)) and not coalesce(f.failed_at >= %(since)s, false)
and d.state >= 45 and d.targeted is not null and d.log_dropped_at is null and (d.handed_over is not null or d.state = 85) and (
    (r.id is not null and r.finished_at is null)
    or (d.state <> all(%(final)s) and coalesce(r.started_at, '-infinity') < %(now)s - %(open)s)
    or (d.state = any(%(final)s) and d.finished_at > %(now)s - %(lately)s and (
        r.id is null or r.started_at < %(now)s - %(ended)s
        or (r.started_at < %(now)s - %(open)s and r.problem = '' and (r.left_open > 0 or r.started_at < d.finished_at))))
    or (coalesce(r.started_at, '-infinity') < %(now)s - %(open)s and exists (
        select from pull_gap g where g.filled_at is null and {_CONCERNED} and not exists ({_SETTLED})))
    or (coalesce(r.started_at, '-infinity') < %(now)s - %(open)s and exists (
        select from feed_loss l where l.delivery_id = d.id and l.mended_at is null))
    or exists (select from delivery_stat_read s where s.delivery_id = d.id and not s.agrees
        and s.read_at > coalesce(r.started_at, '-infinity'))
    or (exists (select from pull_gap g where g.filled_at is null and g.noted_at > coalesce(r.started_at, '-infinity')
        and {_CONCERNED})))
order by greatest(r.started_at, f.failed_at) nulls first, d.id limit %(most)s
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class Gap:
    """One gap; ``filled_at`` None: not every delivery it concerns was compared since."""

    id: int
    account: str
    stream: str
    cause: str
    from_at: datetime
    to_at: datetime
    noted_at: datetime
    told_at: datetime | None
    filled_at: datetime | None


def record(conn: Connection, account: str, stream: str, cause: str, from_at: datetime, to_at: datetime) -> None:
    """Record what a pull leaves out, and let the comparison begin soon; in the caller's transaction."""
    conn.execute(
        "insert into pull_gap (account, stream, cause, from_at, to_at) values (%s, %s, %s, %s, %s)",
        (account, stream, cause, from_at, to_at),
    )
    conn.execute("update workflow set next_at = least(next_at, now()) where name = 'reconcile' and state = 11")


def record_rewound(conn: Connection, account: str, stream: str, now: datetime) -> None:
    """Record that a mid was restored: everything handed over so far may differ. Once, until the mid was told."""
    known = "select exists (select from pull_gap where account = %s and cause = 'rewound' and told_at is null and stream = %s)"
    if not scalar(conn, known, (account, stream)):
        record(conn, account, stream, "rewound", _FIRST, now)


def is_rewound(conn: Connection, account: str, delivery_id: int) -> bool:
    """Tell whether the mid was restored after this delivery was made, and not told since what is known here."""
    return bool(
        scalar(
            conn,
            "select exists (select from pull_gap g join delivery d on d.account = g.account and d.created_at < g.to_at "
            "where g.account = %s and d.id = %s and g.cause = 'rewound' and g.told_at is null)",
            (account, delivery_id),
        )
    )


def due(
    conn: Connection, now: datetime, since: datetime | None = None, accounts: Sequence[str] | None = None
) -> list[tuple[int, str]]:
    """Return the deliveries to be compared now, with their accounts, those that waited longest first.

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
            "before": BEFORE,
            "final": [int(state) for state in FINAL],
            "most": MOST_DUE,
        },
    ).fetchall()
    return [(row[0], row[1]) for row in rows]


def fill(conn: Connection) -> list[Gap]:
    """Close the gaps whose deliveries were all compared since, and return them; note what was lost and is mended."""
    conn.execute(
        "update feed_loss l set mended_at = clock_timestamp() where mended_at is null and exists ("
        "  select from reconcile_report s where s.delivery_id = l.delivery_id and not s.dry_run and s.problem = '' "
        "  and s.started_at > l.noticed_at and s.finished_at is not null and s.unjudged + s.moving_blocks = 0)"
    )
    rows = conn.execute(
        f"update pull_gap g set filled_at = clock_timestamp() where filled_at is null and (cause <> 'rewound' or told_at is not null) and not exists ("  # noqa: S608 - constants
        f"  select from delivery d where {_CONCERNED} and not exists ({_SETTLED})) returning g.*",
        {"before": BEFORE},
    ).fetchall()
    return [Gap(*row) for row in rows]


def unfilled(conn: Connection) -> list[Gap]:
    """Return the gaps that are open, oldest first."""
    rows = conn.execute("select * from pull_gap where filled_at is null order by id limit %s", (OPEN_GAPS,)).fetchall()
    return [Gap(*row) for row in rows]
