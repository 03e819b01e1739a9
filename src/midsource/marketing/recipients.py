"""People: listed by pages, found by address, erased.

Erasing removes the person and takes the address out of every delivery log; the log rows stay, nameless, so that the
figures of past deliveries still add up. An address whose owner had opted out goes to the denylist: a later import of an
old file must not write to somebody who was erased for having enough. A delivery that is being prepared or handed over
holds the address in its stored parts: erasing is refused until it has been handed over or stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from psycopg import sql
from psycopg.rows import class_row

from midsource.marketing.lists import list_id
from midsource.model.address import AddressProblem, EmailAddress
from midsource.model.delivery import DeliveryState
from midsource.model.errors import Conflict, NotFound
from midsource.store.database import Connection, scalar

PAGE_ROWS = 1_000
SAME_ADDRESS = 100
"""People of one address shown or erased at once; a shared mailbox has a handful."""
LAST_DELIVERIES = 10
_PREPARING = (DeliveryState.TARGET_READY, DeliveryState.PERSONALISATION, DeliveryState.MESSAGE_FINALISED)


@dataclass(frozen=True, slots=True)
class Recipient:
    """One person."""

    id: int
    external_id: str | None
    email: str | None
    address_problem: str
    first_name: str | None
    last_name: str | None
    language: str | None
    opted_out: bool
    fields: dict[str, Any]
    created_at: datetime
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class RecipientPage:
    """Some people in order of id, and how many there are in all."""

    total: int
    recipients: list[Recipient]


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure did."""

    people: int
    log_rows: int


_COLUMNS = sql.SQL(", ").join(sql.SQL("r.{}").format(sql.Identifier(field.name)) for field in fields(Recipient))


def page(conn: Connection, *, list_name: str = "", after: int = 0, limit: int = 50) -> RecipientPage:
    """Return people after id ``after``, of a list if one is named. Raises NotFound for an unknown list."""
    params = {"list": list_id(conn, list_name) if list_name else None, "after": after, "limit": min(limit, PAGE_ROWS)}
    source = (
        "recipient r join list_member m on m.recipient_id = r.id and m.list_id = %(list)s"
        if list_name
        else "recipient r"
    )
    statement = sql.SQL("select {} from {} where r.id > %(after)s order by r.id limit %(limit)s")
    with conn.cursor(row_factory=class_row(Recipient)) as cursor:
        found = cursor.execute(statement.format(_COLUMNS, sql.SQL(source)), params).fetchall()
    total = scalar(conn, sql.SQL("select count(*) from {}").format(sql.SQL(source)), params)
    return RecipientPage(total, found)


def by_email(conn: Connection, email: str) -> list[Recipient]:
    """Return everybody who has this address, however it is spelt; raises NotFound."""
    where, params = _address(email)
    statement = sql.SQL("select {} from recipient r where {} order by r.id limit {}")
    with conn.cursor(row_factory=class_row(Recipient)) as cursor:
        found = cursor.execute(statement.format(_COLUMNS, where, sql.Literal(SAME_ADDRESS)), params).fetchall()
    if not found:
        raise NotFound(f"nobody has the address {email!r}", "see `midsource recipients list`")
    return found


def by_id(conn: Connection, recipient_id: int) -> Recipient:
    """Return one person; raises NotFound."""
    with conn.cursor(row_factory=class_row(Recipient)) as cursor:
        found = cursor.execute(
            sql.SQL("select {} from recipient r where r.id = %s").format(_COLUMNS), (recipient_id,)
        ).fetchone()
    if found is None:
        raise NotFound(f"there is no recipient {recipient_id}", "perhaps erased; search by address")
    return found


def as_dict(person: Recipient) -> dict[str, Any]:
    """Return one flat mapping: columns, then own fields (an own field never has a column's name)."""
    flat = {field.name: getattr(person, field.name) for field in fields(Recipient) if field.name != "fields"}
    return {**flat, **person.fields}


def lists_of(conn: Connection, recipient_id: int) -> list[str]:
    """Return the lists a person is on."""
    rows = conn.execute(
        "select l.name from list_member m join recipient_list l on l.id = m.list_id where m.recipient_id = %s order by l.name",
        (recipient_id,),
    ).fetchall()
    return [row[0] for row in rows]


def last_deliveries(conn: Connection, recipient_id: int) -> list[tuple[int, int, int]]:
    """Return (delivery id, log id, message state) of the latest deliveries that had this person in their target."""
    rows = conn.execute(
        "select delivery_id, id, state from broad_log where recipient_id = %s order by delivery_id desc limit %s",
        (recipient_id, LAST_DELIVERIES),
    ).fetchall()
    return [(row[0], row[1], row[2]) for row in rows]


def erase(conn: Connection, email: str) -> Erased:
    """Erase everybody who has this address. Raises NotFound, or Conflict while a delivery to them is being prepared."""
    return erase_people(conn, [person.id for person in by_email(conn, email)], shown=repr(email))


def erase_people(conn: Connection, people: Sequence[int], *, shown: str = "the person") -> Erased:
    """Erase these people, as ``erase`` does. Raises Conflict; ``shown`` names them in its sentence."""
    people = list(people)
    preparing = conn.execute(
        "select distinct l.delivery_id from broad_log l join delivery d on d.id = l.delivery_id "
        "where l.recipient_id = any(%s) and d.state = any(%s) limit 5",
        (people, [int(state) for state in _PREPARING]),
    ).fetchall()
    if preparing:
        listed = ", ".join(str(row[0]) for row in preparing)
        raise Conflict(
            f"{shown} is in the stored parts of a delivery that is not handed over yet ({listed})",
            "let it be handed over, or stop it, and erase again",
        )
    conn.execute(
        "insert into denylist (entry, note) select distinct email_key, 'erased after opting out' from recipient "
        "where id = any(%s) and opted_out and email_key is not null on conflict do nothing",
        (people,),
    )
    log_rows = conn.execute(
        "update broad_log set email = '', reply = '', recipient_id = 0 where recipient_id = any(%s)", (people,)
    ).rowcount
    conn.execute("delete from list_member where recipient_id = any(%s)", (people,))
    gone = conn.execute("delete from recipient where id = any(%s)", (people,)).rowcount
    return Erased(gone, log_rows)


def _address(email: str) -> tuple[sql.Composable, dict[str, str]]:
    """Return the condition that finds an address: by key (indexed) or, when it is none, as it was written."""
    try:
        return sql.SQL("r.email_key = %(key)s"), {"key": EmailAddress.parse(email.strip()).key}
    except AddressProblem:
        return sql.SQL("r.email_key is null and lower(r.email) = lower(%(key)s)"), {"key": email.strip()}
