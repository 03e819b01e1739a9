"""When something is full or used up, at the pace of the last 14 days: a straight line from the first to the last of them.

The line is drawn through two daily samples and not fitted: an operator can check it by hand, and a cleanup in between
counts as what it was. Fewer than ``LEAST_DAYS`` between them forecast nothing, and that is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from midsource.policy.sizes import count, size

PACE_DAYS = 14
LEAST_DAYS = 3
"""Two days may be a week-end."""
FARTHEST_DAYS = 3_650
"""What is ten years away is not forecast."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A value at a time. ``most``: where it ends (a disk's free space ends at 0); None: nowhere known."""

    at: datetime
    value: int
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is to be expected of one size or number. ``per_day``: its pace; None: too few samples.

    ``days_left``: until it is full or used up; None: never at this pace, or not known.
    """

    kind: str
    name: str
    value: int
    most: int | None
    per_day: float | None
    days_left: float | None
    full_at: datetime | None
    sentence: str


def forecast(kind: str, name: str, samples: Sequence[Sample]) -> Forecast:
    """Return the forecast of ``samples``, oldest first and at least one. ``kind``: database, relation, disk free, number."""
    last = samples[-1]
    recent = [sample for sample in samples if last.at - sample.at <= timedelta(days=PACE_DAYS)]
    days = (last.at - recent[0].at).total_seconds() / 86_400
    said = count if kind == "number" else size
    if days < LEAST_DAYS:
        sentence = f"{said(last.value)} now; too few days are known for a forecast ({days:.0f} of {LEAST_DAYS})"
        return Forecast(kind, name, last.value, last.most, None, None, None, sentence)
    pace = (last.value - recent[0].value) / days
    left = _left(kind, last, pace)
    at_pace = f"{said(last.value)} now, {'+' if pace >= 0 else '-'}{said(abs(pace))} a day at the pace of the last {days:.0f} days"
    if left is None or left > FARTHEST_DAYS:
        return Forecast(kind, name, last.value, last.most, pace, None, None, at_pace)
    full_at = last.at + timedelta(days=left)
    day = f"{full_at:%Y-%m-%d}"
    end = f"nothing is free on {day}" if kind == "disk free" else f"it is used up on {day}"
    return Forecast(kind, name, last.value, last.most, pace, left, full_at, f"{at_pace}; {end}")


def _left(kind: str, last: Sample, pace: float) -> float | None:
    """Return the days until the end at ``pace``; None where there is none."""
    if kind == "disk free":
        return last.value / -pace if pace < 0 else None
    if last.most is None or pace <= 0:
        return None
    return max(0, last.most - last.value) / pace
