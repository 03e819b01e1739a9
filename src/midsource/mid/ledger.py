"""The ledger: one row per message, and the only code that changes such a row.

Order of events, inside the caller's transaction: (1) rows are locked in key order, so two writers of the same messages
wait for each other instead of deadlocking; (2) ``model.message.TRANSITIONS`` decides each event; (3) rows that move get
a new revision, all get a row in ``outcome``: an event that changes nothing (a late reply, a second copy) is stored as
evidence; (4) one ``feed_batch`` row carries the GROUP BY of what that very statement returned. Steps 1 to 4 are one
statement per chunk. Nothing is durable before the caller commits.

Limits: a chunk holds at most MAX_BATCH_ROWS rows and about MAX_BATCH_BYTES, messages of one month, and each message once; a longer
sequence is cut into several batches in order, all in the same transaction. What was counted is read in ``mid.counters``.

A statement names the month's partition, not the whole ledger: the planner, who does not count on the pruning of partitions while a
join runs, takes a look-up in the ledger of three years for 36 look-ups, and reads the whole ledger at each batch instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache

import msgspec
from psycopg import sql

from midsource.model.ids import SERIAL_BITS
from midsource.model.message import TRANSITIONS, MessageEvent, MessageState
from midsource.model.outcome import MAX_REPLY_TEXT
from midsource.store.database import Connection, scalar

MAX_BATCH_ROWS = 5_000
"""Rows of one feed batch (design 5); the table's CHECK says the same."""
MAX_BATCH_BYTES = 1_000_000
"""Text of one feed batch, so that a page is bounded in bytes before it is read."""
ROW_BYTES = 120
"""What an outcome row takes beside its texts, roughly, as the feed hands it on."""

STATEMENTS = 24
"""Months whose statement is kept: writing it takes 150 us, a part of settling a batch."""


class OutcomeRecord(msgspec.Struct, frozen=True):
    """What happened to one message. ``event_at`` is aware; ``counts_attempt``: whether it was a try at the recipient."""

    delivery_id: int
    id: int
    event: MessageEvent
    event_at: datetime
    reason: int = 0
    reply: str = ""
    stage: str = ""
    message_id: str = ""
    process: str = ""
    counts_attempt: bool = True


class Recorded(msgspec.Struct, frozen=True):
    """Where a message stands after its record. ``changed`` is false for evidence."""

    delivery_id: int
    id: int
    old_state: MessageState
    state: MessageState
    attempts: int
    revision: int
    changed: bool


@dataclass(frozen=True, slots=True)
class RecordResult:
    """One entry a record, in the order given; None where the ledger has no such message (erased, or never ours).

    Without entries where none were asked for: reading thousands of rows that nobody looks at is a third of settling.
    """

    rows: tuple[Recorded | None, ...]

    @property
    def changed(self) -> int:
        """Count the records that moved their message."""
        return sum(1 for row in self.rows if row is not None and row.changed)

    @property
    def unknown(self) -> int:
        """Count the records without a message."""
        return sum(1 for row in self.rows if row is None)


def record_outcomes(
    conn: Connection, account_id: int, outcomes: Sequence[OutcomeRecord], now: datetime, *, tell: bool = True
) -> RecordResult:
    """Apply ``outcomes`` in order, in the caller's transaction. Refused events are evidence, unknown messages None.

    Several records of one message are applied one after the other. ``tell``: whether the result has entries. Raises
    what the database raises, nothing else.
    """
    if not outcomes:
        return RecordResult(())
    day = now.astimezone(UTC).date()
    conn.execute("select ensure_day('outcome', %s)", (day,))
    rows: list[Recorded | None] = [None] * len(outcomes) if tell else []
    # In the order of months, which is that of keys: two writers of the same messages wait for each other.
    for month, places in sorted(_by_month(outcomes).items()):
        partition = _partition(conn, month)
        if partition is None:
            continue
        own = [outcomes[place] for place in places]
        done = _record_month(conn, partition, account_id, own, day, tell=tell)
        if tell:
            for place, row in zip(places, done, strict=True):
                rows[place] = row
    return RecordResult(tuple(rows))


