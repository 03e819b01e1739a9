"""Write one page of a feed into the marketing tables, in the caller's transaction.

Rows only go forward: an outcome is taken when its revision is higher than the log row's, a delivery's figures when they
are newer, so reading a page twice, or by two lanes, changes nothing. `broad_log_total` moves in the very statement that
changes the log rows, by what it changed. A row that names nothing we hold (erased) or cannot be kept is counted as
refused and never holds up its page. The caller holds the stream's lock (pointers.lock): one writer at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from midsource.model.delivery import FINAL, DeliveryState
from midsource.model.message import MessageState
from midsource.model.outcome import MAX_REPLY_TEXT
from midsource.store.database import Connection
from midsource.wire.schema import DeliveryRow, LogRow

_STATES = frozenset(int(state) for state in MessageState)
_DELIVERY_STATES = frozenset(int(state) for state in DeliveryState)
_FROM_MID = tuple(int(state) for state in DeliveryState if state >= DeliveryState.START_PENDING)
"""States in which the mid's word counts: from *start pending* on (model/delivery.py)."""
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": None})
WORK_MEMORY = "32MB"
"""A page of 20 000 rows is sorted and kept in memory: with PostgreSQL's 4 MB it went through a file."""
MAX_SMALL = 32_767
MAX_REVISION = 2**31 - 1
MAX_ID = 2**63 - 1
"""What the columns hold: one row beyond it would fail the COPY of its page, again and again."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a page's rows: ``refused`` named nothing we hold; the rest of ``read`` was known already."""

    read: int
    written: int
    refused: int


# Each row costs two descents of the primary key, however large its delivery: OFFSET 0 keeps the first from being flattened
# into a join that reads a million log rows for twenty thousand, and the bounds let the planner leave out other months.
_TAKE = """
with old as materialized (
    select n.*, b.state as old_state, b.reason as old_reason, b.revision as old_revision
    from (select * from feed_page order by delivery_id, id) n cross join lateral (
        select state, reason, revision from broad_log
        where delivery_id = n.delivery_id and id = n.id and delivery_id between %(first)s and %(last)s offset 0) b
), changed as (
    update broad_log b set state = o.state, reason = o.reason, attempts = o.attempts, revision = o.revision,
        event_at = o.event_at, reply = o.reply, message_id = o.message_id
    from old o
    where b.delivery_id = o.delivery_id and b.id = o.id and b.delivery_id between %(first)s and %(last)s
        and o.revision > o.old_revision and o.revision > b.revision
        and exists (select 1 from delivery d where d.id = o.delivery_id and d.account = %(account)s)
    returning b.delivery_id, b.domain, o.old_state, o.old_reason, b.state, b.reason
), moved as materialized (
    select delivery_id, domain, old_state, old_reason, state, reason, count(*) as n from changed group by 1, 2, 3, 4, 5, 6
), moves as (
    select delivery_id, domain, old_state as state, old_reason as reason, -n as n from moved
    union all
    select delivery_id, domain, state, reason, n from moved
), totals as (
    insert into broad_log_total as t (delivery_id, domain, state, reason, n)
    select delivery_id, domain, state, reason, sum(n) from moves group by 1, 2, 3, 4 having sum(n) <> 0 order by 1, 2, 3, 4
    on conflict (delivery_id, domain, state, reason) do update set n = t.n + excluded.n
)
select (select count(*) from old), (select coalesce(sum(n), 0)::bigint from moved)
"""


def take_logs(conn: Connection, account: str, rows: Sequence[LogRow]) -> Written:
    """Take a page of outcomes into the delivery log and its totals."""
    kept = [row for row in rows if _is_storable(row)]
    latest = _latest(kept)
    if not latest:
        return Written(read=len(rows), written=0, refused=len(rows))
    conn.execute(
        "create temp table if not exists feed_page (delivery_id bigint, id bigint, state smallint, reason smallint, "
        "attempts smallint, revision integer, event_at timestamptz, reply text, message_id text) on commit delete rows"
    )
    with conn.cursor() as cursor, cursor.copy("copy feed_page from stdin") as copy:
        copy.write("".join(map(_line, latest.values())))
    conn.execute(f"set local work_mem = '{WORK_MEMORY}'")
    found = conn.execute(_TAKE, {"account": account, "first": min(latest)[0], "last": max(latest)[0]}).fetchone()
    assert found is not None
    known, changed = found
    return Written(read=len(rows), written=changed, refused=len(rows) - len(kept) + len(latest) - known)


