"""One page of a delivery's log: by number from a number on, of one state if asked, or of one address.

Log numbers are dense from 1 to *targeted*, so a page looks at a range of them and never at the whole delivery: at most
SCANNED_ROWS a page, in windows; where nothing more was found in it, the page says how far it looked and goes on from
there. An address is found through the person who has it (indexed), not by reading the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from midsource.marketing import recipients
from midsource.model.errors import NotFound
from midsource.model.message import MessageState, Reason
from midsource.store.database import Connection

PAGE_ROWS = 50
WINDOW_ROWS = 20_000
SCANNED_ROWS = 100_000
"""Rows one page looks through for a rare state: about 30 ms."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for: rows after number ``after``; one state (None: all), or one address ('': all)."""

    after: int = 0
    state: MessageState | None = None
    email: str = ""


@dataclass(frozen=True, slots=True)
class LogRow:
    """One person's row."""

    id: int
    email: str
    state: MessageState
    reason: Reason
    attempts: int
    event_at: datetime
    reply: str


@dataclass(frozen=True, slots=True)
class LogPage:
    """Rows in order of number; ``seen`` is the last number looked at, ``more`` whether there are numbers after it."""

    rows: Sequence[LogRow]
    seen: int
    more: bool


KNOWN_REASONS = frozenset(int(reason) for reason in Reason)
_COLUMNS = "id, email, state, reason, attempts, event_at, reply"


def page(conn: Connection, delivery_id: int, targeted: int, wanted: Wanted) -> LogPage:
    """Return the page asked for; ``targeted`` is the highest number of this delivery."""
    if wanted.email:
        return LogPage(_of_address(conn, delivery_id, wanted.email), targeted, more=False)
    rows: list[LogRow] = []
    seen = wanted.after
    end = min(targeted, wanted.after + SCANNED_ROWS)
    while seen < end and len(rows) < PAGE_ROWS:
        window = min(end, seen + WINDOW_ROWS)
        rows += _window(conn, delivery_id, seen, window, wanted.state, PAGE_ROWS - len(rows))
        seen = rows[-1].id if len(rows) == PAGE_ROWS else window
    return LogPage(rows, seen, more=seen < targeted)


def _window(
    conn: Connection, delivery_id: int, after: int, upto: int, state: MessageState | None, limit: int
) -> list[LogRow]:
    found = conn.execute(
        f"select {_COLUMNS} from broad_log where delivery_id = %(delivery)s and id > %(after)s and id <= %(upto)s "  # noqa: S608 - constant
        "and (%(state)s::smallint is null or state = %(state)s) order by id limit %(limit)s",
        {"delivery": delivery_id, "after": after, "upto": upto, "state": state, "limit": limit},
    ).fetchall()
    return [_log_row(*row) for row in found]


def _of_address(conn: Connection, delivery_id: int, email: str) -> list[LogRow]:
    try:
        people = [person.id for person in recipients.by_email(conn, email)]
    except NotFound:
        return []
    found = conn.execute(
        f"select {_COLUMNS} from broad_log where delivery_id = %s and recipient_id = any(%s) order by id limit %s",  # noqa: S608 - constant
        (delivery_id, people, PAGE_ROWS),
    ).fetchall()
    return [_log_row(*row) for row in found]


def _log_row(number: int, email: str, state: int, reason: int, attempts: int, event_at: datetime, reply: str) -> LogRow:
    return LogRow(number, email, MessageState(state), reason_of(reason), attempts, event_at, reply)


def reason_of(number: int) -> Reason:
    """Return the reason; a newer mid may give one that this version does not know, which is then none of ours."""
    return Reason(number) if number in KNOWN_REASONS else Reason.NONE
