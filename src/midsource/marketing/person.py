"""One person changed by hand: the rules of an import (marketing/importing.py) for one row, with every problem at once.

The key by which imports find somebody goes along: a person without an external id is known by the address, so another
address makes another key. A key that somebody else has is refused. ``opted_out`` may be taken back here, unlike by an
import: an operator who does so has been asked by the person, and the audit says who did it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from midsource.marketing import recipients
from midsource.marketing.fields import PARSERS, FieldProblem, Value, own_fields
from midsource.marketing.importing import MAX_ADDRESS_CHARS, MAX_KEY_CHARS, MAX_NAME_CHARS
from midsource.model.address import AddressProblem, EmailAddress
from midsource.model.errors import ConfigError, Conflict
from midsource.store.database import Connection

OPTED_OUT = "opted_out"
_LIMITS = {
    "external_id": MAX_KEY_CHARS, "email": MAX_ADDRESS_CHARS,
    "first_name": MAX_NAME_CHARS, "last_name": MAX_NAME_CHARS, "language": MAX_NAME_CHARS,
}  # fmt: skip


def save(conn: Connection, given: Mapping[str, str], *, opted_out: bool, recipient_id: int | None = None) -> int:
    """Store what is known about a person (None: a new one) as ``given``; return the id.

    ``given`` are texts by name of column or own field, as a form has them; '' is nothing; own fields not given stay.
    Raises ConfigError whose problems begin with the field's name, Conflict for a key that somebody else has, NotFound.
    """
    problems: list[str] = []
    columns = {name: _text(name, given.get(name, ""), limit, problems) for name, limit in _LIMITS.items()}
    own = _own(conn, given, problems)
    columns |= _address(columns["email"], problems)
    if columns["email"] is None and columns["external_id"] is None:
        problems.append("email: neither an address nor an external id, so no import could find this person")
    if problems:
        raise ConfigError(problems, "correct the fields and try again")
    key = (
        f"id:{columns['external_id']}"
        if columns["external_id"]
        else f"mail:{columns['email_key'] or str(columns['email']).casefold()}"
    )
    row = {**columns, "key": key, OPTED_OUT: opted_out, "own": Jsonb(own)}
    try:
        with conn.transaction():
            found = conn.execute(_INSERT if recipient_id is None else _UPDATE, {**row, "id": recipient_id}).fetchone()
    except UniqueViolation as exc:
        raise Conflict(
            f"somebody else has {'this external id' if columns['external_id'] else 'this address and no external id'}",
            "change that person instead",
        ) from exc
    if found is None:
        recipients.by_id(conn, recipient_id or 0)
    assert found is not None
    return int(found[0])


_INSERT = """
insert into recipient (key, external_id, email, email_key, domain, address_problem, first_name, last_name, language, opted_out, fields)
values (%(key)s, %(external_id)s, %(email)s, %(email_key)s, %(domain)s, %(address_problem)s, %(first_name)s, %(last_name)s,
        %(language)s, %(opted_out)s, jsonb_strip_nulls(%(own)s))
returning id
"""
_UPDATE = """
update recipient set key = %(key)s, external_id = %(external_id)s, email = %(email)s, email_key = %(email_key)s,
       domain = %(domain)s, address_problem = %(address_problem)s, first_name = %(first_name)s, last_name = %(last_name)s,
       language = %(language)s, opted_out = %(opted_out)s, fields = jsonb_strip_nulls(fields || %(own)s), modified_at = now()
 where id = %(id)s returning id
"""


def _text(name: str, given: str, limit: int, problems: list[str]) -> str | None:
    text = given.strip()
    if len(text) > limit:
        problems.append(f"{name}: longer than {limit} characters")
    elif not text.isprintable():
        problems.append(f"{name}: a line break or control character, which could be meant for a header only")
    return text or None


def _own(conn: Connection, given: Mapping[str, str], problems: list[str]) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for name, kind in own_fields(conn).items():
        if name not in given:
            continue
        text = given[name].strip()
        try:
            values[name] = PARSERS[kind](text) if text else None
        except FieldProblem as exc:
            problems.append(f"{name}: {exc}")
    return values


def _address(email: str | None, problems: list[str]) -> dict[str, Any]:
    if email is None:
        return {"email_key": None, "domain": None, "address_problem": ""}
    try:
        address = EmailAddress.parse(email)
    except AddressProblem as exc:
        problems.append(f"email: {exc}")
        return {"email_key": None, "domain": None, "address_problem": str(exc)}
    return {"email_key": address.key, "domain": address.domain, "address_problem": ""}
