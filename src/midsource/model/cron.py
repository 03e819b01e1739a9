"""The five fields of cron as times of the day and days: minute, hour, day of the month, month, day of the week.

Each field is a list of numbers, ranges and steps (``*/10``, ``9-17``, ``1,15``, ``10-50/20``); months and days of the week may be
names (``mon-fri``); Sunday is 0 or 7; ``L`` is the last day of the month. Where both day fields are restricted one of them is
enough, as in every cron; ``*`` restricts nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from midsource.model.calendar import LAST_DAY, Days, Times
from midsource.model.errors import UserError

FIELDS = 5
_REMEDY = "write five cron fields, as in '*/10 * * * *'"
_MONTHS = {
    name: n
    for n, name in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1)
}
_WEEK = {name: n for n, name in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])}
_PART = re.compile(r"(\*|([a-z0-9]{1,3})(?:-([a-z0-9]{1,3}))?)(?:/(\d{1,3}))?")
_LONGEST = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def parse(text: str) -> Times:
    """Return the times that five fields in lower case mean. Raises UserError naming the field that is wrong."""
    minute, hour, day, month, week = text.split()
    minutes = _numbers("minute", minute, 0, 59)
    hours = _numbers("hour", hour, 0, 23)
    months = _numbers("month", month, 1, 12, _MONTHS)
    month_days = _month_days(day)
    week_days = {(number - 1) % 7 for number in _numbers("day of the week", week, 0, 7, _WEEK)}
    either = day != "*" and week != "*"
    days = Days(frozenset(months), frozenset(month_days), frozenset(week_days), either)
    if not either and not any(number <= _LONGEST[at] for number in month_days for at in months):
        raise UserError(f"'{text}' never comes: those months have no such day", _REMEDY)
    every_hour = len(hours) == 24
    return Times(tuple(at * 60 + m for at in sorted(hours) for m in sorted(minutes)), days, hourly=every_hour)


def _month_days(text: str) -> set[int]:
    parts = text.split(",")
    rest = [part for part in parts if part != "l"]
    found = _numbers("day of the month", ",".join(rest), 1, 31) if rest else set()
    return found | {LAST_DAY} if len(rest) < len(parts) else found


def _numbers(field: str, text: str, low: int, high: int, names: Mapping[str, int] | None = None) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise UserError(f"{part[:20]!r} is not a {field} of cron", _REMEDY)
        step = int(match[4] or 1)
        begin = low if match[1] == "*" else _number(field, match[2], low, high, names)
        end = high if match[1] == "*" or match[4] else begin
        if match[3]:
            end = _number(field, match[3], low, high, names)
        if step < 1 or begin > end:
            raise UserError(f"{part[:20]!r} is not a {field} of cron", _REMEDY)
        found.update(range(begin, end + 1, step))
    return found


def _number(field: str, text: str, low: int, high: int, names: Mapping[str, int] | None) -> int:
    value = int(text) if text.isdecimal() else (names or {}).get(text, -1)
    if not low <= value <= high:
        raise UserError(f"{text!r} is not a {field} of cron", f"it is {low} to {high}; {_REMEDY}")
    return value
