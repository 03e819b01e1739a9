"""What one attempt came to: replies, stages and outcomes. A refusal is data, not an exception."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MAX_REPLY_TEXT = 500
"""Characters of reply text kept with a message: the longest useful provider texts are about 300."""


class Stage(StrEnum):
    """How far the conversation had come; decides whether a loss leaves the message uncertain."""

    RESOLVE = "resolve"
    CONNECT = "connect"
    BANNER = "banner"
    EHLO = "ehlo"
    TLS = "tls"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"  # from the first body byte to the final reply: a loss here is uncertain
    RENDER = "render"  # before any connection: a fault of ours


@dataclass(frozen=True, slots=True)
class Reply:
    """One SMTP reply (RFC 5321 4.2): three-digit code, enhanced code (RFC 3463) or "", text lines joined by spaces."""

    code: int
    enhanced: str = ""
    text: str = ""

    @property
    def is_positive(self) -> bool:
        """Whether it is 2xx."""
        return 200 <= self.code < 300

    @property
    def is_intermediate(self) -> bool:
        """Whether it is 3xx."""
        return 300 <= self.code < 400

    @property
    def is_transient(self) -> bool:
        """Whether it is 4xx: trying again later is right."""
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        """Whether it is 5xx."""
        return 500 <= self.code < 600

    def __str__(self) -> str:
        """Return the reply as an operator knows it, on one line, bounded."""
        if self.enhanced and self.text:
            return f"{self.code} {self.enhanced} {self.text}"[:MAX_REPLY_TEXT]
        return " ".join(filter(None, (str(self.code), self.enhanced, self.text)))[:MAX_REPLY_TEXT]


@dataclass(frozen=True, slots=True)
class Lost:
    """No reply: connection refused, cut or timed out. ``why`` is one clause, bounded to MAX_REPLY_TEXT."""

    why: str

    def __str__(self) -> str:
        """Return the clause."""
        return self.why[:MAX_REPLY_TEXT]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one message: how far it came and what was answered. What `policy.classify` decides on."""

    stage: Stage
    answer: Reply | Lost
