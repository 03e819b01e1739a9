"""What the sink answers to a recipient: the personality applied, with the memory that all connections share.

Order of events: the session asks ``recipient`` at RCPT and gets a ``Verdict``; when a message came in whole it calls
``message_taken`` and asks ``drops``; when the connection ends it calls ``release``. Nothing here is durable: after a
restart the greylist starts anew (a first try is put off again) and the refusal counts begin at zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from midsource.model.clock import Clock
from midsource.sandbox.personalities import ACCEPT, PERSONALITIES, Kind, Personality, falls_in_share

MAX_GREYLISTED = 200_000
"""Pairs of sender and recipient remembered, about 40 MB; the oldest is forgotten first and so put off once more."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one RCPT."""

    reply: bytes
    personality: Personality
    accepted: bool = False
    closes: bool = False

    @property
    def wait_seconds(self) -> float:
        """How long this provider takes for each of its replies."""
        return self.personality.delay_seconds if self.personality.kind is Kind.SLOW else 0.0


@dataclass(slots=True, eq=False)
class Visitor:
    """What the judge remembers of one connection."""

    encrypted: bool = False
    throttled_messages: int = 0
    throttled_domains: set[str] = field(default_factory=set)
    """Throttling domains in which this connection holds a place."""


_WELCOME = b"250 2.1.5 recipient ok\r\n"
_ACCEPTED = Verdict(_WELCOME, ACCEPT, accepted=True)


class Judge:
    """Applies personalities. One object per sink, owned by its event loop."""

    def __init__(
        self,
        clock: Clock,
        is_held: Callable[[str, str], bool],
        personalities: Mapping[str, Personality] = PERSONALITIES,
    ) -> None:
        """``is_held`` says whether a message (Message-ID, recipient) has arrived before."""
        self._clock = clock
        self._is_held = is_held
        self._personalities = personalities
        self._first_tried: dict[tuple[str, str], float] = {}
        self._connections: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        """Refusals since the start, by kind."""

    def recipient(self, visitor: Visitor, sender: str, rcpt: str, domain: str) -> Verdict:
        """Decide about one recipient of the message that ``visitor`` announces."""
        personality = self._personalities.get(domain)
        if personality is None or personality.kind is Kind.ACCEPT:
            return _ACCEPTED
        refusal = self._refusal(personality, visitor, sender, rcpt, domain)
        if refusal:
            self.refused[personality.kind.value] += 1
            return Verdict(refusal, personality, closes=refusal.startswith(b"421"))
        return Verdict(_WELCOME, personality, accepted=True)

    def message_taken(self, visitor: Visitor, personality: Personality) -> None:
        """Count a message that came in whole against the limits of its provider."""
        if personality.kind is Kind.THROTTLE:
            visitor.throttled_messages += 1

    def drops(self, personality: Personality, message_id: str, rcpt: str) -> bool:
        """Whether to hang up instead of answering. A message that had arrived before is answered: a cut happens once."""
        return (
            personality.kind is Kind.DROP_AFTER_DOT
            and falls_in_share(personality.share, message_id, rcpt.casefold())
            and not self._is_held(message_id, rcpt)
        )

    def release(self, visitor: Visitor) -> None:
        """Give back the places of a connection that ended."""
        self._connections.subtract(visitor.throttled_domains)
        visitor.throttled_domains.clear()

    def _refusal(self, personality: Personality, visitor: Visitor, sender: str, rcpt: str, domain: str) -> bytes:
        """Return the refusing reply, or nothing where the recipient is welcome."""
        match personality.kind:
            case Kind.GREYLIST if self._is_too_early(personality, sender, rcpt):
                return b"451 4.7.1 greylisted, please try again later\r\n"
            case Kind.THROTTLE:
                return self._throttling(personality, visitor, domain)
            case Kind.UNKNOWN_USER if falls_in_share(personality.share, rcpt.casefold()):
                return b"550 5.1.1 mailbox unavailable: user unknown\r\n"
            case Kind.MAILBOX_FULL if falls_in_share(personality.share, rcpt.casefold()):
                return b"552 5.2.2 mailbox full: quota exceeded\r\n"
            case Kind.TLS if not visitor.encrypted:
                return b"530 5.7.0 must issue a STARTTLS command first\r\n"
            case Kind.POLICY_BLOCK:
                return b"550 5.7.1 message refused by local policy\r\n"
            case _:
                return b""

    def _is_too_early(self, personality: Personality, sender: str, rcpt: str) -> bool:
        now = self._clock.boot_seconds()
        first = self._first_tried.setdefault((sender.casefold(), rcpt.casefold()), now)
        if len(self._first_tried) > MAX_GREYLISTED:
            del self._first_tried[next(iter(self._first_tried))]
        return now - first < personality.delay_seconds

    def _throttling(self, personality: Personality, visitor: Visitor, domain: str) -> bytes:
        if visitor.throttled_messages >= personality.messages_per_connection:
            return b"421 4.7.0 too many messages on this connection, slow down\r\n"
        if domain not in visitor.throttled_domains:
            if self._connections[domain] >= personality.connections:
                return b"421 4.7.0 too many connections from your address\r\n"
            self._connections[domain] += 1
            visitor.throttled_domains.add(domain)
        return b""
