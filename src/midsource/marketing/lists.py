"""Recipient lists: named sets of people, filled by imports and by hand, used as targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from midsource.model.errors import Conflict, NotFound, UserError
from midsource.store.database import Connection, scalar

MAX_NAME_CHARS = 100
SHOWN = 50
"""Lists of one page."""
NAMED = 1_000
"""Lists that a form offers."""


@dataclass(frozen=True, slots=True)
class RecipientList:
    """One list."""

    id: int
    name: str
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
        known = ", ".join(names(conn)[:20]) or "none"
        raise NotFound(f"there is no list {name!r}", f"lists: {known}; `recipients import FILE --list NAME` makes one")
    return int(found)


def names(conn: Connection) -> list[str]:
    """Return the names of the lists in order, at most NAMED."""
    rows = conn.execute("select name from recipient_list order by name limit %s", (NAMED,)).fetchall()
    return [row[0] for row in rows]


def page(conn: Connection, after: str = "") -> list[RecipientList]:
    """Return the lists after name ``after`` in order, at most SHOWN."""
    rows = conn.execute(
        "select id, name, created_at from recipient_list where name > %s order by name limit %s", (after, SHOWN)
    ).fetchall()
    return [RecipientList(*row) for row in rows]


def by_id(conn: Connection, number: int) -> RecipientList:
    """Return one list; raises NotFound."""
    row = conn.execute("select id, name, created_at from recipient_list where id = %s", (number,)).fetchone()
    if row is None:
        raise NotFound(f"there is no list {number}", "see the lists")
    return RecipientList(*row)


def add_members(conn: Connection, number: int, people: Sequence[int]) -> int:
    """Put people on a list; return how many were not on it."""
    return conn.execute(
        "insert into list_member (list_id, recipient_id) select %s, id from recipient where id = any(%s) on conflict do nothing",
        (number, list(people)),
    ).rowcount


def remove_member(conn: Connection, number: int, recipient_id: int) -> None:
    """Take somebody off a list; raises NotFound."""
    if not conn.execute(
        "delete from list_member where list_id = %s and recipient_id = %s", (number, recipient_id)
    ).rowcount:
        raise NotFound(f"recipient {recipient_id} is not on this list", "look at the list again")


def delete_list(conn: Connection, number: int) -> int:
    """Delete a list, not its people; return how many were on it. Raises NotFound, Conflict while a delivery needs it."""
    found = by_id(conn, number)
    waiting = scalar(
        conn,
        "select id from delivery where target_list = %s and state in (0, 15, 37) order by id limit 1",
        (found.name,),
    )
    if waiting is not None:
        raise Conflict(f"the list {found.name!r} is the target of delivery {waiting}", "stop or change that one first")
    members = conn.execute("delete from list_member where list_id = %s", (number,)).rowcount
    conn.execute("delete from recipient_list where id = %s", (number,))
    return members
