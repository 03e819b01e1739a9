"""A raw message as a person wants to read it: headers, text, HTML. Never raises on what arrived."""

from __future__ import annotations

from dataclasses import dataclass
from email import policy
from email.errors import MessageError
from email.message import EmailMessage
from email.parser import BytesParser

MAX_SHOWN = 1_000_000
"""Characters of text and of HTML shown; the raw message has the rest."""


@dataclass(frozen=True, slots=True)
class Readable:
    """What the message page shows."""

    headers: tuple[tuple[str, str], ...]
    text: str
    html: str
    attachments: tuple[str, ...]
    problems: tuple[str, ...]
    """What in the message does not keep to the standards, in the parser's words."""


def read_message(raw: bytes) -> Readable:
    """Parse a message. Takes milliseconds for a large one: not for the event loop."""
    message = BytesParser(EmailMessage, policy=policy.default).parsebytes(raw)
    problems = [type(defect).__name__ for part in message.walk() for defect in part.defects]
    headers = tuple((name, _header(name, value)) for name, value in message.raw_items())
    parts: dict[str, str] = {}
    attachments: list[str] = []
    for part in message.walk():
        if part.is_multipart():
            continue
        kind = part.get_content_type()
        if part.get_content_disposition() == "attachment" or kind not in ("text/plain", "text/html"):
            attachments.append(f"{part.get_filename() or 'unnamed'} ({kind})")
        elif kind not in parts:
            parts[kind] = _content(part, problems)
    return Readable(
        headers, parts.get("text/plain", ""), parts.get("text/html", ""), tuple(attachments), tuple(problems)
    )


def _content(part: EmailMessage, problems: list[str]) -> str:
    try:
        return str(part.get_content())[:MAX_SHOWN]
    except (LookupError, ValueError, MessageError) as problem:
        problems.append(f"{part.get_content_type()}: {problem}")
        payload = part.get_payload(decode=True)
        return payload.decode("utf-8", "replace")[:MAX_SHOWN] if isinstance(payload, bytes) else ""


def _header(name: str, value: str) -> str:
    try:
        return " ".join(str(policy.default.header_fetch_parse(name, value)).split())
    except Exception:  # noqa: BLE001 - the standard parser fails in many ways on odd headers; those are shown undecoded
        return " ".join(value.split())
