"""The change feed: what happened on this mid, in an order that never changes, read in bounded pages.

Number, then read. A feed batch becomes visible without a number, when its transaction commits. Whoever serves the feed
first gives numbers, in a short transaction of its own under one advisory lock, to at most TURN_BATCHES batches that it
can see and that have none; after that commit it reads ``seq > cursor`` in order. So no reader can pass a batch that has
not committed, whatever the order of commits. A reader that misses the lock reads what is already numbered.

Every turn also keeps when it looked (``feed_turn``), never going back although the clock may: whatever a turn did not
see gets that time or a later one. So at the end of the feed the last turn's time is a safe position, and the first
batch with ``sequenced_at`` at or after it is where to go on.

A cursor is (generation, seq, row): all batches up to seq, and of that batch rows up to row, were served. Row 0 stands
for the whole batch. It is text, opaque to whoever holds it. A cursor of another generation, or beyond the last number
given, raises Gone: the database was restored or cloned. A cursor or a time from before what is kept raises Forgotten, which
says where the oldest kept begins: `cleanup` notes that in the transaction that forgets (mid/cleanup_feed.py).

Limits: 20 000 rows or 16 MB a page, ASKED_BATCHES batches looked at, PAGE_SECONDS for its statement (halved pages are
tried when that is too short). Reading changes nothing but the acknowledgement, which retention goes by.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal, TypeAlias

import msgspec
from psycopg import sql
from psycopg.types.numeric import Int8BinaryLoader

from midsource.mid import counters
from midsource.mid.cursor import Cursor, Forgotten, Gone
from midsource.model.errors import UserError
from midsource.store.database import Connection, Database, StatementTimeout, scalar
from midsource.wire.schema import MAX_PAGE_BYTES, MAX_PAGE_ROWS, DeliveryRow, FeedHead, GoneBefore, LogRow, Rewound

Stream: TypeAlias = Literal["deliveries", "logs"]

TURN_BATCHES = 1_000
"""Batches numbered in one turn (design 5): about 20 ms, so nobody misses the lock for long."""
ASKED_BATCHES = 5_000
"""Batches one page looks at: batches may be as small as one row."""
PAGE_SECONDS = 15
"""Longest statement of a page: the caller's own time-out must not come first."""
SMALLEST_PAGE = 50
"""A page that times out with so few rows does so for another reason than its size."""
_TURN_LOCK = 0x6D69647372630011
"""Advisory lock key: one numbering turn at a time, which is what makes numbers visible in their order."""
ENCODED_ROWS = 1_000
"""Rows turned into lines at once: at most about 3 MB, far less than a page."""
SERVER_EPOCH = 946_684_800_000_000
"""2000-01-01 in microseconds since 1970: PostgreSQL counts from there."""
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Page:
    """A served page: its head and its rows as NDJSON lines."""

    head: FeedHead
    lines: bytes
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class Ask:
    """What a reader wants: a stream from ``after`` (or from ``since``, or from the oldest kept), at most ``limit`` rows.

    ``held``: the cursor up to which it has everything durably, "" for none; None: that is ``after``.
    """

    stream: Stream
    after: str = ""
    since: datetime | None = None
    limit: int = MAX_PAGE_ROWS
    held: str | None = None

    @property
    def acknowledged(self) -> str:
        """The cursor before which the reader needs nothing any more."""
        return self.after if self.held is None else self.held


@dataclass(frozen=True, slots=True)
class _Batch:
    """A numbered batch, or what is left of it: rows after ``after``, up to ``upto``."""

    id: int
    seq: int
    day: date
    rows: int
    sequenced_at: datetime
    deliveries: Sequence[int]
    after: int
    upto: int

    @property
    def end_row(self) -> int:
        """The row of the cursor behind this batch: 0 when all of it is served."""
        return self.upto if self.upto < self.rows else 0


def take_turn(database: Database, now: datetime) -> int | None:
    """Number what is visible; return how many, None where another process is at it. Then fold some tallies."""
    with database.transaction() as conn:
        if not scalar(conn, "select pg_try_advisory_xact_lock(%s)", (_TURN_LOCK,)):
            return None
        at = scalar(conn, "update feed_turn set turned_at = greatest(turned_at, %s) returning turned_at", (now,))
        # SKIP LOCKED: a batch that is being folded just now is numbered in the next turn; no order depends on it.
        numbered = conn.execute(
            "with unnumbered as (select id from feed_batch where seq is null order by id limit %s for update skip locked), "
            "numbered as (select id, nextval('feed_seq') as seq from (select id from unnumbered order by id) u) "
            "update feed_batch b set seq = n.seq, sequenced_at = %s from numbered n where b.id = n.id",
            (TURN_BATCHES, at),
        ).rowcount
    with database.transaction() as conn:
        counters.fold(conn)
    return numbered