def cancel_pending(conn: Connection, account_id: int, delivery_id: int, limit: int, now: datetime) -> int:
    """Cancel at most ``limit`` pending or deferred messages of a delivery; return how many.

    Messages in a leased dispatch batch are left alone: their process, or recovery after its death, says what became of them.
    Uncertain ones stay uncertain.
    """
    found = conn.execute(
        "select m.id from message m where m.account_id = %(account)s and m.delivery_id = %(delivery)s "
        "and m.state in (6, 61) and m.id not in (select unnest(b.ids) from dispatch_batch b "
        "  where b.account_id = %(account)s and b.delivery_id = %(delivery)s and b.owner is not null) "
        "order by m.id limit %(limit)s for no key update of m",
        {"account": account_id, "delivery": delivery_id, "limit": min(limit, MAX_BATCH_ROWS)},
    ).fetchall()
    records = [OutcomeRecord(delivery_id, id_, MessageEvent.CANCEL, now, counts_attempt=False) for (id_,) in found]
    return record_outcomes(conn, account_id, records, now).changed


def _by_month(outcomes: Sequence[OutcomeRecord]) -> dict[int, list[int]]:
    """Return the places of the outcomes of each month, in order."""
    found: dict[int, list[int]] = {}
    for place, record in enumerate(outcomes):
        found.setdefault(record.delivery_id >> SERIAL_BITS, []).append(place)
    return found


def _partition(conn: Connection, month: int) -> str | None:
    """Return the table that holds the messages of a month; None where it is gone, and every message with it."""
    name = f"message_{month}"
    return name if scalar(conn, "select to_regclass(%s)", (name,)) is not None else None


def _record_month(
    conn: Connection,
    partition: str,
    account_id: int,
    outcomes: Sequence[OutcomeRecord],
    day: date,
    *,
    tell: bool,
) -> list[Recorded | None]:
    """Record outcomes of one month's messages, in order."""
    chunks = list(_chunks(outcomes))
    if len(chunks) > 1:
        _lock(conn, partition, account_id, outcomes)
    rows: list[Recorded | None] = []
    for chunk in chunks:
        rows += _record_chunk(conn, partition, account_id, chunk, day, tell=tell)
    return rows


def _chunks(outcomes: Sequence[OutcomeRecord]) -> Iterator[Sequence[OutcomeRecord]]:
    """Cut where a bound is reached or a message comes again: one statement can change a row once only."""
    seen: set[tuple[int, int]] = set()
    size = start = 0
    for at, record in enumerate(outcomes):
        key = (record.delivery_id, record.id)
        text = ROW_BYTES + min(len(record.reply), MAX_REPLY_TEXT) * (1 if record.reply.isascii() else 4)
        if at > start and (at - start == MAX_BATCH_ROWS or size + text > MAX_BATCH_BYTES or key in seen):
            yield outcomes[start:at]
            start, size = at, 0
            seen.clear()
        seen.add(key)
        size += text
    if len(outcomes) > start:
        yield outcomes[start:]


def _record_chunk(
    conn: Connection,
    partition: str,
    account_id: int,
    chunk: Sequence[OutcomeRecord],
    day: date,
    *,
    tell: bool,
) -> list[Recorded | None]:
    rows: list[Recorded | None] = [None] * len(chunk) if tell else []
    params = {"account": account_id, "day": day, "records": _encode(chunk), "tell": tell}
    for n, old, new, attempts, revision, changed in conn.execute(_statement(partition), params, binary=True):
        record = chunk[n - 1]
        rows[n - 1] = Recorded(
            record.delivery_id, record.id, MessageState(old), MessageState(new), attempts, revision, changed
        )
    return rows


def _encode(chunk: Sequence[OutcomeRecord]) -> str:
    """Return one JSON document: one parameter instead of thousands. PostgreSQL takes neither U+0000 nor surrogates."""
    try:
        document = msgspec.json.encode(chunk)
    except UnicodeEncodeError:
        document = b"\\u0000"
    if b"\\u0000" in document:
        document = msgspec.json.encode(
            [
                msgspec.structs.replace(
                    r, reply=_plain(r.reply), message_id=_plain(r.message_id), process=_plain(r.process)
                )
                for r in chunk
            ]
        )
    return document.decode()


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", " ")


@lru_cache(STATEMENTS)
def _statement(partition: str) -> bytes:
    return _RECORD.format(
        partition=sql.Identifier(partition),
        moves=_MOVES,
        reply=sql.Literal(MAX_REPLY_TEXT),
        uncertain=sql.Literal(int(MessageState.UNCERTAIN)),
    ).as_bytes()


