"""Wall-clock times of a zone and the moments they mean: the arithmetic below schedules. Pure, to the minute.

In the hour that a clock change skips, whatever was due in it is due once, at the first moment after it. In the hour that comes
twice a time is due once, at its first coming; only what is due in every hour of the day anyway goes on through both, because
a counter that is read every ten minutes must not stand still for an hour.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

DAY_MINUTES = 24 * 60
LAST_DAY = 0
"""Stands for the last day of a month among its days."""
HORIZON_DAYS = 9 * 366
"""29 February comes again within eight years, also over 2100: what does not come within this never comes."""
LONGEST_OVERLAP = timedelta(hours=3)
"""Clocks are set back by an hour, by 30 minutes on Lord Howe, by two hours in Antarctica."""
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Days:
    """Which days: the month is one of ``months``, and the day one of ``month_days`` and of ``week_days`` (Monday 0).

    ``either``: one of the two is enough, as cron has it where both are restricted.
    """

    months: frozenset[int] = frozenset(range(1, 13))
    month_days: frozenset[int] = frozenset(range(1, 32))
    week_days: frozenset[int] = frozenset(range(7))
    either: bool = False

    def has(self, day: date) -> bool:
        """Tell whether ``day`` is one of them."""
        if day.month not in self.months:
            return False
        by_month = day.day in self.month_days or (LAST_DAY in self.month_days and _is_last(day))
        by_week = day.weekday() in self.week_days
        return by_month or by_week if self.either else by_month and by_week


@dataclass(frozen=True, slots=True)
class Times:
    """Times that come again: ``minutes`` of the day, in order, on certain ``days``. ``hourly``: due in every hour of the day."""

    minutes: tuple[int, ...]
    days: Days = Days()
    hourly: bool = False

    def within(self, hours: Hours) -> Times:
        """Return those of them that lie within ``hours``."""
        return replace(self, minutes=tuple(minute for minute in self.minutes if hours.has(clock(minute))))

    def after(self, moment: datetime, zone: ZoneInfo) -> datetime | None:
        """Return the first of them strictly after ``moment``, in UTC; None where none comes within nine years."""
        begin = moment.astimezone(zone).replace(tzinfo=None)
        if self.hourly and _changes(moment, zone):
            begin -= LONGEST_OVERLAP
        best: datetime | None = None
        for naive in self._from(begin):
            first = place(naive, zone)
            if best is not None and first >= best:
                return best
            for candidate in (first, _again(naive, zone) if self.hourly else first):
                if candidate > moment and (best is None or candidate < best):
                    best = candidate
        return best

    def _from(self, begin: datetime) -> Iterator[datetime]:
        """Yield wall-clock times after ``begin`` in order, for nine years."""
        day, minute = begin.date(), begin.hour * 60 + begin.minute
        for _ in range(HORIZON_DAYS):
            if self.days.has(day):
                for due in self.minutes[bisect_right(self.minutes, minute) :]:
                    yield datetime.combine(day, clock(due))
            day, minute = day + timedelta(days=1), -1


@dataclass(frozen=True, slots=True)
class Hours:
    """A range of the day, from ``start`` to before ``end``; it may cross midnight."""

    start: time
    end: time

    def __str__(self) -> str:
        """Return it as an operator writes it: ``22:00-06:00``."""
        return f"{self.start:%H:%M}-{self.end:%H:%M}"

    def has(self, moment: time) -> bool:
        """Tell whether a time of the day lies in it."""
        if self.start < self.end:
            return self.start <= moment < self.end
        return moment >= self.start or moment < self.end


def clock(minute: int) -> time:
    """Return a minute of the day as a time."""
    return time(minute // 60, minute % 60)


def place(naive: datetime, zone: ZoneInfo) -> datetime:
    """Return the moment, in UTC, that a wall-clock time means: see the module for times that are skipped or come twice."""
    first = naive.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if first.astimezone(zone).replace(tzinfo=None) == naive:
        return first
    low, high = naive.replace(tzinfo=zone, fold=1).astimezone(UTC), first  # the change lies between the two readings
    before = low.astimezone(zone).utcoffset()
    while high - low > _SECOND:
        middle = low + (high - low) // 2
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high.replace(microsecond=0)


def _again(naive: datetime, zone: ZoneInfo) -> datetime:
    """Return the second coming of a wall-clock time; its only one where there is one, or where it is skipped."""
    second = naive.replace(tzinfo=zone, fold=1).astimezone(UTC)
    return second if second.astimezone(zone).replace(tzinfo=None) == naive else place(naive, zone)


def _changes(moment: datetime, zone: ZoneInfo) -> bool:
    before, after = (moment + step for step in (-LONGEST_OVERLAP, LONGEST_OVERLAP))
    return before.astimezone(zone).utcoffset() != after.astimezone(zone).utcoffset()


def _is_last(day: date) -> bool:
    return (day + timedelta(days=1)).day == 1
