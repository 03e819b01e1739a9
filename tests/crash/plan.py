"""What is killed when, in each round: drawn from the seed, and from nothing else, so a run can be repeated.

A *strike* kills one kind of process at a point of the delivery, and a point is progress (a share of what the phase does),
never wall time alone. The first strike of each round comes off a shuffled deck of every kind in every phase, so a long
run meets each of these several times; further strikes are drawn freely.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What is killed, by the name `ps` has for it where it has one."""

    MARKETING_WORKER = "worker@marketing"
    MARKETING_WEB = "web@marketing"
    MID_WEB = "web@mid1"
    MID_WORKER = "worker@mid1"
    MTA = "mta@mid1"
    SUPERVISOR = "supervisor"  # then `up` again, as an operator would
    POSTGRES = "postgres"  # the postmaster, kill -9
    POSTGRES_RESTART = "postgres restart"  # the postmaster is asked for a fast shutdown; its holder starts it again
    POSTGRES_BACKEND = "postgres backend"  # kill -9 of one session: the server throws all sessions out and recovers
    POSTGRES_HOLDER = "postgres holder"  # the process of ours that owns the server


class Phase(StrEnum):
    """Where a delivery is, in order."""

    PREPARING = "preparing"
    HANDING_OVER = "handing over"
    SENDING = "sending"
    LOG_RETURN = "log return"
    FINISHING = "finishing"


PHASES = tuple(Phase)
SECOND_STRIKE, THIRD_STRIKE, TOGETHER, RESEND = 0.4, 0.1, 0.3, 0.2
"""Chances: of more strikes in a round, of one at the very moment of the one before, of the policy *resend*."""
JITTER_SECONDS = 0.15
"""Drawn beside the point: most steps end in a commit, and the moment between two commits must be met as well."""


@dataclass(frozen=True, slots=True)
class Strike:
    """Kill ``kind`` when ``share`` of ``phase`` is done and ``jitter_seconds`` have passed; ``together``: at once."""

    kind: Kind
    phase: Phase
    share: float
    jitter_seconds: float
    together: bool = False

    def __str__(self) -> str:
        """Say it as the report does."""
        return f"{self.kind} at {self.share:.0%} of {self.phase}" + (" (together)" if self.together else "")


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """One round: its number from 1, its strikes in order, and what happens to uncertain messages."""

    number: int
    strikes: tuple[Strike, ...]
    policy: str = "hold"


def plan(seed: int, rounds: int) -> list[RoundPlan]:
    """Return the rounds of a run. The same seed gives the same rounds, and a longer run begins with the shorter one."""
    deck: list[tuple[Kind, Phase]] = []
    cards = random.Random(f"{seed} deck")
    plans = []
    for number in range(1, rounds + 1):
        if not deck:
            deck = [(kind, phase) for kind in Kind for phase in Phase]
            cards.shuffle(deck)
        plans.append(_round(number, *deck.pop(), random.Random(f"{seed} {number}")))
    return plans


def _round(number: int, kind: Kind, phase: Phase, chance: random.Random) -> RoundPlan:
    strikes = [_strike(kind, phase, chance)]
    more = 1 + (chance.random() < THIRD_STRIKE / SECOND_STRIKE) if chance.random() < SECOND_STRIKE else 0
    for _ in range(more):
        another = chance.choice([other for other in Kind if other not in {strike.kind for strike in strikes}])
        later = chance.choice(PHASES[PHASES.index(strikes[-1].phase) :])
        strikes.append(_strike(another, later, chance, together=chance.random() < TOGETHER))
    policy = "resend" if chance.random() < RESEND else "hold"
    return RoundPlan(number, tuple(strikes), policy)


def _strike(kind: Kind, phase: Phase, chance: random.Random, *, together: bool = False) -> Strike:
    share = chance.uniform(0.02, 0.98)
    return Strike(kind, phase, share, 0.0 if together else chance.uniform(0, JITTER_SECONDS), together)
