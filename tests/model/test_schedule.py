"""Schedules as texts, and the moments they mean: tables, a slow oracle that walks minute by minute, and cron by another's hand."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from midsource.model.errors import UserError
from midsource.model.schedule import Late, Plan, parse, parse_hours, plan

ZONES = ("UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Sao_Paulo")
CHANGES = (
    "2026-03-29T00:00",
    "2026-10-25T00:00",
    "2026-04-05T00:00",
    "2026-10-04T00:00",
    "2026-03-08T06:00",
    "2026-11-01T05:00",
)
"""Days around which clocks change in one of the zones, and their Sundays."""


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("typed", "canonical"),
    [
        ("every 10 minutes", "every 10 minutes"),
        ("Every  minute", "every minute"),
        ("every 1 minutes", "every minute"),
        ("every 60 minutes", "every hour"),
        ("every 6 hours", "every 6 hours"),
        ("daily at 16:00, 4:00,16:00", "daily at 04:00, 16:00"),
        ("weekly on FRI, monday at 05:00", "weekly on monday, friday at 05:00"),
        ("monthly on 25 at 02:00", "monthly on 25 at 02:00"),
        ("monthly on last day, 1 at 2:00", "monthly on 1, last day at 02:00"),
        ("once at 2026-12-01T10:00", "once at 2026-12-01 10:00"),
        ("*/10 * * * *", "*/10 * * * *"),
    ],
)
def test_a_schedule_has_one_spelling_that_means_itself(typed: str, canonical: str) -> None:
    assert str(parse(typed)) == canonical
    assert parse(canonical) == parse(typed)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("often", "is not a schedule"),
        ("", "is not a schedule"),
        ("* * * * * *", "is not a schedule"),
        ("every 7 minutes", "1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30 minutes"),
        ("every 0 minutes", "does not come out even"),
        ("every 5 hours", "1, 2, 3, 4, 6, 8, 12 hours"),
        ("daily at 24:00", "'24:00' is not a time of the day"),
        ("daily at ,", "is not a time of the day"),
        ("weekly on m at 05:00", "is not a day of the week"),
        ("monthly on 32 at 05:00", "is not a day of the month"),
        ("once at 2026-02-30 10:00", "is not a time"),
        ("61 * * * *", "'61' is not a minute of cron"),
        ("* * * * fun", "'fun' is not a day of the week of cron"),
        ("5-1 * * * *", "is not a minute of cron"),
        ("*/0 * * * *", "is not a minute of cron"),
        ("0 0 30 2 *", "never comes"),
        ("daily at " + ", ".join(["04:00"] * 60), "too long"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_accepted_form(typed: str, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("*", r"\*")):
        parse(typed)


@pytest.mark.parametrize(
    ("text", "zone", "after", "expected"),
    [
        ("every 10 minutes", "UTC", "2026-03-01T12:10", "2026-03-01T12:20"),
        ("daily at 04:00, 16:00", "Europe/Paris", "2026-01-10T03:30", "2026-01-10T15:00"),
        ("daily at 04:00", "Europe/Paris", "2026-07-10T03:30", "2026-07-11T02:00"),
        ("weekly on monday at 05:00", "UTC", "2026-11-30T05:00", "2026-12-07T05:00"),
        ("monthly on 31 at 02:00", "UTC", "2026-01-31T03:00", "2026-03-31T02:00"),
        ("monthly on last day at 02:00", "UTC", "2026-01-31T03:00", "2026-02-28T02:00"),
        ("0 0 29 2 *", "UTC", "2096-03-01T00:00", "2104-02-29T00:00"),
        ("once at 2026-12-01 10:00", "Europe/Paris", "2026-11-30T00:00", "2026-12-01T09:00"),
        ("once at 2026-12-01 10:00", "Europe/Paris", "2026-12-01T09:00", None),
        # Paris, 29 March 2026, 02:00 to 03:00 is skipped: whatever was due in it is due once, right after.
        ("daily at 02:30", "Europe/Paris", "2026-03-28T12:00", "2026-03-29T01:00"),
        ("daily at 02:10, 02:50", "Europe/Paris", "2026-03-29T01:00", "2026-03-30T00:10"),
        ("once at 2026-03-29 02:30", "Europe/Paris", "2026-03-01T00:00", "2026-03-29T01:00"),
        # Paris, 25 October 2026, 02:00 to 03:00 comes twice: once, at the first.
        ("daily at 02:30", "Europe/Paris", "2026-10-24T12:00", "2026-10-25T00:30"),
        ("daily at 02:30", "Europe/Paris", "2026-10-25T00:30", "2026-10-26T01:30"),
        # ... but what is due in every hour does not stand still for one.
        ("every 30 minutes", "Europe/Paris", "2026-10-25T00:30", "2026-10-25T01:00"),
        ("every 30 minutes", "Europe/Paris", "2026-10-25T01:00", "2026-10-25T01:30"),
        # Samoa had no 30 December 2011.
        ("daily at 04:00", "Pacific/Apia", "2011-12-29T20:00", "2011-12-30T10:00"),
    ],
)
def test_the_next_tick_means_the_wall_clock_of_its_zone(text: str, zone: str, after: str, expected: str | None) -> None:
    assert plan(text, zone).next_tick(at(after)) == (at(expected) if expected else None)


def oracle(one: Plan, after: datetime, limit: timedelta) -> datetime | None:
    """Walk minute by minute and ask of each whether the wall clock shows, or has just skipped, a time of the schedule."""
    times = one.schedule.times
    assert times is not None
    minutes = [minute for minute in times.minutes if one.hours is None or one.hours.has(_time(minute))]
    moment = after.replace(second=0, microsecond=0) + timedelta(minutes=1)
    while moment <= after + limit:
        shown = moment.astimezone(one.zone)
        before = (moment - timedelta(minutes=1)).astimezone(one.zone).replace(tzinfo=None)
        readings = [shown.replace(tzinfo=None)]
        while readings[-1] - before > timedelta(minutes=1):  # the clock jumped: the times between are skipped ones
            readings.append(readings[-1] - timedelta(minutes=1))
        first_time = times.hourly or shown.fold == 0
        if first_time and any(
            reading.hour * 60 + reading.minute in minutes and times.days.has(reading.date()) for reading in readings
        ):
            return moment
        moment += timedelta(minutes=1)
    return None


def _time(minute: int) -> time:
    return time(minute // 60, minute % 60)


clocks = st.builds(lambda h, m: f"{h:02d}:{m:02d}", st.integers(0, 23), st.integers(0, 59))
times_of_day = st.lists(clocks, min_size=1, max_size=4).map(", ".join)
week_days = st.lists(st.sampled_from(["monday", "wednesday", "saturday", "sunday"]), min_size=1, unique=True).map(
    ", ".join
)
month_days = st.lists(st.sampled_from(["1", "5", "8", "25", "29", "last day"]), min_size=1, unique=True).map(", ".join)
texts = st.one_of(
    st.sampled_from(
        ["every minute", "every 10 minutes", "every 30 minutes", "every hour", "every 2 hours", "every 12 hours"]
    ),
    times_of_day.map(lambda text: f"daily at {text}"),
    st.builds(lambda days, text: f"weekly on {days} at {text}", week_days, times_of_day),
    st.builds(lambda days, text: f"monthly on {days} at {text}", month_days, times_of_day),
    st.sampled_from(["7 * * * *", "*/20 1-3 * * *", "30 2 * * sun", "0,30 2 25,29 * sun", "15 2 l * *"]),
)
moments = st.builds(
    lambda change, minutes: at(change) + timedelta(minutes=minutes),
    st.sampled_from(CHANGES),
    st.integers(-36 * 60, 36 * 60),
)


@settings(max_examples=80, deadline=None)
@given(texts, st.sampled_from(ZONES), moments, st.sampled_from(["", "22:00-06:00", "02:00-02:40", "08:00-20:00"]))
def test_the_next_tick_is_the_one_that_a_walk_by_minutes_finds(
    text: str, zone: str, after: datetime, hours: str
) -> None:
    try:
        one = plan(text, zone, hours=hours)
    except UserError:  # no time of it lies in the range
        assume(False)
    limit = timedelta(hours=60)
    found, expected = one.next_tick(after), oracle(one, after, limit)
    assert found == expected or (expected is None and found is not None and found > after + limit)


fields = st.tuples(
    st.sampled_from(["*", "*/7", "0", "5,50", "10-40/10", "59"]),
    st.sampled_from(["*", "*/5", "0", "3,23", "9-17", "7-23/4"]),
    st.sampled_from(["*", "1", "31", "*/9", "10-20", "5,l"]),
    st.sampled_from(["*", "2", "feb,jul", "*/5", "4-6"]),
    st.sampled_from(["*", "0", "7", "mon-fri", "sat,sun", "1-5/2"]),
).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(fields, st.datetimes(datetime(2024, 1, 1), datetime(2032, 1, 1)))  # noqa: DTZ001 - made aware below
def test_cron_means_what_another_reader_of_it_says(text: str, after: datetime) -> None:
    try:
        found = plan(text).next_tick(after.replace(tzinfo=UTC))
    except UserError:  # 31 February
        assume(False)
    expected = croniter(text, after.replace(microsecond=0)).get_next(datetime)
    assert found == expected.replace(tzinfo=UTC)


def test_ticks_never_stand_still_over_a_year_of_both_clock_changes() -> None:
    one, moment, seen = plan("daily at 02:30", "Europe/Lisbon"), at("2026-01-01T02:30"), 0
    while moment < at("2027-01-01T02:30"):
        following = one.next_tick(moment)
        assert following is not None
        assert timedelta(hours=20) < following - moment <= timedelta(hours=27)
        moment, seen = following, seen + 1
    assert seen == 365


def test_a_validity_bounds_the_ticks_on_both_sides() -> None:
    one = plan("daily at 04:00", valid_from=at("2026-05-02T04:00"), valid_to=at("2026-05-04T04:00"))
    assert one.next_ticks(at("2026-01-01T00:00")) == [at("2026-05-02T04:00"), at("2026-05-03T04:00")]
    assert one.why_over(at("2026-05-01T00:00")) == ""
    assert one.why_over(at("2026-05-04T04:00")) == "its validity ended at 2026-05-04 04:00"
    assert "before its validity ends" in one.why_over(at("2026-05-03T05:00"))
    with pytest.raises(UserError, match="ends before it begins"):
        plan("daily at 04:00", valid_from=at("2026-05-02T04:00"), valid_to=at("2026-05-02T04:00"))


def test_a_number_of_runs_bounds_the_ticks_that_are_shown() -> None:
    assert len(plan("every hour", runs_left=2).next_ticks(at("2026-01-01T00:00"))) == 2
    over = plan("every hour", runs_left=0)
    assert over.next_tick(at("2026-01-01T00:00")) is None
    assert over.why_over(at("2026-01-01T00:00")) == "its number of runs is used up"


def test_a_range_of_the_day_may_cross_midnight_and_leaves_ticks_out() -> None:
    hours = parse_hours("22:00-6:00")
    assert str(hours) == "22:00-06:00"
    one = plan("every 6 hours", "Europe/Paris", hours="22:00-06:00")
    assert one.next_tick(at("2026-01-01T00:00")) == at("2026-01-01T23:00"), "06:00, 12:00 and 18:00 lie outside"
    for broken in ("22:00", "22:00-22:00", "25:00-06:00", "-", ""):
        with pytest.raises(UserError, match="range of the day"):
            parse_hours(broken)
    with pytest.raises(UserError, match="no time of 'daily at 12:00' lies between 22:00-06:00"):
        plan("daily at 12:00", hours="22:00-06:00")


def test_a_late_tick_is_made_up_inside_its_range_and_skipped_outside() -> None:
    night = plan("daily at 23:00", "Europe/Paris", hours="22:00-06:00")
    due = at("2026-01-01T22:00")
    assert night.late(due, due + timedelta(seconds=2)) is Late.RUN
    assert night.late(due, at("2026-01-02T04:59")) is Late.MADE_UP
    assert night.late(due, at("2026-01-02T05:00")) is Late.SKIPPED
    assert plan("daily at 23:00").late(due, at("2026-01-05T05:00")) is Late.MADE_UP
    gap = plan("daily at 02:30", "Europe/Paris", hours="02:00-02:45")
    moved = gap.next_tick(at("2026-03-28T12:00"))
    assert moved == at("2026-03-29T01:00")
    assert gap.late(moved, moved) is Late.RUN, "moved out of its range by the clock, and on time"


def test_a_run_that_may_not_begin_now_may_at_the_next_opening_within_the_validity() -> None:
    night = plan("daily at 23:00", "Europe/Paris", hours="22:00-06:00", valid_to=at("2026-01-03T00:00"))
    assert night.opens(at("2026-01-02T04:59")) == at("2026-01-02T04:59")
    assert night.opens(at("2026-01-02T05:00")) == at("2026-01-02T21:00")
    assert night.opens(at("2026-01-03T05:00")) is None
    assert plan("daily at 23:00", valid_to=at("2026-01-03T00:00")).opens(at("2026-01-03T00:00")) is None
    later = plan("daily at 23:00", hours="22:00-06:00", valid_from=at("2026-01-03T12:00"))
    assert later.opens(at("2026-01-01T23:00")) == at("2026-01-03T22:00")


def test_zones_are_named() -> None:
    for broken in ("Mars/Base", "", "../etc", "Europe"):
        with pytest.raises(UserError, match="IANA"):
            plan("every hour", broken)
    assert plan("every hour", "Europe/Paris").zone == ZoneInfo("Europe/Paris")
