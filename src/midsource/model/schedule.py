"""When a technical workflow is due: one text that operators read and type, and the plan around it. Pure.

    every 10 minutes · every hour · every 6 hours      counted from the full hour, from midnight
    daily at 04:00, 16:00
    weekly on monday, friday at 05:00
    monthly on 25, last day at 02:00                    a month that has no such day is passed over
    once at 2026-12-01 10:00
    */10 * * * *                                        cron: minute, hour, day, month, weekday

``str`` of a parsed schedule is the same schedule in one spelling. A *plan* is a schedule in a named IANA zone, with a validity
(from, to, runs left) and a range of the day in which it may begin. A tick found late is made up once where its range
allows it now, and skipped where it does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from midsource.model import cron
from midsource.model.calendar import DAY_MINUTES, LAST_DAY, Days, Hours, Times, clock, place
from midsource.model.errors import UserError

FORMS = (
    "write 'every 10 minutes', 'daily at 04:00, 16:00', 'weekly on monday at 05:00', 'monthly on 25 at 02:00', "
    "'once at 2026-12-01 10:00', or five cron fields"
)
WEEK = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MAX_TEXT = 200
"""Characters of a schedule: a dozen times of the day, in any form."""
MAX_TIMES = 48
"""Times of the day in one schedule; more is a period."""
ON_TIME = timedelta(seconds=60)
"""The leader looks each second; a tick found later than this was missed by somebody."""
SHOWN_TICKS = 5

_LIST = r"(.+?)"
_EVERY = re.compile(r"every (?:(\d{1,4}) )?(minutes?|hours?)")
_DAILY = re.compile(rf"daily at {_LIST}")
_WEEKLY = re.compile(rf"weekly on {_LIST} at {_LIST}")
_MONTHLY = re.compile(rf"monthly on {_LIST} at {_LIST}")
_ONCE = re.compile(r"once at (\d{4}-\d{2}-\d{2})[ t](\d{1,2}:\d{2})")
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class Schedule:
    """When something is due, in wall-clock time: at ``times`` again and again, or at ``moment`` once."""

    text: str
    times: Times | None = None
    moment: datetime | None = None

    def __str__(self) -> str:
        """Return the one spelling of it."""
        return self.text

    @property
    def is_hourly(self) -> bool:
        """Whether it is due in every hour of the day."""
        return self.times is not None and self.times.hourly

    def next_tick(self, after: datetime, zone: ZoneInfo, hours: Hours | None = None) -> datetime | None:
        """Return the first tick strictly after ``after`` in UTC, of those within ``hours``; None where none comes any more."""
        if self.times is not None:
            return (self.times.within(hours) if hours else self.times).after(after, zone)
        assert self.moment is not None
        due = place(self.moment, zone)
        return due if due > after and (hours is None or hours.has(self.moment.time())) else None


class Late(StrEnum):
    """What becomes of a tick when it is found."""

    RUN = "run"
    MADE_UP = "made up"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Plan:
    """A schedule with everything that bounds it; ``runs_left`` None: any number."""

    schedule: Schedule
    zone: ZoneInfo
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    runs_left: int | None = None
    hours: Hours | None = None

    def next_tick(self, after: datetime) -> datetime | None:
        """Return the first tick strictly after ``after``, in UTC; None where none comes any more."""
        if self.runs_left == 0:
            return None
        if self.valid_from is not None:
            after = max(after, self.valid_from - timedelta(microseconds=1))
        due = self.schedule.next_tick(after, self.zone, self.hours)
        return None if due is None or (self.valid_to is not None and due >= self.valid_to) else due

    def next_ticks(self, after: datetime, count: int = SHOWN_TICKS) -> list[datetime]:
        """Return the next ticks, ``count`` at most: what is shown before a schedule is saved."""
        if self.runs_left is not None:
            count = min(count, self.runs_left)
        return list(self._ticks(after, count))

    def _ticks(self, after: datetime, count: int) -> Iterator[datetime]:
        for _ in range(count):
            due = self.next_tick(after)
            if due is None:
                return
            yield due
            after = due

    def late(self, due: datetime, now: datetime) -> Late:
        """Say what becomes of the tick of ``due`` that is found at ``now``; of several missed ones only the last is asked."""
        if now - due <= ON_TIME:
            return Late.RUN
        return Late.MADE_UP if self.allows(now) else Late.SKIPPED

    def allows(self, now: datetime) -> bool:
        """Tell whether a run may begin at ``now``, by the validity and the range of the day."""
        if (self.valid_from and now < self.valid_from) or (self.valid_to and now >= self.valid_to):
            return False
        return self.hours is None or self.hours.has(now.astimezone(self.zone).time())

    def opens(self, now: datetime) -> datetime | None:
        """Return the first moment from ``now`` on at which a run may begin, ``now`` itself where it may; None: its validity is over."""
        moment = now if self.valid_from is None else max(now, self.valid_from)
        if self.hours is not None and not self.hours.has(moment.astimezone(self.zone).time()):
            opening = Times((self.hours.start.hour * 60 + self.hours.start.minute,)).after(moment, self.zone)
            assert opening is not None, "each day has one"
            moment = opening
        return None if self.valid_to is not None and moment >= self.valid_to else moment

    def why_over(self, now: datetime) -> str:
        """Say why no tick comes any more; '' where one comes."""
        if self.runs_left == 0:
            return "its number of runs is used up"
        if self.next_tick(now) is not None:
            return ""
        if self.valid_to is not None and self.valid_to <= now:
            return f"its validity ended at {self.valid_to.astimezone(self.zone):%Y-%m-%d %H:%M}"
        return f"no time of '{self.schedule}' comes any more" + (" before its validity ends" if self.valid_to else "")


def plan(
    text: str,
    zone: str = "UTC",
    *,
    valid_from: datetime | None = None,
    valid_to: datetime | None = None,
    runs_left: int | None = None,
    hours: str = "",
) -> Plan:
    """Return a plan of what an operator typed or a row holds. Raises UserError, each with the accepted form."""
    schedule, place_, between = parse(text), parse_zone(zone), parse_hours(hours) if hours else None
    if valid_from is not None and valid_to is not None and valid_from >= valid_to:
        raise UserError("the validity ends before it begins", "let --from be earlier than --to")
    if runs_left is not None and runs_left < 0:
        raise UserError(f"{runs_left} runs left cannot be", "give a number of runs, or leave it out")
    if between is not None:
        _refuse_empty(schedule, between)
    return Plan(schedule, place_, valid_from, valid_to, runs_left, between)


@lru_cache(maxsize=256)
def parse(text: str) -> Schedule:
    """Return the schedule that ``text`` means, in any spelling. Raises UserError naming the accepted forms."""
    plain = " ".join(text.lower().split())
    if len(plain) > MAX_TEXT:
        raise UserError(f"a schedule of {len(plain)} characters is too long", f"{MAX_TEXT} are allowed")
    if match := _EVERY.fullmatch(plain):
        return _every(int(match[1] or 1), match[2].rstrip("s"))
    if match := _DAILY.fullmatch(plain):
        times = _clocks(match[1])
        return Schedule(f"daily at {_said(times)}", Times(times))
    if match := _WEEKLY.fullmatch(plain):
        days, times = _week_days(match[1]), _clocks(match[2])
        return Schedule(
            f"weekly on {', '.join(WEEK[day] for day in days)} at {_said(times)}",
            Times(times, Days(week_days=frozenset(days))),
        )
    if match := _MONTHLY.fullmatch(plain):
        days, times = _month_days(match[1]), _clocks(match[2])
        said = ", ".join("last day" if day == LAST_DAY else str(day) for day in days)
        return Schedule(f"monthly on {said} at {_said(times)}", Times(times, Days(month_days=frozenset(days))))
    if match := _ONCE.fullmatch(plain):
        return _once(match[1], match[2])
    if len(plain.split()) == cron.FIELDS:
        return Schedule(plain, cron.parse(plain))
    raise UserError(f"{text[:80]!r} is not a schedule", FORMS)


def parse_zone(name: str) -> ZoneInfo:
    """Return an IANA zone. Raises UserError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:  # OSError: a folder of the zone files
        raise UserError(f"{name[:80]!r} is not a time zone", "use an IANA name, as in Europe/Paris") from exc


