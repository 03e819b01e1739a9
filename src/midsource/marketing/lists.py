"""Recipient lists: named sets of people, filled by imports, used as targets."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from midsource.model.errors import NotFound, UserError
from midsource.store.database import Connection, scalar

MAX_NAME_CHARS = 100
SHOWN = 1_000
"""Lists shown at once."""


@dataclass(frozen=True, slots=True)
class RecipientList:
    """One list and how many people are on it."""

    name: str
    members: int
    created_at: datetime


def ensure_list(conn: Connection, name: str) -> int:
    """Return the id of list ``name``, made if it does not exist; raises UserError for a name that cannot be one."""
    if not name.strip() or len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise UserError(f"{name[:120]!r} cannot be a list's name", f"use 1 to {MAX_NAME_CHARS} printable characters")
    conn.execute("insert into recipient_list (name) values (%s) on conflict do nothing", (name,))
    return list_id(conn, name)


def list_id(conn: Connection, name: str) -> int:
    """Return the id of list ``name``; raises NotFound naming what exists."""
    found = scalar(conn, "select id from recipient_list where name = %s", (name,))
    if found is None:
        known = ", ".join(entry.name for entry in all_lists(conn)[:20]) or "none"
        raise NotFound(f"there is no list {name!r}", f"lists: {known}; `recipients import FILE --list NAME` makes one")
    return int(found)


def all_lists(conn: Connection) -> list[RecipientList]:
    """Return the lists by name, at most SHOWN."""
    rows = conn.execute(
        """
        select l.name, count(m.recipient_id), l.created_at
        from recipient_list l left join list_member m on m.list_id = l.id
        group by l.id order by l.name limit %s
        """,
        (SHOWN,),
    ).fetchall()
    return [RecipientList(*row) for row in rows]
