"""What the sink holds, counted: in memory, rebuilt from the index at start.

*Distinct* counts each message once per recipient, however often it arrived: the key is (Message-ID, address). Only a
64-bit hash of it is kept, about 90 bytes a message: a million fits in 100 MB, and the chance that any two of them
collide is 3 in 10 million.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from hashlib import blake2b

MAX_KEYS = 5_000
"""Domains, and deliveries, counted by name; the others are counted together under ``OTHERS``."""
OTHERS = "(others)"


@dataclass(slots=True)
class Count:
    """Lines of one kind."""

    received: int = 0
    distinct: int = 0
    unanswered: int = 0

    def add(self, sign: int, *, first: bool, answered: bool) -> None:
        """Count one line, or with ``sign`` -1 take it back."""
        self.received += sign
        self.distinct += sign * first
        self.unanswered += sign * (not answered)


class Tally:
    """The counts and the set of keys held."""

    def __init__(self) -> None:
        self._held: set[int] = set()
        self.total = Count()
        self.by_domain: dict[str, Count] = defaultdict(Count)
        self.by_delivery: dict[str, Count] = defaultdict(Count)
        self.by_personality: dict[str, Count] = defaultdict(Count)

    def holds(self, message_id: str, rcpt: str) -> bool:
        """Whether this message has arrived for this recipient."""
        return _key(message_id, rcpt) in self._held

    def arrived(self, message_id: str, rcpt: str) -> bool:
        """Remember the message; return whether it is the first of its kind."""
        key = _key(message_id, rcpt)
        if key in self._held:
            return False
        self._held.add(key)
        return True

    def gone(self, message_id: str, rcpt: str) -> None:
        """Forget a message whose first line is not kept any more."""
        self._held.discard(_key(message_id, rcpt))

    def count(
        self, domain: str, delivery: str, personality: str, sign: int = 1, *, first: bool, answered: bool
    ) -> None:
        """Count one line under every heading; ``sign`` -1 takes it back."""
        self.total.add(sign, first=first, answered=answered)
        _named(self.by_domain, domain).add(sign, first=first, answered=answered)
        _named(self.by_delivery, delivery).add(sign, first=first, answered=answered)
        self.by_personality[personality].add(sign, first=first, answered=answered)


def _key(message_id: str, rcpt: str) -> int:
    text = f"{message_id}\0{rcpt.casefold()}"
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest())


def _named(counts: dict[str, Count], name: str) -> Count:
    return counts[name] if name in counts or len(counts) < MAX_KEYS else counts[OTHERS]
