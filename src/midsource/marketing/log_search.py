"""One page of a delivery's log: from a number on, of one state and reason, or of everybody whose address begins so.

Log numbers are dense from 1 to *targeted*, so a page looks at ranges of them. Of a state that is frequent the first
range has enough; what is rare is found by the block-range index (``broad_log_found``), which skips the blocks that have
none. The totals say beforehand how many there are. An address is found through the person who has it now: `explain` also
tells of addresses that people had. Nothing here reads a whole log: at most SCANNED_ROWS rows or PEOPLE_A_PAGE people a
page, and a page that ends there says how far it looked and goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import class_row

from midsource.marketing.delivery_log import COLUMNS, LogEntry
from midsource.model.address import AddressProblem, EmailAddress
from midsource.model.message import MessageState
from midsource.store.database import Connection, scalar

PAGE_ROWS = 50
NEAR_ROWS = 20_000
"""Looked through by number first: 5 ms, and enough for anything that one in four hundred has."""
SCANNED_ROWS = 200_000
"""Rows one page looks through by number: some 60 ms."""
RARE_ROWS = 100_000
"""Up to so many of a kind the index is asked for all that follow: some 60 ms when they lie in every block."""
PEOPLE_AT_ONCE = 1_000
PEOPLE_A_PAGE = 8_000
"""People whose address fits and who may not be in the delivery: some 10 us each."""
MAX_ADDRESS = 320
"""Characters of an address that are looked for; no address is longer."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for. ``after``: the last log number of the page before or, with ``address``, the last person's id."""

    after: int = 0
    state: MessageState | None = None
    reason: int | None = None
    address: str = ""


@dataclass(frozen=True, slots=True)
class LogPage:
    """Rows in order. ``seen``: what the next page goes on after; ``more``: whether there is one."""

    rows: Sequence[LogEntry]
    seen: int
    more: bool


def page(conn: Connection, delivery_id: int, targeted: int, wanted: Wanted) -> LogPage:
    """Return the page asked for; ``targeted`` is the highest number of this delivery."""
    if wanted.address:
        return _by_address(conn, delivery_id, wanted)
    if wanted.state is None and wanted.reason is None:
        rows = _range(conn, delivery_id, wanted, wanted.after, targeted, PAGE_ROWS)
        seen = rows[-1].id if len(rows) == PAGE_ROWS else max(targeted, wanted.after)
        return LogPage(rows, seen, more=seen < targeted)
    there = count(conn, delivery_id, wanted.state, wanted.reason)
    if there <= 0:
        return LogPage([], targeted, more=False)
    found = _near(conn, delivery_id, targeted, wanted, NEAR_ROWS if there <= RARE_ROWS else SCANNED_ROWS)
    if there > RARE_ROWS or not found.more or len(found.rows) == PAGE_ROWS:
        return found
    rows = [*found.rows, *_rare(conn, delivery_id, wanted, found.seen, PAGE_ROWS + 1 - len(found.rows))]
    more = len(rows) > PAGE_ROWS
    rows = rows[:PAGE_ROWS]
    return LogPage(rows, rows[-1].id if more else targeted, more=more)


def count(conn: Connection, delivery_id: int, state: MessageState | None, reason: int | None) -> int:
    """Return how many rows are in that state and have that reason, by the totals."""
    found = scalar(
        conn,
        "select coalesce(sum(n), 0)::bigint from broad_log_total where delivery_id = %(delivery)s "
        "and (%(state)s::smallint is null or state = %(state)s) and (%(reason)s::smallint is null or reason = %(reason)s)",
        {"delivery": delivery_id, "state": state, "reason": reason},
    )
    return int(found)


def sample(conn: Connection, delivery_id: int, targeted: int, state: MessageState, rows: int) -> list[LogEntry]:
    """Return some of the rows in a state, as a page would find them: for what they have in common."""
    if count(conn, delivery_id, state, None) > RARE_ROWS:
        return _range(conn, delivery_id, Wanted(state=state), 0, min(targeted, SCANNED_ROWS), rows)
    return _rare(conn, delivery_id, Wanted(state=state), 0, rows)


def _near(conn: Connection, delivery_id: int, targeted: int, wanted: Wanted, scanned: int) -> LogPage:
    rows: list[LogEntry] = []
    seen, end = wanted.after, min(targeted, wanted.after + scanned)
    while seen < end and len(rows) < PAGE_ROWS:
        upto = min(end, seen + NEAR_ROWS)
        rows += _range(conn, delivery_id, wanted, seen, upto, PAGE_ROWS - len(rows))
        seen = rows[-1].id if len(rows) == PAGE_ROWS else upto
    return LogPage(rows, seen, more=seen < targeted)


