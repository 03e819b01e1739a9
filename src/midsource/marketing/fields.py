"""What is known about a person: fixed columns and own fields, each with a type, and how text becomes a value of it.

Own fields are rows of ``recipient_field`` and keys of ``recipient.fields`` (JSON). Their values are checked at the door:
after an import, a field of type integer holds integers only, so that segments can compare without casting errors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias

from midsource.mail.filters import MAX_VALUE_CHARS
from midsource.marketing.expression import KEYWORDS
from midsource.model.errors import Conflict, UserError
from midsource.store.database import Connection

Value: TypeAlias = str | int | float | bool | None

MAX_FIELDS = 200
"""Own fields of one instance: a row of personalisation data stays far below the 64 kB of one field."""
MAX_INTEGER = 2**53 - 1
"""Integers travel as JSON numbers, which other readers hold as doubles: beyond this they would not come back."""
STRAYS = 0.02
"""Share of values that may miss a guessed type: a column of dates with one slip is one of dates, and the slip a reject."""
FIELD_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_INTEGER = re.compile(r"[+-]?[0-9]{1,16}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,30}(?:[.,][0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?")
_TRUE = frozenset({"true", "1", "yes", "y", "t", "vrai", "oui", "o", "sim", "s", "verdadeiro", "ja", "wahr"})
_FALSE = frozenset({"false", "0", "no", "n", "f", "faux", "non", "não", "nao", "falso", "nein", "falsch"})


class FieldType(StrEnum):
    """The five types of own fields."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"


FIXED: Mapping[str, FieldType] = MappingProxyType(
    {
        "email": FieldType.TEXT,
        "external_id": FieldType.TEXT,
        "first_name": FieldType.TEXT,
        "last_name": FieldType.TEXT,
        "language": FieldType.TEXT,
        "opted_out": FieldType.BOOLEAN,
    }
)
"""Columns of ``recipient`` that a file, a segment and a template may name."""
RESERVED = frozenset({*FIXED, "id", "key", "domain", "fields", "created_at", "modified_at"})


class FieldProblem(ValueError):
    """A text is not a value of the field's type; one clause says why."""


def _text(text: str) -> str:
    if len(text) > MAX_VALUE_CHARS:  # a template refuses to show more, and the whole message with it
        raise FieldProblem(f"longer than {MAX_VALUE_CHARS} characters")
    return text


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text) or abs(number := int(text)) > MAX_INTEGER:
        raise FieldProblem(f"expected a whole number, got {text[:40]!r}")
    return number


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text) or not math.isfinite(number := float(text.replace(",", "."))):
        raise FieldProblem(f"expected a number, got {text[:40]!r}")
    return number


def parse_boolean(text: str) -> bool:
    """Read yes or no in the four languages of our files; raises FieldProblem."""
    word = text.casefold()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise FieldProblem(f"expected yes or no, got {text[:40]!r}")


def _date(text: str) -> str:
    try:
        if len(text) != 10:
            raise ValueError(text)
        return date.fromisoformat(text).isoformat()
    except ValueError as exc:
        raise FieldProblem(f"expected a date as YYYY-MM-DD, got {text[:40]!r}") from exc


PARSERS: Mapping[FieldType, Callable[[str], Value]] = MappingProxyType(
    {
        FieldType.TEXT: _text,
        FieldType.INTEGER: _integer,
        FieldType.NUMBER: _number,
        FieldType.BOOLEAN: parse_boolean,
        FieldType.DATE: _date,
    }
)
"""Text, stripped and not empty, to the JSON value; dates stay ISO text. Each raises FieldProblem."""


def guess_type(texts: Iterable[str]) -> FieldType:
    """Return the narrowest type that nearly all non-empty ``texts`` have; text when there is none, or a leading zero or plus.

    Postal codes and telephone numbers are digits that must come back as written, hence the leading-zero rule. ``0`` and
    ``1`` alone are integers: whether they mean no and yes is not in the file.
    """
    seen = [text for text in texts if text]
    if not seen or any(text[0] == "+" or (len(text) > 1 and text[0] == "0" and text[1].isdigit()) for text in seen):
        return FieldType.TEXT
    for kind in (FieldType.INTEGER, FieldType.NUMBER, FieldType.DATE, FieldType.BOOLEAN):
        if sum(_fits(PARSERS[kind], text) for text in seen) >= len(seen) * (1 - STRAYS):
            return kind
    return FieldType.TEXT


def _fits(parse: Callable[[str], Value], text: str) -> bool:
    try:
        parse(text)
    except FieldProblem:
        return False
    return True


def own_fields(conn: Connection) -> dict[str, FieldType]:
    """Return the own fields of this instance with their types, in order of name."""
    rows = conn.execute("select name, type from recipient_field order by name").fetchall()
    return {name: FieldType(kind) for name, kind in rows}


def all_fields(conn: Connection) -> dict[str, FieldType]:
    """Return every field that a segment or a template may name."""
    return {**FIXED, **own_fields(conn)}


def add_field(conn: Connection, name: str, kind: str) -> bool:
    """Add an own field; False when it exists with this type. Raises UserError, or Conflict when its type differs."""
    if not FIELD_NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot be a field's name", "use a to z, 0 to 9 and _, a letter first, at most 63")
    if name in RESERVED:
        raise UserError(f"{name!r} is a column every recipient has", "choose another name")
    if name in KEYWORDS:
        raise UserError(f"{name!r} is a word of the segment language", "choose another name")
    try:
        wanted = FieldType(kind)
    except ValueError as exc:
        raise UserError(f"{kind!r} is no type of field", f"use one of {', '.join(FieldType)}") from exc
    known = own_fields(conn)
    if name in known:
        if known[name] is not wanted:
            raise Conflict(f"field {name!r} exists and is of type {known[name]}", "choose another name")
        return False
    if len(known) >= MAX_FIELDS:
        raise UserError(f"this instance has {len(known)} own fields, which is the limit", "use fewer columns")
    added = conn.execute(
        "insert into recipient_field (name, type) values (%s, %s) on conflict do nothing", (name, wanted.value)
    ).rowcount
    # Another import added it meanwhile, perhaps with another type: values of two types in one field break its segments.
    return True if added else add_field(conn, name, kind)