def position(conn: Connection, account_id: int, ask: Ask) -> Cursor:
    """Return where ``ask`` begins. Raises Gone, Forgotten, UserError for a text that is no cursor."""
    generation = scalar(conn, "select generation from instance")
    gone = conn.execute("select seq, gone_before from feed_gone where account_id = %s", (account_id,)).fetchone()
    if ask.after:
        cursor = Cursor.parse(ask.after)
        last = scalar(conn, "select case when is_called then last_value else 0 end from feed_seq")
        if cursor.generation != generation or cursor.seq > last:
            bounds = conn.execute(
                "select coalesce(max(seq), 0), coalesce(min(seq), 0) from feed_batch where account_id = %s",
                (account_id,),
            ).fetchone()
            assert bounds is not None
            raise Gone(Rewound(generation=str(generation), head_seq=bounds[0], oldest_seq=bounds[1]))
        if gone is not None and (cursor.seq < gone[0] or (cursor.seq == gone[0] and cursor.row)):
            raise _forgotten(generation, *gone)
        return cursor
    if ask.since is None:
        return Cursor(generation, gone[0] if gone else 0)
    if gone is not None and ask.since <= gone[1]:
        raise _forgotten(generation, *gone)
    before = scalar(
        conn,
        "select coalesce((select seq - 1 from feed_batch where account_id = %(account)s and sequenced_at >= %(since)s "
        "order by sequenced_at, seq limit 1), (select max(seq) from feed_batch where account_id = %(account)s), %(gone)s)",
        {"account": account_id, "since": ask.since, "gone": gone[0] if gone else 0},
    )
    return Cursor(generation, before)


def _forgotten(generation: uuid.UUID, seq: int, before: datetime) -> Forgotten:
    return Forgotten(
        GoneBefore(generation=str(generation), gone_before=before, cursor=str(Cursor(generation, seq)), seq=seq)
    )


