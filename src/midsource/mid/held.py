"""What an mta process holds in memory between lease and outcome: batches, rendered messages, destinations."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from midsource.mid.dispatch import Lease, Message
from midsource.mid.render import Prepared
from midsource.smtp.events import Transaction


class Fate(StrEnum):
    """What happens with the messages of a batch that nobody has begun."""

    SEND = "send"
    LEAVE = "leave"  # paused, or the lease is lost: somebody else's, or later
    CANCEL = "cancel"  # the delivery was stopped


@dataclass(slots=True, eq=False)
class Held:
    """A leased batch. ``ends``: boot time at which the lease is over. ``parked``: waiting for its renewal.

    Each message without an outcome is counted by ``open``; ``busy`` counts those in the pool or on a connection.
    """

    lease: Lease
    prepared: Prepared
    ends: float
    open: int
    busy: int = 0
    unsettled: int = 0
    fate: Fate = Fate.SEND
    parked: list[Message] = field(default_factory=list)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing of it is under way or waits to be settled."""
        return not self.busy and not self.unsettled


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A rendered message."""

    held: Held
    message: Message
    message_id: str
    bytes: int


class Destination:
    """The messages and connections of one recipient domain. ``rate`` is messages a second, lately."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fresh: deque[tuple[Held, Message]] = deque()
        self.ready: deque[Transaction] = deque()
        self.rendering = 0
        self.connections = 0
        self.failures = 0
        self.rests_until = 0.0
        self.crowded_until = 0.0
        self.finished = 0
        self.rate = 0.0
        self.callbacks: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        """Show what waits and what is open."""
        return f"<Destination {self.name}: {self.waiting} waiting, {self.connections} connections, {self.rate:.0f}/s>"

    @property
    def waiting(self) -> int:
        """Messages that no connection has taken yet."""
        return len(self.fresh) + len(self.ready) + self.rendering

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left to know about it."""
        return not self.waiting and not self.connections and not self.failures
