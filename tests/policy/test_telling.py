"""When a supervisor is told: quiet hours over midnight and over clock changes, digests, and pauses after failures."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midsource.model.finding import Severity
from midsource.policy.telling import LONGEST_PAUSE, Quiet, again, due

NIGHT = Quiet(time(22), time(7), None, "Europe/Paris")
PARIS = ZoneInfo("Europe/Paris")


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 3, day, hour, minute, tzinfo=PARIS).astimezone(UTC)


@pytest.mark.parametrize(
    ("happened", "told"),
    [
        (at(10, 21, 59), at(10, 21, 59)),
        (at(10, 22), at(11, 7)),
        (at(10, 23, 30), at(11, 7)),
        (at(11, 3), at(11, 7)),
        (at(11, 7), at(11, 7)),
    ],
)
def test_what_happens_in_quiet_hours_is_told_when_they_end(happened: datetime, told: datetime) -> None:
    assert due(NIGHT, Severity.ERROR, happened) == (told, happened != told)


def test_what_is_critical_is_told_at_once() -> None:
    assert due(NIGHT, Severity.CRITICAL, at(10, 23)) == (at(10, 23), False)


def test_without_quiet_hours_everything_is_told_at_once() -> None:
    assert due(Quiet(), Severity.WARNING, at(10, 3)) == (at(10, 3), False)


def test_a_digest_has_an_hour_of_its_own() -> None:
    quiet = Quiet(time(22), time(7), time(8, 30), "Europe/Paris")
    assert due(quiet, Severity.ERROR, at(10, 23)) == (at(11, 8, 30), True)
    assert due(quiet, Severity.ERROR, at(11, 6)) == (at(11, 8, 30), True)


def test_quiet_hours_of_the_day_and_the_wall_clock_over_a_clock_change() -> None:
    noon = Quiet(time(12), time(14), None, "Europe/Paris")
    assert due(noon, Severity.ERROR, at(10, 13)) == (at(10, 14), True)
    assert due(noon, Severity.ERROR, at(10, 15)) == (at(10, 15), False)
    # The night of 29 March 2026 has one hour less: seven o'clock on the wall is 05:00 UTC, not 06:00.
    told, digest = due(NIGHT, Severity.ERROR, at(28, 23))
    assert (told, digest) == (datetime(2026, 3, 29, 5, 0, tzinfo=UTC), True)
    gap = Quiet(time(22), time(2, 30), None, "Europe/Paris")  # an hour that this night has not
    told, _ = due(gap, Severity.ERROR, at(28, 23))
    assert datetime(2026, 3, 29, 0, 30, tzinfo=UTC) <= told <= datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


@given(st.integers(0, 4_000_000_000), st.times(), st.times(), st.none() | st.times())
def test_nothing_is_told_before_it_happened_or_later_than_two_days(
    seconds: int, start: time, end: time, digest: time | None
) -> None:
    moment = datetime.fromtimestamp(seconds, UTC)
    told, _ = due(Quiet(start, end, digest, "America/Sao_Paulo"), Severity.WARNING, moment)
    assert moment - timedelta(hours=1) <= told <= moment + timedelta(days=2)


def test_pauses_double_up_to_six_hours() -> None:
    assert [again(tries) for tries in (1, 2, 3)] == [timedelta(minutes=minutes) for minutes in (5, 10, 20)]
    assert again(1000) == LONGEST_PAUSE == timedelta(hours=6)