def read_page(database: Database, account_id: int, ask: Ask, now: datetime) -> Page:
    """Take a turn, then serve the page that follows ``ask``; an empty one at the end of the feed. Raises what ``position`` does."""
    if ask.limit < 1:
        raise UserError(f"a page of {ask.limit} rows cannot be served", "ask for at least one")
    take_turn(database, now)
    limit = min(ask.limit, MAX_PAGE_ROWS)
    while True:
        try:
            with database.transaction(statement_seconds=PAGE_SECONDS) as conn:
                return _page(conn, account_id, ask, limit, now)
        except StatementTimeout:
            if limit <= SMALLEST_PAGE:
                raise
            limit = max(limit // 2, SMALLEST_PAGE)


def heads(conn: Connection, account_ids: Sequence[int]) -> dict[int, tuple[int, bool]]:
    """Return the last number of each account, and whether batches wait for theirs: what a waiting reader looks at."""
    found = conn.execute(
        "select a.id, coalesce((select max(seq) from feed_batch where account_id = a.id), 0), "
        "exists (select from feed_batch where account_id = a.id and seq is null) from unnest(%s::int[]) as a (id)",
        (list(account_ids),),
    )
    return {account: (seq, unnumbered) for account, seq, unnumbered in found}


def acknowledge(database: Database, account_id: int, stream: Stream, cursor: Cursor, now: datetime) -> None:
    """Keep that the account has everything before ``cursor``: it gave that cursor back. Never goes back."""
    seq = cursor.seq - (1 if cursor.row else 0)
    with database.transaction() as conn:
        conn.execute(
            "insert into feed_ack as a (account_id, stream, seq, asked_at) values (%s, %s, %s, %s) "
            "on conflict (account_id, stream) do update set seq = greatest(a.seq, excluded.seq), asked_at = excluded.asked_at",
            (account_id, stream, seq, now),
        )


def _page(conn: Connection, account_id: int, ask: Ask, limit: int, now: datetime) -> Page:
    conn.execute("set transaction isolation level repeatable read")  # turn, batches and counters of one moment
    conn.execute("lock table only outcome in access share mode")  # no day goes between its batches and its rows
    turned_at = scalar(conn, "select turned_at from feed_turn")
    start = position(conn, account_id, ask)
    batches, more = _batches(conn, account_id, start, ask.stream, limit)
    end = Cursor(start.generation, batches[-1].seq, batches[-1].end_row) if batches else start
    if ask.stream == "logs":
        lines, rows, stopped = _log_lines(conn, account_id, batches)
        if stopped is not None:
            end, more = Cursor(start.generation, *stopped), True
    else:
        lines, rows = _delivery_lines(conn, account_id, batches)
    head_seq, unnumbered = heads(conn, [account_id])[account_id]
    last_at = next((batch.sequenced_at for batch in reversed(batches) if batch.seq <= end.seq), turned_at)
    head = FeedHead(
        generation=str(start.generation),
        cursor=str(end),
        rows=rows,
        more=more or unnumbered,
        reached_at=last_at if more else turned_at,
        now=now,
        seq=end.seq,
        head_seq=max(head_seq, end.seq),
    )
    return Page(head, lines, end)


def _batches(conn: Connection, account_id: int, start: Cursor, stream: Stream, limit: int) -> tuple[list[_Batch], bool]:
    """Return the batches of the page, in order, and whether more follow. Logs are cut within a batch, deliveries not."""
    weight = sql.SQL("rows" if stream == "logs" else "cardinality(deliveries)")
    found = conn.execute(
        sql.SQL(
            "select id, seq, day, rows, sequenced_at, deliveries, before from ("
            "  select *, sum({weight}) over (order by seq) - {weight} as before from ("
            "    select * from feed_batch where account_id = %s and seq > %s order by seq limit %s) b) w "
            "where before < %s order by seq"
        ).format(weight=weight),
        (account_id, start.seq - (1 if start.row else 0), ASKED_BATCHES, limit + start.row),
    ).fetchall()
    batches = []
    left = limit
    for id_, seq, day, rows, sequenced_at, touched, _ in found:
        after = start.row if seq == start.seq else 0
        if stream == "logs" and left <= 0 and rows:
            break
        upto = min(rows, after + left) if stream == "logs" else rows
        batches.append(_Batch(id_, seq, day, rows, sequenced_at, touched, after, upto))
        left -= upto - after
    last = batches[-1] if batches else None
    more = last is not None and (
        last.end_row > 0
        or scalar(
            conn, "select exists (select from feed_batch where account_id = %s and seq > %s)", (account_id, last.seq)
        )
    )
    return batches, bool(more)


def _log_lines(
    conn: Connection, account_id: int, batches: Sequence[_Batch]
) -> tuple[bytes, int, tuple[int, int] | None]:
    """Return the lines, their number, and (seq, row) of the last one where the page was cut for its bytes."""
    wanted = [batch for batch in batches if batch.upto > batch.after]
    cursor = conn.cursor(binary=True)
    cursor.adapters.register_loader("timestamptz", Int8BinaryLoader)  # as the server keeps it: no date is made of it
    cursor.execute(
        "select b.seq, o.row, o.event_at, o.delivery_id, o.id, o.new_state, o.reason, o.attempts, o.revision, o.reply, "
        "o.message_id from unnest(%s::bigint[], %s::bigint[], %s::date[], %s::int[], %s::int[]) "
        "as b (id, seq, day, after, upto) cross join lateral ("
        "  select * from outcome where account_id = %s and day = b.day and batch_id = b.id "
        "  and row > b.after and row <= b.upto and not evidence order by row) o order by b.seq, o.row",
        (
            *([getattr(batch, name) for batch in wanted] for name in ("id", "seq", "day", "after", "upto")),
            account_id,
        ),
    )
    lines = bytearray()
    rows = 0
    last: tuple[int, int] = (0, 0)
    while some := cursor.fetchmany(ENCODED_ROWS):
        chunk = _encoder.encode_lines([_log_row(row) for row in some])
        if rows and len(lines) + len(chunk) > MAX_PAGE_BYTES:
            return bytes(lines), rows, last
        lines += chunk
        rows += len(some)
        last = (some[-1][0], some[-1][1])
    return bytes(lines), rows, None


def _log_row(row: Sequence[Any]) -> LogRow:
    _, _, event_at, delivery, id_, state, reason, attempts, revision, reply, message_id = row
    return LogRow(delivery, id_, state, reason, attempts, revision, event_at + SERVER_EPOCH, reply, message_id)


def _delivery_lines(conn: Connection, account_id: int, batches: Sequence[_Batch]) -> tuple[bytes, int]:
    """Return every delivery that the batches touch, as it is now."""
    touched = sorted({delivery_id for batch in batches for delivery_id in batch.deliveries})
    figures = counters.totals_of(conn, account_id, touched) if touched else {}
    found = conn.execute(
        "select id, state, revision, started_at, finished_at from delivery where account_id = %s and id = any(%s) order by id",
        (account_id, touched),
    ).fetchall()
    lines = _encoder.encode_lines(
        [
            DeliveryRow(
                id=id_,
                state=state,
                revision=revision,
                figures={str(number): n for number, n in sorted(figures[id_].items())},
                started_at=started_at,
                finished_at=finished_at,
            )
            for id_, state, revision, started_at, finished_at in found
        ]
    )
    return lines, len(found)
