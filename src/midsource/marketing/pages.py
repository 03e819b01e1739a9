"""Write one page of a feed into the marketing tables, in the caller's transaction.

Rows only go forward: an outcome is taken when its revision is higher than the log row's, a delivery's figures when they
are newer, so reading a page twice, or by two lanes, changes nothing. `broad_log_total` moves in the very statement that
changes the log rows, by what it changed. A row that names nothing we hold (erased) or cannot be kept is counted as
refused and never holds up its page. The caller holds the stream's lock (pointers.lock): one writer at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, LiteralString

import msgspec
from psycopg.types.json import Jsonb

from midsource.model.delivery import FINAL, DeliveryState
from midsource.model.message import MessageState
from midsource.model.outcome import MAX_REPLY_TEXT
from midsource.policy.runs import Key, Run, runs_of
from midsource.store.database import Connection
from midsource.wire.schema import DeliveryRow, LogRow

_STATES = frozenset(int(state) for state in MessageState)
_DELIVERY_STATES = frozenset(int(state) for state in DeliveryState)
_FROM_MID = tuple(int(state) for state in DeliveryState if state >= DeliveryState.START_PENDING)
"""States in which the mid's word counts: from *start pending* on (model/delivery.py)."""
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": None})
WORK_MEMORY = "32MB"
"""A page of 10 000 rows is sorted and kept in memory: with PostgreSQL's 4 MB it went through a file."""
PIECE_ROWS = 2_000
"""Rows turned into text at once: a page of them would be several copies of it."""
MAX_SMALL = 32_767
MAX_REVISION = 2**31 - 1
MAX_ID = 2**63 - 1
MAX_MOMENT = 253_402_300_799_999_999  # the last microsecond of the year 9999
"""What the columns hold: one row beyond it would fail the COPY of its page, again and again."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a page's rows: ``refused`` named nothing we hold; the rest of ``read`` was known already."""

    read: int
    written: int
    refused: int


_STAGED = """
create temp table if not exists feed_page (run smallint, delivery_id bigint, id bigint, state smallint, reason smallint,
    attempts integer, revision integer, event_at bigint, reply text, message_id text) on commit delete rows
"""

# What rows become, and what the totals become with them, in one statement. ``n`` are the page's rows, ``k`` the log's.
_TAKE = """
with changed as (
    update broad_log b set state = o.state, reason = o.reason, attempts = least(o.attempts, {most}), revision = o.revision,
        event_at = timestamptz 'epoch' + o.event_at * interval '1 microsecond', reply = left(o.reply, {reply}), message_id = o.message_id
    from (select n.*, k.state as old_state, k.reason as old_reason from {found}) o
    where b.id = o.id and b.delivery_id = o.delivery_id and {here} and o.revision > b.revision
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
select coalesce(sum(n), 0)::bigint from moved
"""
_CUT = {"most": MAX_SMALL, "reply": MAX_REPLY_TEXT}
# A run (policy/runs.py): its range of the primary key is read twice, in order, and joined.
_TAKE_RUN = _TAKE.format(
    found="feed_page n join broad_log k on k.id = n.id where n.run = %(run)s and k.delivery_id = %(delivery)s "
    "and k.id between %(first)s and %(last)s and n.revision > k.revision",
    here="b.delivery_id = %(delivery)s and b.id between %(first)s and %(last)s",
    **_CUT,
)
# Rows that lie apart: two descents of the primary key each. OFFSET 0 keeps the first from being flattened into a join that
# reads a million log rows for a hundred, and the bounds let the planner leave out other months.
_TAKE_APART = _TAKE.format(
    found="(select * from feed_page where run = 0 and delivery_id = any(%(ours)s) order by delivery_id, id) n cross join lateral ("
    "select state, reason from broad_log where delivery_id = n.delivery_id and id = n.id and revision < n.revision "
    "and delivery_id between %(first)s and %(last)s offset 0) k",
    here="b.delivery_id between %(first)s and %(last)s",
    **_CUT,
)
_KNOWN = """
select count(*) from feed_page n cross join lateral (
    select from broad_log where delivery_id = n.delivery_id and id = n.id and delivery_id between %(first)s and %(last)s offset 0) k
"""
_JOINS = "select " + ", ".join(
    f"set_config('enable_{way}', %(on)s, true)" for way in ("nestloop", "hashjoin", "seqscan", "bitmapscan")
)
"""A run is merged in the order of the primary key: without statistics of a new delivery the planner does anything else."""


