"""A message as it arrived, and the few facts of its header that the sink indexes.

``read_facts`` looks at the header block alone (its first ``MAX_HEADER_BYTES``); a message without a Message-ID is known
by its SHA-256, so that every message has an identity to be counted by.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from hashlib import sha256

from midsource.sandbox.personalities import Personality

MAX_HEADER_BYTES = 64 * 1024
"""Header looked at: ours is below 3 kB."""
MAX_FACT = 250
"""Characters kept of each indexed header: an index line stays small whatever arrives."""

_WANTED = re.compile(
    rb"^(Message-ID|Subject|X-Midsource-Id|X-Midsource-Delivery):[ \t]*([^\r]*(?:\r\n[ \t][^\r]*)*)\r\n",
    re.IGNORECASE | re.MULTILINE,
)
_FOLD = re.compile(r"\r\n[ \t]+")


@dataclass(frozen=True, slots=True)
class Recipient:
    """One accepted RCPT."""

    address: str
    domain: str
    personality: Personality


@dataclass(frozen=True, slots=True)
class Facts:
    """What the index knows of the header."""

    message_id: str
    subject: str
    id: str
    """``X-Midsource-Id``: our token, ``<account>.<delivery>.<broad log>``."""
    delivery: str
    """``X-Midsource-Delivery``, else the token's last part but one, else empty."""
    sha256: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message, complete and unstuffed, as it is kept."""

    mail_from: str
    recipients: tuple[Recipient, ...]
    body: bytes
    facts: Facts
    encrypted: bool
    answered: bool


def read_facts(body: bytes) -> Facts:
    """Return the indexed facts of a message; a header that cannot be decoded is shown as it is."""
    end = -2 if body.startswith(b"\r\n") else body.find(b"\r\n\r\n", 0, MAX_HEADER_BYTES)
    found: dict[bytes, str] = {}
    for name, value in _WANTED.findall(body, 0, end + 2 if end != -1 else MAX_HEADER_BYTES):
        found.setdefault(name.lower(), _FOLD.sub(" ", value.decode("utf-8", "replace")).strip())
    digest = sha256(body).hexdigest()
    token = found.get(b"x-midsource-id", "")[:MAX_FACT]
    parts = token.split(".")
    return Facts(
        message_id=found.get(b"message-id", "").strip("<>")[:MAX_FACT] or f"sha256:{digest}",
        subject=_decoded(found.get(b"subject", "")[: 4 * MAX_FACT])[:MAX_FACT],
        id=token,
        delivery=found.get(b"x-midsource-delivery", parts[-2] if len(parts) > 1 else "")[:MAX_FACT],
        sha256=digest,
    )


def _decoded(text: str) -> str:
    if "=?" not in text:
        return text
    try:
        return str(make_header(decode_header(text)))
    except (HeaderParseError, LookupError, ValueError):
        return text
