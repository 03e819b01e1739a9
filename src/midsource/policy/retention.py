"""Which of a mid's results may be forgotten, and which expired delivery may be closed with what. Pure.

Results (design 5, "Kept"): a day goes when every account has acknowledged it and the ordinary time has passed; a day that
somebody has not pulled is kept until the stated limit.

Expired deliveries on the marketing side (spec/midsourcing 5, step 3): what the mid never took is cancelled. What it took
may have been sent, so it is cancelled only where the mid's own counters say that nothing else is missing here (F39);
where the mid says nothing any more, it is *uncertain*, and where results are missing it waits for `reconcile`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

GRACE = timedelta(days=15)
"""After the end of validity: results may still be on their way (the field's rule)."""
GIVEN_UP = timedelta(days=75)
"""After the end of validity: the mid has not kept results for longer than 60 days, so nothing will come any more."""
CLOCKS = timedelta(minutes=5)
"""How far the clocks of both halves may be apart where times of both are compared."""


def first_day_kept(today: date, kept: timedelta, unpulled: timedelta, oldest_unpulled: date | None) -> date:
    """Return the first day whose results are kept; all before it may go.

    ``oldest_unpulled``: the oldest day with a batch that an account has not acknowledged, None where there is none.
    """
    ordinary = today - kept
    if oldest_unpulled is not None:
        ordinary = min(ordinary, oldest_unpulled)
    return max(ordinary, today - max(kept, unpulled))


class Closing(StrEnum):
    """What to do with an expired delivery that has open log rows."""

    WAIT = "wait"  # results may still come
    CANCEL = "cancel"  # what is open was never sent
    UNCERTAIN = "uncertain"  # what the mid took may have been sent, and nobody can tell
    MISSING = "missing"  # the mid has results that are not here


@dataclass(frozen=True, slots=True)
class Expired:
    """What is known here about a delivery. ``ended``: the mid says it is over; ``figures``: its counters, by state label.

    ``ours``: the log's rows by the same labels. ``logs_reached_at``: how far the logs were pulled; None: nothing was yet.
    """

    valid_until: datetime
    ended_at: datetime | None
    logs_reached_at: datetime | None
    figures_at: datetime | None
    figures: dict[str, int]
    ours: dict[str, int]


RESULTS = ("sent", "failed", "uncertain")


def closing(expired: Expired, now: datetime) -> Closing:
    """Decide about one expired delivery."""
    if expired.logs_reached_at is None:
        return Closing.WAIT
    pulled = expired.ended_at is not None and expired.logs_reached_at > expired.ended_at + CLOCKS
    if not pulled and now < expired.valid_until + GRACE:
        return Closing.WAIT
    if expired.figures_at is None or not (expired.ended_at or expired.figures_at > expired.valid_until):
        return Closing.UNCERTAIN if now >= expired.valid_until + GRACE else Closing.WAIT
    missing = any(expired.figures.get(name, 0) > expired.ours.get(name, 0) for name in RESULTS)
    still_open = expired.figures.get("pending", 0) + expired.figures.get("deferred", 0)
    if not missing and not still_open:
        return Closing.CANCEL
    return Closing.UNCERTAIN if now >= expired.valid_until + GIVEN_UP else Closing.MISSING
