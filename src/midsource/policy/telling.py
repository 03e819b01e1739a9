"""When a supervisor is told: at once, or with the digest after quiet hours; and when again after a failure. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from midsource.model.finding import Severity

FIRST_PAUSE = timedelta(minutes=5)
"""A look of the doctor: nobody comes by earlier."""
LONGEST_PAUSE = timedelta(hours=6)
GIVES_UP_AFTER = timedelta(days=1)
"""What was not told within a day is old news; the supervisor's own failure is a finding long before."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """Hours in which only what is critical is told; the rest comes with the digest. ``start`` None: no quiet hours.

    ``digest`` None: when the quiet hours end. Hours are of the wall clock in ``zone`` (an IANA name) and may pass midnight.
    """

    start: time | None = None
    end: time | None = None
    digest: time | None = None
    zone: str = "UTC"


def due(quiet: Quiet, severity: Severity, at: datetime) -> tuple[datetime, bool]:
    """Return when something that happened at ``at`` is told, and whether that is in a digest."""
    if quiet.start is None or quiet.end is None or severity is Severity.CRITICAL:
        return at, False
    zone = ZoneInfo(quiet.zone)
    local = at.astimezone(zone)
    if not _within(local.time(), quiet.start, quiet.end):
        return at, False
    digest = quiet.digest or quiet.end
    day = local.date() if local.time().replace(tzinfo=None) < digest else local.date() + timedelta(days=1)
    return datetime.combine(day, digest, zone).astimezone(at.tzinfo), True


def again(tries: int) -> timedelta:
    """Return how long to wait after ``tries`` in vain: 5 min, 10, 20, … 6 h at most."""
    doublings: int = 2 ** min(max(tries - 1, 0), 10)
    return min(LONGEST_PAUSE, FIRST_PAUSE * doublings)


def _within(moment: time, start: time, end: time) -> bool:
    if start <= end:
        return start <= moment < end
    return moment >= start or moment < end