def parse_hours(text: str) -> Hours:
    """Return a range of the day, ``22:00-06:00``. Raises UserError."""
    start, _, end = (piece.strip() for piece in text.partition("-"))
    if not _CLOCK.fullmatch(start) or not _CLOCK.fullmatch(end) or _minute(start) == _minute(end):
        raise UserError(f"{text[:40]!r} is not a range of the day", "write it as in 22:00-06:00")
    return Hours(clock(_minute(start)), clock(_minute(end)))


def parse_moment(text: str, zone: ZoneInfo) -> datetime:
    """Return a bound of a validity: ``2026-12-01``, ``2026-12-01 10:00`` in ``zone``, or a time with its own offset. Raises UserError."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as exc:
        raise UserError(f"{text[:40]!r} is not a time", "write it as in '2026-12-01 10:00'") from exc
    return moment if moment.tzinfo else place(moment, zone)


def _every(number: int, unit: str) -> Schedule:
    """Return a period that divides its hour or its day, so that it means the same in each of them."""
    whole = 60 if unit == "minute" else 24
    if number < 1 or (whole % number and number != whole):
        fitting = ", ".join(str(n) for n in range(1, whole) if whole % n == 0)
        raise UserError(
            f"every {number} {unit}s does not come out even", f"take one of {fitting} {unit}s, or name the times"
        )
    if unit == "minute" and number == whole:
        number, unit = 1, "hour"
    step = number * (1 if unit == "minute" else 60)
    text = f"every {unit}" if number == 1 else f"every {number} {unit}s"
    return Schedule(text, Times(tuple(range(0, DAY_MINUTES, step)), hourly=step <= 60))


def _once(day: str, at: str) -> Schedule:
    try:
        moment = datetime.fromisoformat(f"{day} {at.zfill(5)}")
    except ValueError as exc:
        raise UserError(f"{day} {at} is not a time", "write it as in 'once at 2026-12-01 10:00'") from exc
    return Schedule(f"once at {moment:%Y-%m-%d %H:%M}", moment=moment)


def _clocks(text: str) -> tuple[int, ...]:
    pieces = [piece.strip() for piece in text.split(",")]
    for piece in pieces:
        if not _CLOCK.fullmatch(piece):
            raise UserError(f"{piece[:20]!r} is not a time of the day", "write it as in 04:00")
    if len(pieces) > MAX_TIMES:
        raise UserError(
            f"{len(pieces)} times a day are too many", f"{MAX_TIMES} are allowed; or write 'every 10 minutes'"
        )
    return tuple(sorted({_minute(piece) for piece in pieces}))


def _week_days(text: str) -> list[int]:
    found = set()
    for piece in (piece.strip() for piece in text.split(",")):
        fitting = [number for number, name in enumerate(WEEK) if len(piece) >= 3 and name.startswith(piece)]
        if not fitting:
            raise UserError(f"{piece[:20]!r} is not a day of the week", f"the days are {', '.join(WEEK)}")
        found.update(fitting)
    return sorted(found)


def _month_days(text: str) -> list[int]:
    found = set()
    for piece in (piece.strip() for piece in text.split(",")):
        if piece in ("last day", "last"):
            found.add(LAST_DAY)
        elif piece.isdecimal() and 1 <= int(piece) <= 31:
            found.add(int(piece))
        else:
            raise UserError(f"{piece[:20]!r} is not a day of the month", "write 1 to 31, or 'last day'")
    return sorted(found, key=lambda day: day or 32)


def _minute(text: str) -> int:
    hour, _, minute = text.partition(":")
    return int(hour) * 60 + int(minute)


def _said(minutes: Sequence[int]) -> str:
    return ", ".join(f"{clock(minute):%H:%M}" for minute in minutes)


def _refuse_empty(schedule: Schedule, hours: Hours) -> None:
    """Raise UserError for a range of the day that no tick of the schedule lies in."""
    times: Sequence[time] = (
        [clock(minute) for minute in schedule.times.minutes]
        if schedule.times
        else [schedule.moment.time()]
        if schedule.moment
        else []
    )
    if not any(hours.has(moment) for moment in times):
        raise UserError(f"no time of '{schedule}' lies between {hours}", "change the times or the range")
