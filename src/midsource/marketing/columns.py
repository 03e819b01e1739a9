"""Which column of a file is which field: the header matched with what this instance knows, and the offer for the rest."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from midsource.marketing.csvfile import Record, Reject
from midsource.marketing.expression import KEYWORDS
from midsource.marketing.fields import FIELD_NAME, FIXED, RESERVED, FieldType, add_field, guess_type, own_fields
from midsource.model.errors import UserError
from midsource.store.database import Connection

SAMPLE_RECORDS = 1_000
"""Records looked at to give a new field its type."""

_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "e_mail": "email", "mail": "email", "email_address": "email", "address_email": "email", "courriel": "email",
        "firstname": "first_name", "prenom": "first_name", "lastname": "last_name", "surname": "last_name",
        "lang": "language", "langue": "language", "id": "external_id", "externalid": "external_id",
        "opt_out": "opted_out", "optout": "opted_out", "unsubscribed": "opted_out",
    }
)  # fmt: skip
"""Other names that files give to the fixed columns, after ``field_name``."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where each field stands in a record. ``own``: (name, position, type); ``created`` fields are new."""

    fixed: Mapping[str, int]
    own: tuple[tuple[str, int, FieldType], ...]
    created: Mapping[str, FieldType]
    ignored: tuple[str, ...]

    def position(self, name: str) -> int | None:
        """Return the column of fixed field ``name``, or None where the file has none."""
        return self.fixed.get(name)


def field_name(header: str) -> str:
    """Return the field a column's title names: lower case, no accents, ``_`` for everything between words."""
    plain = unicodedata.normalize("NFKD", header.strip()).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    return _ALIASES.get(name, name)


def plan(
    conn: Connection,
    header: Sequence[str],
    sample: Sequence[Record | Reject],
    *,
    create_fields: bool,
    ignore_unknown: bool,
) -> Plan:
    """Match ``header``; create missing own fields if asked to. Raises UserError with the offer, or for a bad header."""
    names = [field_name(title) for title in header]
    _refuse_doubles(header, names)
    if "email" not in names and "external_id" not in names:
        raise UserError(
            f"no column names the address (columns: {_listed(header)})", "call one of them email, or external_id"
        )
    known = own_fields(conn)
    unknown = [at for at, name in enumerate(names) if name not in FIXED and name not in known]
    if unknown and not create_fields and not ignore_unknown:
        _offer(header, names, unknown)
    created: dict[str, FieldType] = {}
    if create_fields:
        for at in unknown:
            _refuse_unusable(header[at], names[at])
            kind = guess_type(item.cells[at].strip() for item in sample if isinstance(item, Record))
            add_field(conn, names[at], kind)
            created[names[at]] = kind
    known |= created
    return Plan(
        fixed={name: at for at, name in enumerate(names) if name in FIXED},
        own=tuple((name, at, known[name]) for at, name in enumerate(names) if name in known),
        created=created,
        ignored=tuple(header[at] for at in unknown if names[at] not in created),
    )


def _refuse_doubles(header: Sequence[str], names: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for title, name in zip(header, names, strict=True):
        if name and name in first:
            raise UserError(f"columns {first[name]!r} and {title!r} both name {name}", "remove or rename one of them")
        first[name] = title


def _refuse_unusable(title: str, name: str) -> None:
    if not FIELD_NAME.fullmatch(name) or name in RESERVED | KEYWORDS:
        raise UserError(
            f"column {title!r} cannot become a field", "rename it to letters, digits and _, or use --ignore-unknown"
        )


def _offer(header: Sequence[str], names: Sequence[str], unknown: Sequence[int]) -> None:
    titles = _listed([header[at] for at in unknown])
    example = next((names[at] for at in unknown if FIELD_NAME.fullmatch(names[at])), "city")
    raise UserError(
        f"{len(unknown)} column{'s are' if len(unknown) > 1 else ' is'} not known here: {titles}",
        "--create-fields makes fields of them, --ignore-unknown leaves them out, "
        f"`midsource recipients field add {example} text` says the type yourself",
    )


def _listed(titles: Sequence[str]) -> str:
    shown = ", ".join(repr(title[:60]) for title in titles[:12])
    return f"{shown} and {len(titles) - 12} more" if len(titles) > 12 else shown
