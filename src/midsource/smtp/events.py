"""What goes into a client session and what comes out of it: plain values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from midsource.model.outcome import Attempt, Lost, Reply, Stage


class Pipelining(StrEnum):
    """How much is said before listening; without PIPELINING offered every mode is lock-step."""

    LOCK_STEP = "lock-step"  # one command, one reply
    GROUPED = "grouped"  # MAIL, RCPT and DATA of one message together
    ACROSS = "across"  # and the final dot with the next message's group: one round trip a message


class TlsPolicy(StrEnum):
    """Whether the session asks for STARTTLS."""

    NEVER = "never"
    OPPORTUNISTIC = "opportunistic"  # where offered; refused, the session goes on in plain text
    REQUIRED = "required"  # not offered or refused, the session ends at Stage.TLS


_FORWARD_PATH = re.compile(
    r"""(?:"(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*"|[^\x00-\x20\x7f"<>]*)(?:@[^\x00-\x20\x7f"<>]+)?"""
)
"""What may stand between the angle brackets without ending them: a guard, not a grammar (that is model.address)."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One message to one recipient. ``token`` is the caller's name for it.

    ``body`` is headers and content in wire form: every line ends in CRLF. Lines beginning with a dot are doubled here
    unless ``prestuffed``. ``vouched``: whoever made it answers for both, so it is not read once more (36 us for 20 kB).
    ``mail_from`` may be empty (the null reverse path).
    """

    token: int
    mail_from: str
    rcpt: str
    body: bytes
    smtputf8: bool = False
    eightbit: bool = False
    prestuffed: bool = False
    vouched: bool = False

    def check(self) -> None:
        """Raise ValueError where sending it would break the protocol's lines (smuggling) or its character set."""
        if not self.body.endswith(b"\r\n"):
            raise ValueError(f"message {self.token}: its last line does not end in CRLF")
        if not self.vouched:
            self._check_lines()
        for path in (self.mail_from, self.rcpt):
            if not _FORWARD_PATH.fullmatch(path):
                raise ValueError(f"message {self.token}: {path!r} cannot stand between angle brackets")
            if not path.isascii() and not self.smtputf8:
                raise ValueError(f"message {self.token}: {path!r} needs smtputf8")
        if not self.rcpt:
            raise ValueError(f"message {self.token}: no recipient")

    def _check_lines(self) -> None:
        body = self.body
        lines = body.count(b"\n")
        if body.count(b"\r") != lines or body.count(b"\r\n") != lines:
            raise ValueError(f"message {self.token}: a line does not end in CRLF")
        if self.prestuffed and (body.startswith(b".\r\n") or b"\r\n.\r\n" in body):
            raise ValueError(f"message {self.token}: said to be dot-stuffed but holds a line of one dot")


BEGUN = Transaction(0, "", "", b"")
"""Stands where a message was whose body left: it is offered to nobody again, so its bytes need not be kept."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What EHLO offered. ``size`` is the largest message in bytes, 0 where the server names none."""

    pipelining: bool = False
    eightbitmime: bool = False
    smtputf8: bool = False
    starttls: bool = False
    size: int = 0

    @classmethod
    def parse(cls, lines: Sequence[str]) -> Capabilities:
        """Return what the lines of an EHLO reply offer; the first line is the server's name. Unknown words are ignored."""
        words = {line.split(" ")[0].upper(): line for line in lines[1:]}
        size = words.get("SIZE", "").partition(" ")[2].strip()
        return cls(
            pipelining="PIPELINING" in words,
            eightbitmime="8BITMIME" in words,
            smtputf8="SMTPUTF8" in words,
            starttls="STARTTLS" in words,
            size=int(size) if size.isascii() and size.isdigit() and len(size) <= 20 else 0,
        )


@dataclass(frozen=True, slots=True)
class Send:
    """Write these bytes now. ``ends`` is the token of the message whose final dot is among them, None without one."""

    data: bytes
    ends: int | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The next `Send` carries the first bytes of this message's body: record it first, or call `withhold`."""

    token: int


@dataclass(frozen=True, slots=True)
class StartTls:
    """Do the TLS handshake now, then call `tls_started` or `tls_failed`. No bytes may be received meanwhile."""


@dataclass(frozen=True, slots=True)
class Replied:
    """A server's reply, as it came (only with ``trace``)."""

    stage: Stage
    reply: Reply


@dataclass(frozen=True, slots=True)
class Finished:
    """This message has its answer or has lost it. Exactly one for every message that was not `Returned`."""

    token: int
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Returned:
    """The session ended before this message was begun: nothing about it was said, or nothing of it answered while another
    message's answer was outstanding when it was. It counts as no try."""

    transaction: Transaction


@dataclass(frozen=True, slots=True)
class Ready:
    """A message may be submitted. Said once; `wants_work` stays true until one is."""


@dataclass(frozen=True, slots=True)
class NeedData:
    """Nothing to do until bytes arrive; ``stage`` says what is awaited (the time-out), None when idle."""

    stage: Stage | None


@dataclass(frozen=True, slots=True)
class Closed:
    """The session is over: close the socket. ``answer`` None: politely, after QUIT. Else why; ``stage`` None: while idle."""

    stage: Stage | None = None
    answer: Reply | Lost | None = None


Event: TypeAlias = Send | Started | StartTls | Replied | Finished | Returned | Ready | NeedData | Closed
