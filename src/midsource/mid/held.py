"""What an mta process holds in memory between lease and outcome: batches, rendered messages, destinations."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from midsource.mid.dispatch import Lease, Message
from midsource.mid.records import Start
from midsource.mid.render import Prepared, Rendered
from midsource.model.outcome import Attempt
from midsource.policy.paths import Queue
from midsource.smtp.events import Transaction

REST_SECONDS = 10.0
MAX_REST_SECONDS = 300.0
"""A destination where nobody answers rests for 10 s, then twice as long each time, at most 5 minutes."""
CROWDED_SECONDS = 30.0
"""How long a destination that refused one more connection is left with those it has."""


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


class Item(msgspec.Struct, frozen=True, eq=False):
    """A rendered message."""

    held: Held
    message: Message
    message_id: str
    bytes: int

    @property
    def start(self) -> Start:
        """What the journal notes before its body leaves."""
        lease = self.held.lease
        return Start(lease.account_id, lease.delivery_id, self.message.id, lease.batch_id, lease.token)


def transaction_of(token: int, message: Message, rendered: Rendered) -> Transaction:
    """Return what a connection sends; it needs SMTPUTF8 only where an address does. `mail.skeleton` vouches for its lines."""
    utf8 = not (message.email.isascii() and rendered.mail_from.isascii())
    return Transaction(
        token, rendered.mail_from, message.email, rendered.wire, smtputf8=utf8, prestuffed=True, vouched=True
    )


class Destination:
    """The messages and connections of one recipient domain. ``rate`` is messages a second, lately."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fresh: deque[tuple[Held, Message]] = deque()
        self.ready: deque[Transaction] = deque()
        self.rendering = 0
        self.connections = 0
        self.failures = 0
        self.refusal: Attempt | None = None
        self.rests_until = 0.0
        self.crowded_until = 0.0
        self.finished = 0
        self.rate = 0.0
        self.callbacks: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        """Show what waits and what is open."""
        return f"<Destination {self.name}: {self.waiting} waiting, {self.connections} connections, {self.rate:.0f}/s>"

    def measure(self, now: float, seconds: float) -> None:
        """Take what was finished in the last ``seconds`` into the rate; forget failures long past."""
        if seconds > 0:
            self.rate += min(1.0, seconds) * (self.finished / seconds - self.rate)  # the last second or so counts
            self.finished = 0
        if self.failures and now > self.rests_until + MAX_REST_SECONDS:
            self.failures = 0

    def queue(self, now: float) -> Queue:
        """Return it as `policy.paths` plans it."""
        rests, crowded = now < self.rests_until, now < self.crowded_until
        return Queue(self.waiting, self.connections, self.rate, rests, crowded)

    def rest(self, now: float, refusal: Attempt) -> float:
        """Note that nobody answered; return for how many seconds it rests."""
        seconds = min(MAX_REST_SECONDS, REST_SECONDS * (1 << min(10, self.failures)))
        self.failures += 1
        self.refusal = refusal
        self.rests_until = now + seconds
        return seconds

    def refusal_now(self, now: float) -> Attempt | None:
        """Return the try that everything for it has had, while it rests."""
        return self.refusal if now < self.rests_until else None

    def crowd(self, now: float) -> None:
        """Note that it takes the connections it has and no more."""
        self.crowded_until = now + CROWDED_SECONDS

    def reached(self) -> None:
        """Note that a conversation was had there."""
        self.failures, self.rests_until = 0, 0.0

    def take_callbacks(self) -> list[Callable[[], None]]:
        """Return, once each, whom to call: connections that found nothing to take."""
        callbacks, self.callbacks = self.callbacks, []
        return callbacks

    @property
    def waiting(self) -> int:
        """Messages that no connection has taken yet."""
        return len(self.fresh) + len(self.ready) + self.rendering

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left to know about it."""
        return not self.waiting and not self.connections and not self.failures
