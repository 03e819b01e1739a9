"""The filters and tests of the template language: an explicit list, each bounded, each treating an empty value as "".

An empty value (None) is nothing to show, never the word *None*: ``{{ recipient.city|upper }}`` of a person without a
city is "". ``default`` fills what is empty, also "", because imports store both. No filter makes a value longer than
``MAX_VALUE_CHARS``; what would is refused, and with it that recipient's message, by name and line.

``safe`` is not in the list: data never decide that they are HTML.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from types import MappingProxyType
from urllib.parse import quote
from uuid import UUID

from jinja2 import pass_eval_context
from jinja2.nodes import EvalContext
from markupsafe import Markup, escape

MAX_VALUE_CHARS = 8_192
"""Characters of one value: eight times the longest the field allows (spec/delivery 3.1)."""
MAX_LIST_ITEMS = 10_000
"""Items of a list built in a template: as many as a loop may take."""
SCALARS = (str, int, float, Decimal, date, time, UUID)
"""What may be shown: a list or mapping is shown by choosing from it."""
_MAX_DIGITS = 15
"""Decimal places of ``round``: what a double can tell apart."""


class Refused(Exception):
    """A value or an operation the sandbox does not perform; the text is the reason an author reads."""


def bounded(text: str) -> str:
    """Return ``text``; raise Refused where it is longer than one value may be."""
    if len(text) > MAX_VALUE_CHARS:
        raise Refused(f"a value of {len(text)} characters is longer than {MAX_VALUE_CHARS}")
    return text


def text_of(value: object) -> str:
    """Return the text of a scalar (None is ""); raise Refused for a list, a mapping or anything else."""
    if isinstance(value, str):
        return bounded(value)
    if value is None:
        return ""
    if isinstance(value, int) and value.bit_length() > 256:  # str() of a long number takes quadratic time
        raise Refused("a number of more than 77 digits")
    if isinstance(value, SCALARS):
        return bounded(str(value))
    if isinstance(value, list | tuple | dict):
        raise Refused(f"a {type(value).__name__} cannot be shown as a whole: choose from it, loop over it or join it")
    # An undefined value says by itself what is unknown.
    return bounded(str(value))


def _items(value: object) -> Sequence[object]:
    if value is None:
        return ()
    if isinstance(value, str | list | tuple | range):
        return value
    raise Refused(f"'{type(value).__name__}' is not a list")


def is_empty(value: object) -> bool:
    """Whether there is nothing to show: None, "" or an empty list. Zero and false are values."""
    return value is None or (isinstance(value, str | list | tuple | dict) and not value)


def _default(value: object, fallback: object = "", *_: object) -> object:
    return fallback if is_empty(value) else value


def _capitalize(value: object) -> str:
    return text_of(value).capitalize()


def _title(value: object) -> str:
    """Upper-case the first letter of each word; apostrophes and hyphens begin words (Jean-Luc, D'Artagnan)."""
    out, fresh = [], True
    for char in text_of(value):
        out.append(char.upper() if fresh else char.lower())
        fresh = not char.isalnum()
    return "".join(out)


def _replace(value: object, old: object, new: object) -> str:
    text, before, after = text_of(value), text_of(old), text_of(new)
    if not before:
        raise Refused("replace needs something to look for")
    if len(text) + text.count(before) * (len(after) - len(before)) > MAX_VALUE_CHARS:
        raise Refused(f"replace makes a value longer than {MAX_VALUE_CHARS} characters")
    return str(text).replace(before, after)


def _truncate(value: object, length: int = 80, end: str = "…") -> str:
    text = text_of(value)
    return text if len(text) <= length else str(text)[: max(0, length - len(end))].rstrip() + end


def _round(value: float, digits: int = 0) -> float:
    if abs(digits) > _MAX_DIGITS:
        raise Refused(f"round takes at most {_MAX_DIGITS} digits")
    return round(value, digits) if digits > 0 else round(value)


def _int(value: object, fallback: int = 0) -> int:
    try:
        return int(float(text_of(value))) if not isinstance(value, int) else value
    except (ValueError, OverflowError):
        return fallback


def _float(value: object, fallback: float = 0.0) -> float:
    try:
        return float(text_of(value))
    except ValueError:
        return fallback


def _join(value: object, glue: object = "") -> str:
    parts = [text_of(item) for item in _items(value)]
    between = text_of(glue)
    if sum(map(len, parts)) + len(between) * len(parts) > MAX_VALUE_CHARS:
        raise Refused(f"join makes a value longer than {MAX_VALUE_CHARS} characters")
    return str(between).join(map(str, parts))


def _first(value: object) -> object:
    items = _items(value)
    return items[0] if items else None


def _last(value: object) -> object:
    items = _items(value)
    return items[-1] if items else None


@pass_eval_context
def concatenate(eval_context: EvalContext, *values: object) -> str:
    """Join the operands of ``~``: text, where HTML is written, escapes beside HTML."""
    parts = [text_of(value) for value in values]
    if eval_context.autoescape and any(isinstance(part, Markup) for part in parts):
        return bounded(Markup("").join(parts))
    return bounded("".join(parts))


FILTERS: Mapping[str, Callable[..., object]] = MappingProxyType(
    {
        "abs": abs,
        "capitalize": _capitalize,
        "d": _default,
        "default": _default,
        "e": lambda value: escape(text_of(value)),
        "escape": lambda value: escape(text_of(value)),
        "first": _first,
        "float": _float,
        "int": _int,
        "join": _join,
        "last": _last,
        "length": lambda value: len(_items(value)),
        "lower": lambda value: text_of(value).lower(),
        "replace": _replace,
        "reverse": lambda value: _items(value)[::-1],
        "round": _round,
        "string": text_of,
        "striptags": lambda value: Markup(text_of(value)).striptags(),  # noqa: S704 - the result is plain text
        "title": _title,
        "trim": lambda value: text_of(value).strip(),
        "truncate": _truncate,
        "upper": lambda value: text_of(value).upper(),
        "urlencode": lambda value: bounded(quote(text_of(value), safe="")),
    }
)
"""What may follow ``|``."""

TESTS: Mapping[str, Callable[..., bool]] = MappingProxyType(
    {
        "boolean": lambda value: value is True or value is False,
        "divisibleby": lambda value, number: bool(value % number == 0),
        "empty": is_empty,
        "even": lambda value: bool(value % 2 == 0),
        "none": lambda value: value is None,
        "number": lambda value: isinstance(value, int | float | Decimal),
        "odd": lambda value: bool(value % 2 == 1),
        "string": lambda value: isinstance(value, str),
    }
)
"""What may follow ``is``."""
