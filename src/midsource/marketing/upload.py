"""Upload one stored delivery part, and record what came of it, so that no row is lost or doubled.

Order of events for a part: its attempt is counted and committed → the call → the answer is checked against what was sent
(rows, hash) → one transaction marks it acknowledged, and rows that the mid refused by themselves become *ignored* log rows
with their reason, totals moved alongside. After a failure `policy.parts` decides; a part that the mid may hold is cut only
after the mid said that it does not. A part cut into children stays stored until the delivery is finished: if the mid turns
out to hold it after all, the children are dropped. Functions are safe to run in several threads, for different parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec

from midsource.model.delivery import DeliveryState
from midsource.model.errors import Conflict, Failed, RemoteRefused
from midsource.model.message import MessageState, Reason
from midsource.model.outcome import MAX_REPLY_TEXT
from midsource.policy.parts import child_name
from midsource.store.database import Connection, Database, scalar
from midsource.wire import rows as wire_rows
from midsource.wire.schema import PartAnswer, PartRow, RefusedRow

MAX_DEPTH = 8
"""Levels of children that a part's name may have on the link (wire/schema.py)."""


@dataclass(frozen=True, slots=True)
class StoredPart:
    """One row of the upload ledger, without its body. ``attempts``: calls made for it or for what it was cut from."""

    delivery_id: int
    name: str
    position: int
    first_id: int
    rows: int
    content_hash: str
    row_hash: int
    attempts: int

    @property
    def may_be_cut(self) -> bool:
        """Whether a child of it can still be named."""
        return self.rows > 1 and self.name.count(".") < MAX_DEPTH


_COLUMNS = "delivery_id, part, position, first_id, rows, content_hash, row_hash, attempts"


def ready_parts(conn: Connection, delivery_id: int, limit: int) -> list[StoredPart]:
    """Return stored parts whose pause is over, in order."""
    rows = conn.execute(
        f"select {_COLUMNS} from upload_part where delivery_id = %s and state = 'stored' "  # noqa: S608 - constant
        "and (not_before is null or not_before <= clock_timestamp()) order by position, first_id limit %s",
        (delivery_id, limit),
    ).fetchall()
    return [_stored(row) for row in rows]


def _stored(row: tuple[Any, ...]) -> StoredPart:
    delivery_id, name, position, first_id, rows, content_hash, row_hash, attempts = row[:8]
    return StoredPart(delivery_id, name, position, first_id, rows, content_hash, int(row_hash), attempts)


def begin(database: Database, part: StoredPart) -> tuple[int, bytes] | None:
    """Count an attempt, durably before the call; return its number and the body, None if the part is no longer to be sent.

    Raises Conflict when the delivery was stopped or prepared anew meanwhile: nothing more of it leaves.
    """
    with database.transaction() as conn:
        state = scalar(conn, "select state from delivery where id = %s for key share", (part.delivery_id,))
        if state != DeliveryState.MESSAGE_FINALISED:
            raise Conflict(f"delivery {part.delivery_id} is no longer handed over", "see `midsource delivery show`")
        row = conn.execute(
            "update upload_part set attempts = attempts + 1 where delivery_id = %s and part = %s and content_hash = %s "
            "and state = 'stored' returning attempts, body",
            (part.delivery_id, part.name, part.content_hash),
        ).fetchone()
    if row is None:
        return None
    if row[1] is None:
        raise Failed(
            f"part {part.name} of delivery {part.delivery_id} is no longer stored", "prepare the delivery again"
        )
    return row[0], bytes(row[1])


def acknowledge(database: Database, part: StoredPart, body: bytes, answer: PartAnswer) -> int:
    """Record that the mid took the part; return how many rows it refused. Raises Failed where it took something else."""
    refused, row_hash = _checked(part, body, answer)
    with database.transaction() as conn:
        _take(conn, part, refused, row_hash)
    return len(refused)


def _checked(part: StoredPart, body: bytes, answer: PartAnswer) -> tuple[tuple[RefusedRow, ...], int]:
    """Compare the mid's answer with what was sent; return the rows it refused and the hash of the others. Raises Failed."""
    lines = list(wire_rows.lines(wire_rows.decompress(body))) if answer.refused else []
    refused = _attributed(part, answer)
    expected = (
        part.row_hash if not refused else wire_rows.sum_hashes(_hashes_without(lines, {row.id for row in refused}))
    )
    if answer.accepted + len(refused) != part.rows or int(answer.row_hash) != expected:
        raise Failed(
            f"the mid holds other rows than were sent in part {part.name}: {answer.accepted} of {part.rows}, other hash",
            "nothing was started; see both logs, then create the delivery anew",
        )
    return refused, expected


def _take(conn: Connection, part: StoredPart, refused: Sequence[RefusedRow], row_hash: int) -> bool:
    """Mark a part acknowledged; False where it is already, or was prepared anew. Durable with the caller's transaction."""
    taken = conn.execute(
        "update upload_part set state = 'acknowledged', acknowledged_at = clock_timestamp(), not_before = null, "
        "refused = %s, row_hash = %s where delivery_id = %s and part = %s and content_hash = %s "
        "and state in ('stored', 'split')",
        (msgspec.json.encode(refused).decode(), row_hash, part.delivery_id, part.name, part.content_hash),
    ).rowcount
    if taken and refused:
        _ignore_refused(conn, part.delivery_id, refused)
    return bool(taken)


