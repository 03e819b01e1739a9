"""Who did what, to what, when: one row for each change that somebody asked for, in the transaction of the change.

So there is no change without its row and no row without its change. Rows are never updated. A row names people who
operate, never people who receive: subjects are ids and names of things, ``detail`` holds old and new values that are no
secrets. Bounds: MAX_DETAIL_BYTES a row, MAX_LIMIT rows a page, SCAN_ROWS rows looked at for a page with a filter that has
no index (a page then may be short or empty and say where to go on).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from midsource.model.errors import UserError
from midsource.security.roles import Visitor
from midsource.store.database import Connection, scalar

MAX_DETAIL_BYTES = 4_000
"""A page of 50 rows stays below 200 kB; what is longer is no detail."""
MAX_TEXT = 500
"""Characters of one value of ``detail``."""
MAX_SUBJECT = 200
MAX_LIMIT = 500
SCAN_ROWS = 100_000
"""Read backwards by the primary key in some 30 ms."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row."""

    id: int
    at: datetime
    who: str
    via: str
    verb: str
    subject: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Some rows, the newest first. ``before`` continues: None where nothing older can follow."""

    entries: list[Entry]
    before: int | None


def record(conn: Connection, visitor: Visitor, verb: str, subject: object = "", **detail: object) -> None:
    """Write that ``visitor`` did ``verb`` (``delivery.send``) to ``subject`` (a delivery's id, an option's name).

    Call it inside the transaction of the change. ``detail`` takes what JSON and msgspec know; longer texts are cut.
    """
    conn.execute(
        "insert into audit (who, via, verb, subject, detail) values (%s, %s, %s, %s, %s)",
        (visitor.name, visitor.via, verb, str(subject)[:MAX_SUBJECT], Jsonb(_kept(detail), dumps=_dumps)),
    )


def page(
    conn: Connection,
    *,
    who: str = "",
    verb: str = "",
    subject: str = "",
    before: int | None = None,
    limit: int = 50,
) -> AuditPage:
    """Return rows older than ``before``; '' does not filter. ``verb`` may be a family (``delivery``) or one (``delivery.send``).

    Raises UserError for a ``limit`` out of 1..MAX_LIMIT.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise UserError(f"{limit} rows are not what a page holds", f"ask for 1 to {MAX_LIMIT}")
    newest = (scalar(conn, "select max(id) from audit") or 0) + 1
    top = newest if before is None else min(before, newest)
    floor = 0 if subject or not (who or verb) else max(0, top - SCAN_ROWS)
    rows = conn.execute(
        "select id, at, who, via, verb, subject, detail from audit where id < %(top)s and id >= %(floor)s "
        "and (%(subject)s = '' or subject = %(subject)s) and (%(who)s = '' or who = %(who)s) "
        "and (%(verb)s = '' or verb = %(verb)s or starts_with(verb, %(verb)s || '.')) order by id desc limit %(limit)s",
        {"top": top, "floor": floor, "subject": subject, "who": who, "verb": verb, "limit": limit + 1},
        prepare=False,
    ).fetchall()
    entries = [Entry(*row) for row in rows[:limit]]
    if len(rows) > limit:
        return AuditPage(entries, entries[-1].id)
    return AuditPage(entries, floor if floor > 1 else None)


def _kept(detail: dict[str, object]) -> object:
    """Return ``detail`` as JSON knows it, cut where it is too long to be one."""
    plain = {name: _cut(value) for name, value in detail.items()}
    if len(_dumps(plain)) <= MAX_DETAIL_BYTES:
        return plain
    return {"cut": msgspec.json.encode(plain).decode()[: MAX_DETAIL_BYTES // 4]}


def _cut(value: object) -> object:
    return value[:MAX_TEXT] if isinstance(value, str) else value


def _dumps(value: object) -> bytes:
    return msgspec.json.encode(value)
