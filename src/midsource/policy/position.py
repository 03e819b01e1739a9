"""A pointer's position as a person reads and writes it: ISO 8601 with its zone. Pure.

Two readers with different manners: ``parse`` is for the door (console, command line) and refuses what is not certain;
``read_by_hand`` is for a text that was written into the table behind our back, where refusing means losing what the
operator wanted, so what can be meant is clamped and said.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone

from midsource.model.errors import UserError

ACCEPTED = "write a time with its zone, as in 2026-03-01T12:00:00+00:00 or 2026-03-01T12:00Z"
EARLIEST_ZONE = timezone(timedelta(hours=14))
"""A time without zone, found in the table, is read as the earliest moment it can mean: nothing is skipped by a guess."""
OLDEST = datetime(1990, 1, 1, tzinfo=UTC)
"""No mid-sourcing server has results from before: an older value is a typing error."""


def show(moment: datetime) -> str:
    """Write a position as the option shows it."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def parse(text: str) -> datetime:
    """Read a position typed by a person; a bare date is the start of that day in UTC. Raises UserError with the form."""
    value = text.strip()
    try:
        moment = datetime.combine(date.fromisoformat(value), time(), UTC) if len(value) == 10 else _moment(value)
    except (ValueError, OverflowError) as exc:
        raise UserError(f"{text[:80]!r} is not a time", ACCEPTED) from exc
    if moment.tzinfo is None:
        raise UserError(f"{text[:80]!r} has no time zone, so it is not certain which moment it means", ACCEPTED)
    if moment < OLDEST:
        raise UserError(f"{text[:80]!r} lies before any result of a mid", ACCEPTED)
    return moment


def read_by_hand(written: str, now: datetime) -> tuple[datetime | None, str]:
    """Read what was written into the table: the moment (None: it cannot be read) and what is to be said about it."""
    try:
        moment = parse(written)
    except UserError as exc:
        try:
            moment = datetime.fromisoformat(written.strip()).replace(tzinfo=EARLIEST_ZONE).astimezone(UTC)
        except (ValueError, OverflowError):
            return None, exc.cause
        if moment < OLDEST:
            return None, exc.cause
        return min(moment, now), f"{exc.cause}; read as {show(min(moment, now))}, the earliest it can mean"
    if moment > now:
        return now, f"{written[:80]!r} lies in the future; taken as now, {show(now)}"
    return moment, ""


def _moment(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo is None else moment.astimezone(UTC)