def put_off(database: Database, part: StoredPart, seconds: float) -> None:
    """Let a part wait before its next try."""
    with database.connection() as conn:
        conn.execute(
            "update upload_part set not_before = clock_timestamp() + %s where delivery_id = %s and part = %s",
            (timedelta(seconds=seconds), part.delivery_id, part.name),
        )


def cut(database: Database, part: StoredPart, body: bytes, rows: int, seconds: float, attempt: int) -> int:
    """Replace a part by children of at most ``rows`` rows, sent after ``seconds``; return how many there are."""
    lines = list(wire_rows.lines(wire_rows.decompress(body)))
    pieces = [lines[start : start + rows] for start in range(0, len(lines), rows)]
    with database.transaction() as conn:
        split = conn.execute(
            "update upload_part set state = 'split' where delivery_id = %s and part = %s and content_hash = %s "
            "and state = 'stored'",
            (part.delivery_id, part.name, part.content_hash),
        ).rowcount
        if not split:
            return 0
        for number, piece in enumerate(pieces, 1):
            raw = b"".join(piece)
            ids = [wire_rows.decode_row(line).id for line in (piece[0], piece[-1])]
            compressed = wire_rows.compress(raw)
            conn.execute(
                "insert into upload_part (delivery_id, part, position, first_id, last_id, rows, bytes, content_hash, row_hash, "
                "body, attempts, not_before) "
                "values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, clock_timestamp() + %s)",
                (
                    *(
                        part.delivery_id,
                        child_name(part.name, number),
                        part.position,
                        *ids,
                        len(piece),
                        len(compressed),
                    ),
                    *(wire_rows.content_hash(raw), wire_rows.sum_hashes(map(wire_rows.row_hash, piece)), compressed),
                    *(attempt, timedelta(seconds=seconds)),
                ),
            )
    return len(pieces)


def whole_again(database: Database, part: StoredPart, answer: PartAnswer) -> None:
    """Take back a cut: the mid holds the part itself, so its children are not sent.

    The part is acknowledged in the transaction that drops them: without either the delivery could never be handed over. Raises Failed
    where the mid holds something else; nothing is changed then.
    """
    with database.connection() as conn:
        row = conn.execute(
            f"select {_COLUMNS}, body from upload_part where delivery_id = %s and part = %s",  # noqa: S608 - constant
            (part.delivery_id, answer.part),
        ).fetchone()
    assert row is not None
    whole = _stored(row)
    refused, row_hash = _checked(whole, bytes(row[8]), answer)
    with database.transaction() as conn:
        if _take(conn, whole, refused, row_hash):
            conn.execute(
                "delete from upload_part where delivery_id = %s and starts_with(part, %s)",
                (part.delivery_id, whole.name + "."),
            )


def send_again(conn: Connection, delivery_id: int, names: Sequence[str]) -> int:
    """Let acknowledged parts that the mid does not hold any more be sent again; return how many."""
    return conn.execute(
        "update upload_part set state = 'stored', acknowledged_at = null, not_before = null "
        "where delivery_id = %s and part = any(%s) and state = 'acknowledged'",
        (delivery_id, list(names)),
    ).rowcount


def _attributed(part: StoredPart, answer: PartAnswer) -> tuple[RefusedRow, ...]:
    if any(row.id <= 0 for row in answer.refused):
        raise RemoteRefused(
            f"the mid could not read rows of part {part.name} ({answer.refused[0].why})",
            "upgrade the mid, then send the delivery again",
        )
    return answer.refused


def _hashes_without(lines: Sequence[bytes], refused: set[int]) -> Iterator[int]:
    decoder = msgspec.json.Decoder(PartRow)
    return (wire_rows.row_hash(line) for line in lines if decoder.decode(line).id not in refused)


def _ignore_refused(conn: Connection, delivery_id: int, refused: Sequence[RefusedRow]) -> None:
    """Turn refused rows into ignored ones with their reason, totals by what the statement changed."""
    conn.execute(
        """
        with refused as (
            select * from unnest(%(ids)s::bigint[], %(whys)s::text[]) as r (id, why)
        ), old as (
            select b.id, b.state, b.reason from broad_log b join refused r on r.id = b.id
            where b.delivery_id = %(delivery)s for update of b
        ), changed as (
            update broad_log b set state = %(ignored)s, reason = %(reason)s, reply = r.why, event_at = clock_timestamp()
            from refused r join old o on o.id = r.id
            where b.delivery_id = %(delivery)s and b.id = r.id and o.state = %(pending)s
            returning b.domain, o.state as old_state, o.reason as old_reason, b.state, b.reason
        ), moves as (
            select domain, old_state as state, old_reason as reason, -count(*) as n from changed group by 1, 2, 3
            union all
            select domain, state, reason, count(*) from changed group by 1, 2, 3
        )
        insert into broad_log_total as t (delivery_id, domain, state, reason, n)
        select %(delivery)s, domain, state, reason, sum(n) from moves group by 2, 3, 4
        on conflict (delivery_id, domain, state, reason) do update set n = t.n + excluded.n
        """,
        {
            "delivery": delivery_id,
            "ids": [row.id for row in refused],
            "whys": [row.why[:MAX_REPLY_TEXT].replace("\0", "") for row in refused],
            "ignored": int(MessageState.IGNORED),
            "pending": int(MessageState.PENDING),
            "reason": int(Reason.REFUSED_BY_MID),
        },
    )
