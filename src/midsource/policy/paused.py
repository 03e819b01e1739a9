"""What becomes of a technical workflow that somebody paused and forgot: warned about, weekly, then ended. Pure.

As the field does it (spec/midsourcing 4.6): the first warning after seven days, one a week, and after four of them it is stopped. That is
about a month, and nobody can have missed it: until then everything it would do is not done.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

WARNINGS = 4
EVERY = timedelta(days=7)
EARLY = timedelta(hours=12)
"""The workflow that warns runs weekly, late by a restart or early by a clock change: so much is the same week."""


class Fate(StrEnum):
    """What is due."""

    NOTHING = "nothing"
    WARN = "warn"
    END = "end"


def judge(paused_at: datetime, warnings: int, warned_at: datetime | None, period: timedelta, now: datetime) -> Fate:
    """Say what is due for a workflow paused since ``paused_at``; ``period``: how long it may be without a word."""
    if now - paused_at < period:
        return Fate.NOTHING
    if warned_at is not None and now - warned_at < EVERY - EARLY:
        return Fate.NOTHING
    return Fate.WARN if warnings < WARNINGS else Fate.END
