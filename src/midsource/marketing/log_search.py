"""One page of a delivery's log: from a number on, of one state and reason, or of everybody whose address begins so.

Log numbers are dense from 1 to *targeted*, so a page looks at ranges of them. What is frequent is found in the first;
what is rare by the block-range index (``broad_log_found``), which skips blocks that never had any. The totals say beforehand
whether there is anything. An address is found through the person who has it now: `explain` also tells of addresses that
people had. Nothing here reads without end: at most SCANNED_ROWS numbers or PEOPLE_A_PAGE people a page, and a page that
ends there says how far it looked and goes on from there.
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
WINDOW_ROWS = 100_000
"""Numbers the index is asked about at once: some milliseconds where there is nothing, 30 where every row is one."""
SCANNED_ROWS = 1_000_000
"""Numbers one page looks at: some 100 ms where every block had such rows once and none has them now."""
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
    return _of_kind(conn, delivery_id, targeted, wanted)


def _of_kind(conn: Connection, delivery_id: int, targeted: int, wanted: Wanted) -> LogPage:
    """Look near by number, then window by window through the index, until the page is full or enough was looked at."""
    seen, end = min(targeted, wanted.after + NEAR_ROWS), min(targeted, wanted.after + SCANNED_ROWS)
    rows = _range(conn, delivery_id, wanted, wanted.after, seen, PAGE_ROWS)
    while seen < end and len(rows) < PAGE_ROWS:
        upto = min(end, seen + WINDOW_ROWS)
        rows += _rare(conn, delivery_id, wanted, seen, upto, PAGE_ROWS - len(rows))
        seen = upto
    if len(rows) == PAGE_ROWS:
        seen = rows[-1].id
    return LogPage(rows, seen, more=seen < targeted)


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
    """Return the first rows in a state, as a page would find them: for what they have in common."""
    wanted, seen = Wanted(state=state), min(targeted, NEAR_ROWS)
    found = _range(conn, delivery_id, wanted, 0, seen, rows)
    while seen < min(targeted, SCANNED_ROWS) and len(found) < rows:
        upto = seen + WINDOW_ROWS
        found += _rare(conn, delivery_id, wanted, seen, upto, rows - len(found))
        seen = upto
    return found


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


def _rare(conn: Connection, delivery_id: int, wanted: Wanted, after: int, upto: int, limit: int) -> list[LogEntry]:
    """Return rows of a kind with numbers in (after, upto], by the index. Ordered outside: inside, the planner would walk the numbers instead."""
    conditions = "delivery_id = %(delivery)s and id > %(after)s and id <= %(upto)s"
    conditions += " and state = %(state)s" if wanted.state is not None else ""
    conditions += " and reason = %(reason)s" if wanted.reason is not None else ""
    with conn.cursor(row_factory=class_row(LogEntry)) as cursor:
        return cursor.execute(
            f"with hit as materialized (select id from broad_log where {conditions}) "  # noqa: S608 - constants
            f"select {COLUMNS} from broad_log where delivery_id = %(delivery)s "
            "and id = any(array(select id from hit order by id limit %(limit)s)) order by id",
            {
                "delivery": delivery_id, "after": after, "upto": upto, "state": wanted.state, "reason": wanted.reason,
                "limit": limit,
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