def take_logs(conn: Connection, account: str, rows: Sequence[LogRow]) -> Written:
    """Take a page of outcomes into the delivery log and its totals."""
    kept = [row for row in rows if _is_storable(row)]
    kept.sort(key=attrgetter("revision"))
    latest = {(row.delivery, row.id): row for row in kept}  # the newest of each message: it can be changed once only
    if not latest:
        return Written(read=len(rows), written=0, refused=len(rows))
    keys = sorted(latest)
    runs = runs_of(keys)
    ours = _ours(conn, account, keys)
    conn.execute(_STAGED)
    with conn.cursor() as cursor, cursor.copy("copy feed_page from stdin") as copy:
        for piece in _pieces(latest, keys, runs):
            copy.write(piece)
    conn.execute(f"set local work_mem = '{WORK_MEMORY}'")
    changed = _take_runs(conn, keys, runs, ours)
    bounds = {"first": keys[0][0], "last": keys[-1][0], "ours": list(ours)}
    if sum(run.stop - run.start for run in runs) < len(keys):
        changed += _count(conn, _TAKE_APART, bounds)
    known = changed if changed == len(latest) else _count(conn, _KNOWN, bounds)
    return Written(read=len(rows), written=changed, refused=len(rows) - len(kept) + len(latest) - known)


def _take_runs(conn: Connection, keys: Sequence[Key], runs: Sequence[Run], ours: Collection[int]) -> int:
    """Take the staged runs of our deliveries; return how many rows changed."""
    changed = 0
    if runs:
        conn.execute(_JOINS, {"on": "off"})
    for number, run in enumerate(runs, 1):
        (delivery, first), (_, last) = keys[run.start], keys[run.stop - 1]
        if delivery in ours:
            span = {"run": number, "delivery": delivery, "first": first, "last": last}
            changed += _count(conn, _TAKE_RUN, span)
    if runs:
        conn.execute(_JOINS, {"on": "on"})
    return changed


def _count(conn: Connection, statement: LiteralString, params: dict[str, Any]) -> int:
    """Run a statement that returns a number; planned anew each time, because its bounds decide how it is best done."""
    row = conn.execute(statement, params, prepare=False).fetchone()
    assert row is not None
    return int(row[0])


def _ours(conn: Connection, account: str, keys: Sequence[Key]) -> frozenset[int]:
    """Return which deliveries of these rows go to this account."""
    named = list({delivery for delivery, _ in keys})
    found = conn.execute("select id from delivery where account = %s and id = any(%s)", (account, named))
    return frozenset(id_ for (id_,) in found)


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
        and 0 <= row.attempts <= MAX_REVISION
        and 0 <= row.revision <= MAX_REVISION
        and 0 < row.id <= MAX_ID
        and 0 < row.delivery <= MAX_ID
        and 0 <= row.event_at <= MAX_MOMENT
    )


def _pieces(rows: Mapping[Key, LogRow], keys: Sequence[Key], runs: Sequence[Run]) -> Iterator[str]:
    """Yield the rows as COPY reads them, some thousand at once, each with the number of its run, 0 for none."""
    start = 0
    for number, run in enumerate([*runs, Run(len(keys), len(keys))], 1):
        for its, first, stop in ((0, start, run.start), (number, run.start, run.stop)):
            for at in range(first, stop, PIECE_ROWS):
                yield _lines(its, [rows[key] for key in keys[at : min(at + PIECE_ROWS, stop)]])
        start = run.stop


def _lines(run: int, rows: Sequence[LogRow]) -> str:
    """Return lines for COPY; whether anything in them means something to it is asked once for all."""
    if not _is_plain("".join([row.reply + row.message_id for row in rows])):
        rows = [
            msgspec.structs.replace(
                row,
                reply=row.reply[:MAX_REPLY_TEXT].translate(_ESCAPES),
                message_id=row.message_id.translate(_ESCAPES),
            )
            for row in rows
        ]
    return "".join(
        [
            f"{run}\t{row.delivery}\t{row.id}\t{row.state}\t{row.reason}\t{row.attempts}\t{row.revision}\t"
            f"{row.event_at}\t{row.reply}\t{row.message_id}\n"
            for row in rows
        ]
    )


def _is_plain(text: str) -> bool:
    return text.isprintable() and "\\" not in text
