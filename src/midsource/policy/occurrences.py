"""Recurring deliveries: what becomes of a tick, pure.

A tick makes one delivery. Ticks that were missed (nothing ran) are made up by one, the last. While as many as allowed
are still open, a tick is left out and said.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from midsource.model.schedule import Plan

MAX_MISSED = 1_000
"""Missed ticks walked over; a schedule of every minute that slept for a month goes on from now."""
MAX_LABEL = 200


@dataclass(frozen=True, slots=True)
class Decision:
    """``tick``: make the delivery of this tick; None: make none, ``why`` says so. ``next_at`` None: no tick comes any more."""

    tick: datetime | None
    next_at: datetime | None
    missed: int = 0
    why: str = ""


def decide(plan: Plan, due: datetime, now: datetime, still_open: int, most_open: int) -> Decision:
    """Decide about the tick that was due at ``due``; not later than ``now``."""
    last, missed = due, 0
    for _ in range(MAX_MISSED):
        following = plan.next_tick(last)
        if following is None or following > now:
            break
        last, missed = following, missed + 1
    next_at = plan.next_tick(now)
    if still_open >= most_open:
        return Decision(None, next_at, missed, f"{still_open} of it are still open, {most_open} may be")
    return Decision(last, next_at, missed)


def label_of(label: str, tick: datetime, plan: Plan) -> str:
    """Return the label of the delivery of one tick: the recurring one's, with the date and time in the schedule's zone."""
    dated = f" {tick.astimezone(plan.zone):%Y-%m-%d %H:%M}"
    return label[: MAX_LABEL - len(dated)] + dated
