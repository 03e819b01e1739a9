"""When a process is started, stopped and started again: pure, for the supervisor's children and for PostgreSQL's holder.

A process that lived ``STEADY_SECONDS`` was well: its next start is ``FIRST_SECONDS`` away. One that keeps falling over
waits twice as long each time, up to ``LONGEST_SECONDS``, and is never given up: its cause (a full disk, a database that is
down) usually goes away by itself, and the operator sees it failing meanwhile. All others wait for PostgreSQL: it waits no longer than
``POSTGRES_LONGEST_SECONDS``.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 60.0
POSTGRES_LONGEST_SECONDS = 8.0
"""A try costs a second of one core; whoever shut the server down four times within a minute was made to wait for a minute."""
STEADY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often in a row a process ended early, and how often in all."""

    in_a_row: int = 0
    total: int = 0

    def after(self, lived_seconds: float) -> Restarts:
        """Return the count after one more life of that length."""
        return Restarts(1 if lived_seconds >= STEADY_SECONDS else self.in_a_row + 1, self.total + 1)

    def delay_seconds(self, longest: float = LONGEST_SECONDS) -> float:
        """Return how long to wait before the next start: 0 before the first, then 1, 2, 4 ... up to ``longest``."""
        if self.in_a_row == 0:
            return 0.0
        return float(min(longest, FIRST_SECONDS * 2 ** min(self.in_a_row - 1, 10)))


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known of one process: is it wanted, does it run, is it to be replaced, when and how did it end."""

    wanted: bool
    running: bool
    replace: bool = False
    ended_at: float = 0.0  # boot seconds
    restarts: Restarts = Restarts()


@dataclass(frozen=True, slots=True)
class Start:
    """Start it now."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop it now."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing to do for so many seconds; None: until something happens."""

    seconds: float | None = None


def next_step(situation: Situation, now: float) -> Start | Stop | Rest:
    """Return what to do at boot second ``now``."""
    if situation.running:
        return Rest() if situation.wanted and not situation.replace else Stop()
    if not situation.wanted:
        return Rest()
    due = situation.ended_at + situation.restarts.delay_seconds()
    return Start() if situation.replace or now >= due else Rest(due - now)