def _lock(conn: Connection, partition: str, account_id: int, outcomes: Sequence[OutcomeRecord]) -> None:
    """Lock the rows of all chunks in key order before the first is changed: chunks may overlap in any order."""
    keys = sorted({(record.delivery_id, record.id) for record in outcomes})
    conn.execute(
        sql.SQL(
            "select count(*) from (select * from unnest(%s::bigint[], %s::bigint[]) as k(delivery_id, id)) k cross join lateral "
            "(select m.id from {} m where m.account_id = %s and m.delivery_id = k.delivery_id and m.id = k.id "
            " for no key update) m"
        ).format(sql.Identifier(partition)),
        ([key[0] for key in keys], [key[1] for key in keys], account_id),
    )


_MOVES = sql.SQL(", ").join(
    sql.SQL("({}::smallint, {}, {}::smallint)").format(int(old), str(event), int(new))
    for old, moves in TRANSITIONS.items()
    for event, new in moves.items()
)

# Each message costs two descents of the primary key, however large its delivery. LATERAL with a lock inside is never
# flattened; and the update joins by columns only, the account too: given a constant, the planner takes the million rows
# of a delivery just received (no statistics yet) for ten and reads them all for every batch.
_RECORD = sql.SQL("""
with move (old_state, event, new_state) as (values {moves}),
input as (
    select * from rows from (json_to_recordset(%(records)s::json) as (
        delivery_id bigint, id bigint, event text, event_at timestamptz, reason smallint, reply text, stage text,
        message_id text, process text, counts_attempt boolean)) with ordinality as x (
        delivery_id, id, event, event_at, reason, reply, stage, message_id, process, counts_attempt, n)
),
judged as (
    select i.n, m.account_id, i.delivery_id, i.id, m.domain, m.state as old_state, coalesce(move.new_state, m.state) as new_state,
           move.new_state is not null as changed, i.event_at, i.reason, i.stage, i.process,
           -- the try that left it uncertain was counted then: its late answer is not another one
           (m.attempts + (i.counts_attempt and move.new_state is not null and m.state <> {uncertain})::int)::smallint as attempts,
           m.revision + (move.new_state is not null)::int as revision,
           coalesce(m.first_try_at, case when i.counts_attempt then i.event_at end) as first_try_at,
           left(coalesce(nullif(i.reply, ''), m.reply), {reply}) as reply,
           coalesce(nullif(i.message_id, ''), m.message_id) as message_id
    from (select * from input order by delivery_id, id) i
    cross join lateral (
        select account_id, domain, state, attempts, revision, first_try_at, l.reply, l.message_id from {partition} l
        where account_id = %(account)s and delivery_id = i.delivery_id and l.id = i.id for no key update) m
    left join move on move.old_state = m.state and move.event = i.event
),
updated as (
    update {partition} m
    set state = j.new_state, reason = j.reason, attempts = j.attempts, revision = j.revision,
        first_try_at = j.first_try_at, event_at = j.event_at, reply = j.reply, message_id = j.message_id
    from judged j
    where j.changed and m.account_id = j.account_id and m.delivery_id = j.delivery_id and m.id = j.id
    returning m.delivery_id, m.domain, j.old_state, m.state
),
tally as (
    select coalesce(jsonb_agg(jsonb_build_array(delivery_id, domain, old_state, state, n)), '[]') as entries from (
        select delivery_id, domain, old_state, state, count(*) as n from updated where old_state <> state
        group by delivery_id, domain, old_state, state) t
),
batch as (
    insert into feed_batch (account_id, day, rows, deliveries, tally)
    select %(account)s, %(day)s, (select count(*) from judged), (select array_agg(distinct delivery_id) from judged), entries
    from tally where exists (select from judged)
    returning id
),
kept as (
    insert into outcome (account_id, day, batch_id, row, delivery_id, id, old_state, new_state, reason, attempts, revision,
                         event_at, stage, reply, message_id, process, evidence)
    select %(account)s, %(day)s, batch.id, row_number() over (order by j.n), j.delivery_id, j.id, j.old_state, j.new_state,
           j.reason, j.attempts, j.revision, j.event_at, j.stage, j.reply, j.message_id, j.process, not j.changed
    from judged j cross join batch
)
select n::int, old_state, new_state, attempts, revision, changed from judged where %(tell)s
""")
