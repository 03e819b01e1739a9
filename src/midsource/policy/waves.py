"""Waves: a delivery's messages become ready in steps of equal size, a period apart. Pure.

20 % and a day: five waves, on day 0, 1, 2, 3 and 4 after the start; 30 %: 30, 30, 30 and 10 %. A pause does not move later
waves. Nobody is chosen for a wave: it goes by the order of the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from midsource.policy.checks import spoken

MAX_WAVES = 1_000
"""More waves than that make a wave larger than asked for."""
PERIOD_SECONDS = (60, 2_592_000)
"""A minute to thirty days between two waves."""


@dataclass(frozen=True, slots=True)
class Waves:
    """How a delivery is cut: a share of its messages in percent, or a number of them, each ``period_seconds``."""

    percent: int | None
    messages: int | None
    period_seconds: int

    def size(self, total: int) -> int:
        """Return the messages of one wave of a delivery of ``total``, at least one."""
        asked = self.messages or -(-total * (self.percent or 100) // 100)
        return max(1, asked, -(-total // MAX_WAVES))

    def count(self, total: int) -> int:
        """Return how many waves there are."""
        return max(1, -(-total // self.size(total)))

    def __str__(self) -> str:
        """Say it: ``20 % each 1d``."""
        return (
            f"{f'{self.percent} %' if self.percent else f'{self.messages} messages'} each {spoken(self.period_seconds)}"
        )


@dataclass(frozen=True, slots=True)
class Wave:
    """One wave: its number from 1 on, of how many, and when it becomes ready."""

    number: int
    of: int
    at: datetime


def next_wave(waves: Waves, total: int, started_at: datetime, now: datetime) -> Wave | None:
    """Return the wave that becomes ready next after ``now``; None when all are."""
    count, period = waves.count(total), timedelta(seconds=waves.period_seconds)
    gone = 0 if now < started_at else int((now - started_at) / period) + 1
    return None if gone >= count else Wave(gone + 1, count, started_at + gone * period)


def too_late(waves: Waves, total: int, validity_seconds: int) -> str | None:
    """Refuse waves of which the last would begin after the end of validity."""
    count = waves.count(total)
    last = (count - 1) * waves.period_seconds
    if last < validity_seconds:
        return None
    return (
        f"The last of {count} waves would begin {spoken(last)} after the start, and the validity is {spoken(validity_seconds)}: "
        "lengthen it, or make the waves larger or closer together."
    )
