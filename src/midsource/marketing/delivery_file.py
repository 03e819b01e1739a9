"""The file a delivery is made from: TOML, typed, unknown keys refused, every problem reported at once.

label = "Spring newsletter"
account = "mid1"                 # external account; may be left out while there is only one
brand = "default"
template = "default"             # optional: gives what this file leaves out
subject = "Hello {{ recipient.first_name }}"
html = "newsletter.html"         # files beside this one
text = "newsletter.txt"
contact_at = 2026-03-01T09:00:00+01:00
validity = "5d"
uncertain = "hold"               # or "resend"
[sender]      name, address, reply_to          (default: the brand's)
[target]      list, and segment or expression  (default: everybody)
[retry]       count, period = "1h"
[headers]     "X-Campaign" = "spring"
[wave]        size = "20%" or a number of messages, every = "1d"      (default: all at once)
[recurrence]  schedule = "weekly on monday at 09:00", zone, open, until  (default: sent once)
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from midsource.marketing.durations import RETRY_PERIOD_SECONDS, VALIDITY_SECONDS
from midsource.model.durations import parse_duration, show_bounds
from midsource.model.errors import ConfigError, UserError
from midsource.model.schedule import MAX_TEXT, plan
from midsource.policy.waves import PERIOD_SECONDS, Waves

MAX_FILE_BYTES = 1_000_000
"""Of the TOML and of each content file: twice what a template may have."""

Name = Annotated[str, Meta(min_length=1, max_length=200)]
T = TypeVar("T", bound=msgspec.Struct)


class Sender(msgspec.Struct, frozen=True):
    """``[sender]``."""

    name: Annotated[str, Meta(max_length=200)] | None = None
    address: Annotated[str, Meta(min_length=3, max_length=320)] | None = None
    reply_to: Annotated[str, Meta(min_length=3, max_length=320)] | None = None


class Target(msgspec.Struct, frozen=True):
    """``[target]``."""

    list: Name | None = None
    segment: Name | None = None
    expression: Annotated[str, Meta(max_length=10_000)] | None = None


class Retry(msgspec.Struct, frozen=True):
    """``[retry]``."""

    count: Annotated[int, Meta(ge=0, le=100)] | None = None
    period: str | int | None = None


class Wave(msgspec.Struct, frozen=True):
    """``[wave]``: ``size`` is a share (``20%``) or a number of messages."""

    size: str | int
    every: str | int


class Recurrence(msgspec.Struct, frozen=True):
    """``[recurrence]``: a text of model/schedule.py in an IANA zone; ``open``: how many may be under way at one time."""

    schedule: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
    zone: Name = "UTC"
    open: Annotated[int, Meta(ge=1, le=100)] = 1
    until: datetime | None = None


class DeliveryFile(msgspec.Struct, frozen=True):
    """The document as it stands in the file; html and text are file names."""

    label: Name
    account: Name | None = None
    brand: Name = "default"
    template: Name | None = None
    subject: Annotated[str, Meta(max_length=2_000)] | None = None
    html: Name | None = None
    text: Name | None = None
    contact_at: datetime | None = None
    validity: str | int | None = None
    uncertain: Literal["hold", "resend"] | None = None
    sender: Sender = Sender()
    target: Target = Target()
    retry: Retry = Retry()
    headers: dict[str, str] = {}
    wave: Wave | None = None
    recurrence: Recurrence | None = None


class Draft(msgspec.Struct, frozen=True):
    """The file read, its content files loaded and its times in seconds."""

    document: DeliveryFile
    html: str | None
    text: str | None
    validity_seconds: int | None
    retry_period_seconds: int | None
    waves: Waves | None = None


def read_delivery_file(path: Path) -> Draft:
    """Read and check the file. Raises ConfigError with every problem, UserError when it cannot be read."""
    try:
        table = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as exc:
        raise UserError(f"{path} is not TOML: {exc}", "correct the line and try again") from exc
    problems: list[str] = []
    contents = {
        key: _content(path.parent, key, table[key], problems)
        for key in ("html", "text")
        if isinstance(table.get(key), str) and table[key]
    }
    draft = _checked(table, contents, problems)
    if problems or draft is None:
        raise ConfigError(
            [f"{path.name}: {problem}" for problem in problems], "correct the delivery file and try again"
        )
    return draft


def draft_of(document: Mapping[str, Any], *, html: str | None = None, text: str | None = None) -> Draft:
    """Check a document that came another way than by file, with its contents (None: the template's).

    Raises ConfigError whose problems each begin with the key and a colon.
    """
    problems = [
        f"{key}: larger than {MAX_FILE_BYTES // 1000} kB, or it holds a NUL character"
        for key, content in (("html", html), ("text", text))
        if content is not None and (len(content.encode()) > MAX_FILE_BYTES or "\0" in content)
    ]
    draft = _checked(document, {"html": html, "text": text}, problems)
    if problems or draft is None:
        raise ConfigError(problems, "correct the delivery and try again")
    return draft


def _checked(table: Mapping[str, Any], contents: Mapping[str, str | None], problems: list[str]) -> Draft | None:
    document = _struct(DeliveryFile, table, "", problems)
    if document is None:
        return None
    if document.contact_at is not None and document.contact_at.tzinfo is None:
        problems.append("contact_at: expected a time with its zone (2026-03-01T09:00:00+01:00), got one without")
    if document.target.segment and document.target.expression:
        problems.append("target: expected segment or expression, got both")
    _check_recurrence(document, problems)
    return Draft(
        document=document,
        waves=_waves(document.wave, problems),
        html=contents.get("html"),
        text=contents.get("text"),
        validity_seconds=_seconds("validity", document.validity, VALIDITY_SECONDS, problems),
        retry_period_seconds=_seconds("retry.period", document.retry.period, RETRY_PERIOD_SECONDS, problems),
    )


def _check_recurrence(document: DeliveryFile, problems: list[str]) -> None:
    recurrence = document.recurrence
    if recurrence is None:
        return
    try:
        plan(recurrence.schedule, recurrence.zone)
    except UserError as exc:
        problems.append(f"recurrence.schedule: {exc.cause}; {exc.remedy}")
    if recurrence.until is not None and recurrence.until.tzinfo is None:
        problems.append("recurrence.until: expected a time with its zone (2026-03-01T09:00:00+01:00), got one without")
    if document.contact_at is not None:
        problems.append("contact_at: a delivery that recurs is sent at its ticks, it has no contact date")


def _waves(wave: Wave | None, problems: list[str]) -> Waves | None:
    if wave is None:
        return None
    every = _seconds("wave.every", wave.every, PERIOD_SECONDS, problems)
    text = str(wave.size).strip()
    number = text.removesuffix("%").strip()
    is_share = text.endswith("%")
    if (
        not (number.isascii() and number.isdigit())
        or len(number) > 9
        or not 1 <= int(number) <= (99 if is_share else 10**9)
    ):
        problems.append(f"wave.size: expected 1% to 99%, or a number of messages, got {text[:20]!r}")
        return None
    return Waves(int(number) if is_share else None, None if is_share else int(number), every or 0)


def _content(folder: Path, key: str, name: str, problems: list[str]) -> str | None:
    try:
        return read_text(folder / name)
    except UserError as exc:
        problems.append(f"{key}: {exc.cause}")
        return None


def read_text(path: Path) -> str:
    """Return the text of a file of at most MAX_FILE_BYTES; raises UserError for what cannot be read as text."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise UserError(f"{path} is larger than {MAX_FILE_BYTES // 1000} kB", "give a smaller file")
        if b"\0" in raw:
            raise UserError(f"{path} holds a NUL character", "remove it; a text file has none")
        return raw.decode("utf-8-sig")
    except OSError as exc:
        raise UserError(f"{path} cannot be read ({exc.strerror})", "give the path of an existing file") from exc
    except UnicodeDecodeError as exc:
        raise UserError(f"{path} is not UTF-8 (byte {exc.start + 1})", "save it as UTF-8") from exc


def _seconds(key: str, value: str | int | None, bounds: tuple[int, int], problems: list[str]) -> int | None:
    if value is None:
        return None
    try:
        seconds = parse_duration(value)
    except UserError as exc:
        problems.append(f"{key}: {exc.cause}; {exc.remedy}")
        return None
    if not bounds[0] <= seconds <= bounds[1]:
        problems.append(f"{key}: expected {show_bounds(*bounds)}, got {value}")
    return seconds


def _struct(kind: type[T], table: Mapping[str, Any], prefix: str, problems: list[str]) -> T | None:
    """Convert key by key, so that one wrong value hides no other."""
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for key in table.keys() - fields.keys():
        near = get_close_matches(key, fields, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected {', '.join(sorted(fields))}"
        problems.append(f"{prefix}{key}: unknown key ({hint})")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in table:
            value = _value(field.type, table[name], f"{prefix}{name}", problems)
            if value is not UNSET:
                values[name] = value
        elif field.required:
            problems.append(f"{prefix}{name}: missing")
    missing = [name for name, field in fields.items() if field.required and name not in values]
    return None if missing else kind(**values)


def _value(kind: Any, value: Any, key: str, problems: list[str]) -> Any | UnsetType:
    optional = [one for one in get_args(kind) if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    kind = optional[0] if optional and value is not None else kind
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if isinstance(value, dict):
            return _struct(kind, value, f"{key}.", problems)
        problems.append(f"{key}: expected a table, got {value!r}")
        return UNSET
    texts = [value] if isinstance(value, str) else [*value, *value.values()] if isinstance(value, dict) else []
    if any("\0" in text for text in texts if isinstance(text, str)):  # TOML has an escape for it, the database no place
        problems.append(f"{key}: expected text without NUL, got {value!r:.60}")
        return UNSET
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        shown = repr(value)[:60]
        problems.append(f"{key}: {_plain(str(exc))}, got {shown}")
        return UNSET


def _plain(message: str) -> str:
    return message[:1].lower() + message[1:].split(" - at", maxsplit=1)[0]
