"""Reception: delivery parts become ledger rows, each exactly once, and ``finalise`` proves that all are here.

Order of events for a part: check its hash; read its lines without the database; then in one transaction hold the
delivery against finalising (a shared lock, so several parts are received at once), refuse what is already here, COPY
the rest into the ledger, write the part's answer and the tally. The answer is durable before it is given, and a repeat
of the same content gets it again, so a part whose answer was lost on the way is simply sent again.

A row that cannot be taken (not JSON, no address, too large, an id that the delivery has already) is refused alone, with
its reason, in the answer. A part n and its children n.1… exclude each other: the sender split n only because n is not
here, and taking both would double every row.

Limits: 5 000 rows a part, 64 kB a row, 64 MB a part uncompressed (``wire.schema``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from psycopg import errors as pg

from midsource.mid import counters, deliveries, disk_budget
from midsource.mid.deliveries import Delivery
from midsource.model.address import AddressProblem, EmailAddress
from midsource.model.delivery import DeliveryEvent, DeliveryState
from midsource.model.errors import Conflict, NotFound, UserError
from midsource.model.message import MessageState
from midsource.store.database import Connection, Database, scalar
from midsource.wire import rows as wire_rows
from midsource.wire.schema import (
    MAX_PART_RAW_BYTES,
    MAX_PART_ROWS,
    Finalise,
    FinaliseAnswer,
    PartAnswer,
    RefusedRow,
)

MAX_ROW_BYTES = 65_536
"""One line: a hundred fields of 600 characters; the rendered message is bounded elsewhere."""
MAX_MISSING_NAMED = 100
"""Missing parts named in one answer; the rest are asked for after these have come."""
COPY_TRIES = 3
"""Two parts with the same id in flight: the later one reads again what is here. More means something else is wrong."""


class PartTooLarge(UserError):
    """The part has more rows or bytes than the mid takes at once; a smaller one will pass."""

    code = "MS-134"
    http_status = 413


class _Row(msgspec.Struct, frozen=True, gc=False):
    """A row that can be taken. A struct, because making a frozen dataclass costs a tenth of all that a row costs."""

    id: int
    email: str
    domain: str
    data: str
    hash: int


@dataclass(frozen=True, slots=True)
class _Read:
    """What the lines of a part hold, before the database was asked."""

    rows: tuple[_Row, ...]
    refused: tuple[RefusedRow, ...]


def put_part(
    database: Database, account_id: int, delivery_id: int, part: str, raw: bytes, content_hash: str, now: datetime
) -> PartAnswer:
    """Take the part ``part`` with the lines ``raw``; durable on return. The same content again gets the first answer.

    Raises UserError (hash does not fit: cut on the way), PartTooLarge, NotFound (no such delivery), Conflict (other
    content under this number, a split part beside its whole, a delivery that is closed), StorageFull, DiskBudgetSpent.
    """
    if len(raw) > MAX_PART_RAW_BYTES:
        raise PartTooLarge(f"part {part} has {len(raw)} bytes, more than {MAX_PART_RAW_BYTES}", "send smaller parts")
    if wire_rows.content_hash(raw) != content_hash:
        raise UserError(
            f"part {part} does not have the content hash it came with", "it was altered on the way; send it again"
        )
    # Counted before they are cut: 64 MB of empty lines would be 64 million objects.
    if raw.count(b"\n") > MAX_PART_ROWS or raw.count(b"\r") > MAX_PART_ROWS:
        raise PartTooLarge(f"part {part} has more than {MAX_PART_ROWS} rows", "send smaller parts")
    lines = list(wire_rows.lines(raw))
    read = _read(lines)
    for attempt in range(1, COPY_TRIES + 1):
        try:
            with database.transaction() as conn:
                return _store(conn, account_id, delivery_id, part, content_hash, len(lines), read, now)
        except pg.UniqueViolation as exc:
            if attempt == COPY_TRIES:
                raise Conflict(f"part {part} meets the same rows in other parts again and again", "try again") from exc
    raise AssertionError("unreachable")


def get_part(database: Database, account_id: int, delivery_id: int, part: str) -> PartAnswer:
    """Return what was answered when the part was taken; raises NotFound where it was not: it may be sent or split."""
    with database.connection() as conn:
        answer = _stored_answer(conn, account_id, delivery_id, part)
    if answer is None:
        raise NotFound(f"part {part} of delivery {delivery_id} is not here", "send it")
    return answer[1]


def finalise(database: Database, account_id: int, delivery_id: int, claim: Finalise, now: datetime) -> FinaliseAnswer:
    """Compare what the sender believes with what is here; when both agree the delivery is *ready*, durable on return.

    A repeat after that is answered alike, whatever the delivery does meanwhile. Raises NotFound, Conflict (stopped).
    """
    with database.transaction() as conn:
        delivery = deliveries.find(conn, account_id, delivery_id, lock="update")
        found = _holdings(conn, delivery, claim.parts)
        agreed = (found.messages, found.row_hash) == (claim.messages, claim.row_hash)
        if agreed and delivery.state is DeliveryState.MESSAGE_FINALISED:
            conn.execute(
                "update delivery set expected = %s, finalised_at = %s where account_id = %s and id = %s",
                (found.messages, now, account_id, delivery_id),
            )
            delivery = deliveries.move(conn, delivery, DeliveryEvent.HANDED_OVER, now)
        elif agreed and delivery.finalised_at is None:
            raise Conflict(f"delivery {delivery_id} was stopped before it was complete", "prepare a new delivery")
        missing = () if agreed else found.missing
        return msgspec.structs.replace(found, agreed=agreed, missing=missing, state=int(delivery.state))


def _read(lines: Sequence[bytes]) -> _Read:
    rows: dict[int, _Row] = {}
    refused: list[RefusedRow] = []
    for number, line in enumerate(lines, 1):
        try:
            row = _row(line)
        except (UserError, AddressProblem) as exc:
            refused.append(_refusal(number, line, exc.cause if isinstance(exc, UserError) else f"bad address: {exc}"))
            continue
        if row.id in rows:
            refused.append(RefusedRow(id=row.id, why="its id is twice in this part; the first was taken"))
        else:
            rows[row.id] = row
    # Sorted: parts that hold the same ids then meet in the same order instead of deadlocking.
    return _Read(tuple(rows[id_] for id_ in sorted(rows)), tuple(refused))


def _row(line: bytes) -> _Row:
    if len(line) > MAX_ROW_BYTES:
        raise UserError(f"the row has {len(line)} bytes, more than {MAX_ROW_BYTES}")
    row = wire_rows.decode_row(line)
    if row.id >= 1 << 63:
        raise UserError("the id does not fit into 63 bits")
    address = EmailAddress.parse(row.to)
    canonical = wire_rows.encode_row(row)
    return _Row(row.id, str(address), address.domain, _data(canonical), wire_rows.row_hash(canonical))


def _data(canonical: bytes) -> str:
    """Return the values out of ``{"d":{…},"id":…,"to":"…"}``: within a string, quotes are escaped, so the last is the key."""
    return canonical[len(b'{"d":') : canonical.rindex(b',"id":')].decode()


class _OnlyId(msgspec.Struct):
    id: int = 0


def _refusal(number: int, line: bytes, why: str) -> RefusedRow:
    """Name the row by its id where the line still tells it, else by 0 and the number of the line."""
    try:
        id_ = msgspec.json.decode(line[: MAX_ROW_BYTES * 2], type=_OnlyId).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        id_ = 0
    id_ = id_ if 0 < id_ < 1 << 63 else 0
    return RefusedRow(id=id_, why=(why if id_ else f"line {number}: {why}")[:500])


def _store(
    conn: Connection,
    account_id: int,
    delivery_id: int,
    part: str,
    content_hash: str,
    lines: int,
    read: _Read,
    now: datetime,
) -> PartAnswer:
    delivery = deliveries.find(conn, account_id, delivery_id, lock="share")
    family = part.partition(".")[0]
    conn.execute("select pg_advisory_xact_lock(%s, %s)", (delivery_id % 2**31, int(family)))  # a part and its children
    first = _stored_answer(conn, account_id, delivery_id, part)
    if first is not None:
        if first[0] != content_hash:
            raise Conflict(
                f"part {part} of delivery {delivery_id} is here with other content", "number new content anew"
            )
        return msgspec.structs.replace(first[1], repeated=True)
    _refuse_split_beside_whole(conn, delivery, part)
    if delivery.state is not DeliveryState.MESSAGE_FINALISED:
        raise Conflict(
            f"delivery {delivery_id} is {delivery.state.label} and takes no more parts",
            "prepare a new delivery for more",
        )
    disk_budget.require(conn)
    here = _known(conn, delivery, read.rows)
    taken = [row for row in read.rows if row.id not in here]
    refused = [*read.refused, *(RefusedRow(id=id_, why="its id came in another part") for id_ in sorted(here))]
    _copy(conn, delivery, taken, now)
    answer = PartAnswer(
        part=part,
        rows=lines,
        accepted=len(taken),
        row_hash=str(wire_rows.sum_hashes(row.hash for row in taken)),
        refused=tuple(refused),
    )
    conn.execute(
        "insert into delivery_part (account_id, delivery_id, part, content_hash, rows, accepted, row_hash, refused, "
        "received_at) values (%s, %s, %s, %s, %s, %s, %s::numeric, %s, %s)",
        (
            *(account_id, delivery_id, part, content_hash, lines, len(taken), answer.row_hash),
            *(msgspec.json.encode(refused).decode().replace("\\u0000", "\\ufffd"), now),
        ),
    )
    return answer


def _known(conn: Connection, delivery: Delivery, rows: Sequence[_Row]) -> set[int]:
    found = conn.execute(
        "select id from message where account_id = %s and delivery_id = %s and id = any(%s)",
        (delivery.account_id, delivery.id, [row.id for row in rows]),
    )
    return {id_ for (id_,) in found}


def _copy(conn: Connection, delivery: Delivery, taken: Sequence[_Row], now: datetime) -> None:
    """Put rows into the ledger and count them: COPY takes all or none, so what was given is what is there."""
    start, end = f"{delivery.account_id}\t{delivery.id}\t", f"\t{now.isoformat()}\n"
    with (
        conn.cursor() as cursor,
        cursor.copy("copy message (account_id, delivery_id, id, email, domain, data, event_at) from stdin") as copy,
    ):
        copy.write(
            "".join([f"{start}{row.id}\t{_text(row.email)}\t{row.domain}\t{_text(row.data)}{end}" for row in taken])
        )
    domains = Counter(row.domain for row in taken)
    tally = [(delivery.id, domain, None, int(MessageState.PENDING), n) for domain, n in domains.items()]
    counters.write_batch(conn, delivery.account_id, [delivery.id], now, tally)


def _text(text: str) -> str:
    """Escape for COPY what holds no control character: an address has none, and JSON escapes its own."""
    return text.replace("\\", "\\\\") if "\\" in text else text


def _refuse_split_beside_whole(conn: Connection, delivery: Delivery, part: str) -> None:
    """Refuse n beside any n.…, at every level: 3.2 excludes 3 and 3.2.1 alike."""
    wholes = [part[:at] for at, char in enumerate(part) if char == "."]
    other = scalar(
        conn,
        "select part from delivery_part where account_id = %s and delivery_id = %s "
        "and (part = any(%s) or starts_with(part, %s)) limit 1",
        (delivery.account_id, delivery.id, wholes, part + "."),
    )
    if other is not None:
        raise Conflict(
            f"part {part} of delivery {delivery.id} cannot be taken beside part {other}",
            "ask for the part before splitting it",
        )


def _stored_answer(conn: Connection, account_id: int, delivery_id: int, part: str) -> tuple[str, PartAnswer] | None:
    row = conn.execute(
        "select content_hash, rows, accepted, row_hash::text, refused::text from delivery_part "
        "where account_id = %s and delivery_id = %s and part = %s",
        (account_id, delivery_id, part),
    ).fetchone()
    if row is None:
        return None
    refused = msgspec.json.decode(row[4], type=tuple[RefusedRow, ...])
    return row[0], PartAnswer(part=part, rows=row[1], accepted=row[2], row_hash=row[3], refused=refused)


def _holdings(conn: Connection, delivery: Delivery, parts: int) -> FinaliseAnswer:
    """Return what is here, ``agreed`` left open: rows counted in the ledger itself, hashes as summed at reception."""
    key = (delivery.account_id, delivery.id)
    messages = scalar(conn, "select count(*) from message where account_id = %s and delivery_id = %s", key)
    row = conn.execute(
        "select coalesce(sum(row_hash) %% 18446744073709551616, 0)::text, array_agg(distinct split_part(part, '.', 1)::int) "
        "from delivery_part where account_id = %s and delivery_id = %s",
        key,
    ).fetchone()
    assert row is not None
    present = set(row[1] or ())
    missing = [str(n) for n in range(1, min(parts, len(present) + MAX_MISSING_NAMED) + 1) if n not in present]
    return FinaliseAnswer(
        agreed=False,
        messages=messages,
        row_hash=row[0],
        parts=len(present),
        state=int(delivery.state),
        missing=tuple(missing[:MAX_MISSING_NAMED]),
    )
