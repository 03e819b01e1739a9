"""The delivery log read in order: pages by log id, each a query of its own, so that a million rows hold no snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from midsource.marketing import dropped
from midsource.model.message import MessageState, Reason
from midsource.store.database import Database
from midsource.wire.identity import DERIVED, ID_BYTES

PAGE_ROWS = 2_000
KNOWN_REASONS = frozenset(int(reason) for reason in Reason)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One person's row of a delivery's log."""

    id: int
    recipient_id: int
    email: str
    domain: str
    state: int
    reason: int
    attempts: int
    revision: int
    event_at: datetime
    reply: str
    message_id: str


_MESSAGE_ID = f"""
case when message_id = '{DERIVED}' then (
    select '<' || encode(substr(sha256(decode(d.message_key, 'hex') || int8send(broad_log.id)), 1, {ID_BYTES}), 'hex')
           || '@' || substring(d.from_address from '[^@]*$') || '>'
    from delivery d where d.id = broad_log.delivery_id and d.message_key <> '')
else message_id end"""  # noqa: S608 - constants
"""`wire.identity.message_id` in SQL, so that whoever reads the log, in whatever order, reads IDs."""
COLUMNS = (
    "id, recipient_id, email, domain, state, reason, attempts, revision, event_at, reply, "
    f"coalesce({_MESSAGE_ID}, '') as message_id"
)


def entries(
    database: Database,
    delivery_id: int,
    *,
    state: MessageState | None = None,
    reason: int | None = None,
    after: int = 0,
) -> Iterator[LogEntry]:
    """Yield the rows of a delivery after log id ``after``, of one state and reason if they are given.

    Raises Conflict where `cleanup` has dropped the log.
    """
    while True:
        with database.connection() as conn, conn.cursor(row_factory=class_row(LogEntry)) as cursor:
            page = cursor.execute(
                f"select {COLUMNS} from broad_log where delivery_id = %(delivery)s and id > %(after)s "  # noqa: S608 - constant
                "and (%(state)s::smallint is null or state = %(state)s) "
                "and (%(reason)s::smallint is null or reason = %(reason)s) order by id limit %(limit)s",
                {"delivery": delivery_id, "after": after, "state": state, "reason": reason, "limit": PAGE_ROWS},
            ).fetchall()
            if not page and not after:
                dropped.refuse(conn, delivery_id)
        yield from page
        if len(page) < PAGE_ROWS:
            return
        after = page[-1].id


def as_dict(entry: LogEntry) -> dict[str, Any]:
    """Return the row as ``delivery logs --json`` prints it. ``status`` is the field's word; ours stand beside it."""
    state = MessageState(entry.state)
    return {
        "id": entry.id,
        "email": entry.email,
        "status": MessageState(state.status).label,
        "state": state.label,
        "reason": reason_label(entry.reason),
        "reply": entry.reply,
        "attempts": entry.attempts,
        "uncertain": state is MessageState.UNCERTAIN,
        "message_id": entry.message_id,
        "event_at": entry.event_at.isoformat(),
    }


def reason_label(number: int) -> str:
    """Return the words of a reason; a newer mid may give one that this version has no word for."""
    return Reason(number).label if number in KNOWN_REASONS else f"reason {number}"