def _latest(rows: Sequence[LogRow]) -> dict[tuple[int, int], LogRow]:
    """Return the newest row of each message: one statement can change a row once only."""
    latest: dict[tuple[int, int], LogRow] = {}
    for row in rows:
        known = latest.setdefault((row.delivery, row.id), row)
        if row.revision > known.revision:
            latest[row.delivery, row.id] = row
    return latest


def take_deliveries(conn: Connection, account: str, rows: Sequence[DeliveryRow], told_at: datetime) -> Written:
    """Take a page of deliveries: figures and, from *start pending* on, the state. ``told_at`` is the mid's clock."""
    written = refused = 0
    for row in rows:
        storable = row.state in _DELIVERY_STATES and 0 <= row.revision <= MAX_ID and 0 < row.id <= MAX_ID
        if not storable or not _is_ours(conn, account, row.id):
            refused += 1
            continue
        written += conn.execute(
            """
            update delivery set figures = %(figures)s, figures_at = %(at)s, mid_revision = %(revision)s,
                state = case when %(state)s = any(%(from_mid)s) and state >= 45 then %(state)s else state end,
                started_at = coalesce(%(started)s, started_at), finished_at = coalesce(%(finished)s, finished_at),
                modified_at = clock_timestamp(), version = version + 1
            where id = %(id)s and (mid_revision < %(revision)s
                or (mid_revision = %(revision)s and coalesce(figures_at, '-infinity') < %(at)s))
            """,
            {
                "id": row.id,
                "figures": Jsonb(named_figures(row.figures)),
                "at": told_at,
                "revision": row.revision,
                "state": row.state,
                "from_mid": list(_FROM_MID),
                "started": row.started_at,
                "finished": row.finished_at,
            },
        ).rowcount
    final = [row.id for row in rows if row.state in FINAL]
    if final:  # parts of a finished delivery are never sent again
        conn.execute(
            "update upload_part p set body = null from delivery d where d.id = p.delivery_id and d.account = %s "
            "and d.id = any(%s) and d.state = any(%s) and p.body is not null",
            (account, final, [int(state) for state in FINAL]),
        )
    return Written(read=len(rows), written=written, refused=refused)


def _is_ours(conn: Connection, account: str, delivery_id: int) -> bool:
    """Whether the delivery exists and goes to this account; it is locked then."""
    statement = "select 1 from delivery where id = %s and account = %s for update"
    return conn.execute(statement, (delivery_id, account)).fetchone() is not None


def named_figures(figures: dict[str, int]) -> dict[str, int]:
    """Name the mid's counters by the words of message states; a number we do not know keeps being a number."""
    named = {}
    for number, count in figures.items():
        known = number.isdigit() and int(number) in _STATES
        named[MessageState(int(number)).label if known else number] = count
    return named


def _is_storable(row: LogRow) -> bool:
    return (
        row.state in _STATES
        and 0 <= row.reason <= MAX_SMALL
        and row.attempts >= 0
        and 0 <= row.revision <= MAX_REVISION
        and 0 < row.id <= MAX_ID
        and 0 < row.delivery <= MAX_ID
    )


def _line(row: LogRow) -> str:
    reply = row.reply[:MAX_REPLY_TEXT].translate(_ESCAPES)
    return (
        f"{row.delivery}\t{row.id}\t{row.state}\t{row.reason}\t{min(row.attempts, MAX_SMALL)}\t{row.revision}\t"
        f"{row.event_at.isoformat()}\t{reply}\t{row.message_id.translate(_ESCAPES)}\n"
    )