_FILTER = "(%(state)s::smallint is null or state = %(state)s) and (%(reason)s::smallint is null or reason = %(reason)s)"


def _range(conn: Connection, delivery_id: int, wanted: Wanted, after: int, upto: int, limit: int) -> list[LogEntry]:
    """Return rows with numbers in (after, upto], by number."""
    with conn.cursor(row_factory=class_row(LogEntry)) as cursor:
        return cursor.execute(
            f"select {COLUMNS} from broad_log where delivery_id = %(delivery)s and id > %(after)s and id <= %(upto)s "  # noqa: S608 - constant
            f"and {_FILTER} order by id limit %(limit)s",
            {
                "delivery": delivery_id, "after": after, "upto": upto, "state": wanted.state, "reason": wanted.reason,
                "limit": limit,
            },
            prepare=False,
        ).fetchall()  # fmt: skip


def _rare(conn: Connection, delivery_id: int, wanted: Wanted, after: int, limit: int) -> list[LogEntry]:
    """Return the next rows of a kind that is rare. Ordered outside: inside, the planner would walk the numbers instead."""
    conditions = "delivery_id = %(delivery)s and id > %(after)s"
    conditions += " and state = %(state)s" if wanted.state is not None else ""
    conditions += " and reason = %(reason)s" if wanted.reason is not None else ""
    with conn.cursor(row_factory=class_row(LogEntry)) as cursor:
        return cursor.execute(
            f"with hit as materialized (select id from broad_log where {conditions}) "  # noqa: S608 - constants
            f"select {COLUMNS} from broad_log where delivery_id = %(delivery)s "
            "and id = any(array(select id from hit order by id limit %(limit)s)) order by id",
            {
                "delivery": delivery_id, "after": after, "state": wanted.state, "reason": wanted.reason, "limit": limit,
            },
            prepare=False,
        ).fetchall()  # fmt: skip


_PEOPLE = """
    select id, email_key from recipient
     where email_key ~>=~ %(first)s and email_key ~<~ %(beyond)s
       and (email_key ~>~ %(key)s or (email_key = %(key)s and id > %(after)s))
     order by email_key using ~<~, id limit %(people)s
"""


def _by_address(conn: Connection, delivery_id: int, wanted: Wanted) -> LogPage:
    """Look through the people whose address begins so, in order of address, some at a time."""
    first = beginning(wanted.address)
    key = scalar(conn, "select email_key from recipient where id = %s", (wanted.after,)) if wanted.after else ""
    after, rows, looked = wanted.after, list[LogEntry](), 0
    while looked < PEOPLE_A_PAGE:
        people = conn.execute(
            _PEOPLE,
            {
                "first": first,
                "beyond": f"{first}\U0010ffff",
                "key": key or "",
                "after": after,
                "people": PEOPLE_AT_ONCE,
            },
            prepare=False,
        ).fetchall()
        theirs = _rows_of(conn, delivery_id, [person for person, _ in people], wanted)
        for person, person_key in people:
            if len(rows) >= PAGE_ROWS:
                return LogPage(rows, after, more=True)
            rows += theirs.get(person, [])
            after, key = person, person_key
        looked += len(people)
        if len(people) < PEOPLE_AT_ONCE:
            return LogPage(rows, after, more=False)
    return LogPage(rows, after, more=True)


def _rows_of(conn: Connection, delivery_id: int, people: list[int], wanted: Wanted) -> dict[int, list[LogEntry]]:
    with conn.cursor(row_factory=class_row(LogEntry)) as cursor:
        found = cursor.execute(
            f"select {COLUMNS} from broad_log where delivery_id = %(delivery)s and recipient_id = any(%(people)s) "  # noqa: S608 - constant
            f"and {_FILTER} order by id",
            {"delivery": delivery_id, "people": people, "state": wanted.state, "reason": wanted.reason},
            prepare=False,
        ).fetchall()
    rows: dict[int, list[LogEntry]] = {}
    for row in found:
        rows.setdefault(row.recipient_id, []).append(row)
    return rows


def beginning(text: str) -> str:
    """Return what the keys of the addresses meant begin with: the key of a whole address, else what was typed, folded."""
    given = text.strip()[:MAX_ADDRESS]
    try:
        return EmailAddress.parse(given).key
    except AddressProblem:
        return given.casefold()
