"""Back-off of a technical workflow that failed, and when its next tick is. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from midsource.model.schedule import Plan

BACK_OFF_FIRST_SECONDS = 2
"""After the first failure: as a rule a database or a web process was started anew, and answers by then."""
BACK_OFF_BASE_SECONDS = 30
BACK_OFF_MAX_SECONDS = 3600
"""After n > 1 failures in a row the next try waits 30 s × 2^(n-2), an hour at most: a broken thing is not hammered, and is
found mended within the hour."""


def second_tick(plan: Plan, since: datetime) -> datetime | None:
    """Return the second tick after ``since``: without a success by then a workflow is late. None where there is none."""
    first = plan.next_tick(since)
    return None if first is None else plan.next_tick(first)


def back_off(failures: int) -> timedelta:
    """Return how long to wait before the next try after ``failures`` in a row (0: not at all)."""
    if failures <= 0:
        return timedelta(0)
    if failures == 1:
        return timedelta(seconds=BACK_OFF_FIRST_SECONDS)
    return timedelta(seconds=min(BACK_OFF_MAX_SECONDS, BACK_OFF_BASE_SECONDS * 2 ** min(failures - 2, 10)))
