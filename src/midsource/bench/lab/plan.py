"""Which fault begins when, and for how long: drawn from the seed and from nothing else, so a run of chaos can be repeated.

Kinds come off a shuffled deck, so that ten minutes meet each of them several times. One fault ends before the next
begins; what stands over the whole run beside them is that every third part is answered 408.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What goes wrong."""

    LINK_CUT = "link cut"  # the mid's port refuses connections
    SLOW_LINK = "slow link"  # every answer of the mid comes seconds late
    KILLED = "kill -9"  # of one process, the supervisor among them
    POSTGRES = "PostgreSQL restart"  # kill -9 of the postmaster, or a fast shutdown
    CLOCK = "clock jump"  # of every process but PostgreSQL
    DISK = "full disk"  # of the whole home: journals and both databases


VICTIMS = ("worker@marketing", "web@marketing", "web@mid1", "worker@mid1", "mta@mid1", "supervisor")
PAUSE_SECONDS = (4.0, 12.0)
"""Between the end of one fault and the beginning of the next."""
LAST_SECONDS = {
    Kind.LINK_CUT: (4.0, 15.0), Kind.SLOW_LINK: (8.0, 20.0), Kind.KILLED: (0.0, 0.0), Kind.POSTGRES: (0.0, 0.0),
    Kind.CLOCK: (10.0, 25.0), Kind.DISK: (4.0, 10.0),
}  # fmt: skip
DELAY_SECONDS = (0.5, 4.0)
JUMP_SECONDS = (-600, 600)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: begins ``at`` seconds after the run did and lasts ``seconds``; ``detail``: who, how late, how far, which signal."""

    number: int
    kind: Kind
    at: float
    seconds: float
    detail: str

    def __str__(self) -> str:
        """Say it as the report does."""
        lasts = f" for {self.seconds:.0f} s" if self.seconds else ""
        return f"{self.kind}{f' {self.detail}' if self.detail else ''}{lasts}"


def plan(seed: int, seconds: float) -> list[Fault]:
    """Return the faults of a run of so many seconds, in order. The same seed gives the same faults."""
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be unguessable
    deck: list[Kind] = []
    found: list[Fault] = []
    at = chance.uniform(*PAUSE_SECONDS)
    while True:
        if not deck:
            deck = list(Kind)
            chance.shuffle(deck)
        kind = deck.pop()
        lasts = chance.uniform(*LAST_SECONDS[kind])
        detail = _detail(kind, chance)
        if at + lasts > seconds:
            return found
        found.append(Fault(len(found) + 1, kind, at, lasts, detail))
        at += lasts + chance.uniform(*PAUSE_SECONDS)


def _detail(kind: Kind, chance: random.Random) -> str:
    match kind:
        case Kind.KILLED:
            return chance.choice(VICTIMS)
        case Kind.SLOW_LINK:
            return f"{chance.uniform(*DELAY_SECONDS):.1f}"
        case Kind.CLOCK:
            return f"{chance.choice([jump for jump in range(*JUMP_SECONDS) if abs(jump) > 60]):+d}"
        case Kind.POSTGRES:
            return chance.choice(["kill -9", "shutdown"])
        case _:
            return ""
