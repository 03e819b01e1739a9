"""When a technical workflow is due: cron in a named zone, pure.

In the hour that a clock change skips, a tick runs once right after it; in the hour that comes twice, it runs once.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter
from croniter.croniter import CroniterError

from midsource.model.errors import UserError

BACK_OFF_FIRST_SECONDS = 2
"""After the first failure: as a rule a database or a web process was started anew, and answers by then."""
BACK_OFF_BASE_SECONDS = 30
BACK_OFF_MAX_SECONDS = 3600
"""After n > 1 failures in a row the next try waits 30 s × 2^(n-2), an hour at most: a broken thing is not hammered, and is
found mended within the hour."""


def check_schedule(schedule: str, zone: str) -> None:
    """Raise UserError unless ``schedule`` is cron of five fields and ``zone`` an IANA zone."""
    if len(schedule.split()) != 5 or not croniter.is_valid(schedule):
        raise UserError(f"{schedule!r} is not a schedule", "write five cron fields, as in '*/10 * * * *'")
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as exc:
        raise UserError(f"{zone!r} is not a time zone", "use an IANA name, as in Europe/Paris") from exc


def next_tick(schedule: str, zone: str, after: datetime) -> datetime:
    """Return the first tick strictly after ``after``, in UTC. Raises UserError for a broken schedule."""
    check_schedule(schedule, zone)
    local_zone = ZoneInfo(zone)
    # Walk in naive local time, so that the schedule means the wall clock, then place the result in the zone.
    naive = after.astimezone(local_zone).replace(tzinfo=None)
    try:
        walker = croniter(schedule, naive)
        for _ in range(4):  # at most one hour repeats: two candidates can lie in the past of `after`
            candidate = walker.get_next(datetime).replace(tzinfo=local_zone, fold=0)
            moment = _after_gap(candidate).astimezone(UTC)
            if moment > after:
                return moment
    except CroniterError as exc:
        raise UserError(f"{schedule!r} has no next tick", "write five cron fields, as in '*/10 * * * *'") from exc
    return after.astimezone(UTC) + timedelta(hours=1)


def back_off(failures: int) -> timedelta:
    """Return how long to wait before the next try after ``failures`` in a row (0: not at all)."""
    if failures <= 0:
        return timedelta(0)
    if failures == 1:
        return timedelta(seconds=BACK_OFF_FIRST_SECONDS)
    return timedelta(seconds=min(BACK_OFF_MAX_SECONDS, BACK_OFF_BASE_SECONDS * 2 ** min(failures - 2, 10)))


def _after_gap(local: datetime) -> datetime:
    """Move a wall time that the zone skips to the first moment after the gap."""
    there_and_back = local.astimezone(UTC).astimezone(local.tzinfo)
    return local if there_and_back.replace(tzinfo=None) == local.replace(tzinfo=None) else there_and_back
