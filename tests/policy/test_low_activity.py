from __future__ import annotations

from datetime import UTC, datetime

import pytest

from midsource.model.errors import UserError
from midsource.policy.low_activity import parse


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("window", "zone", "moment", "is_open"),
    [
        ("02:00-05:00", "UTC", "2026-03-01 02:00", True),
        ("02:00-05:00", "UTC", "2026-03-01 05:00", False),
        ("02:00-05:00", "UTC", "2026-03-01 01:59", False),
        ("22:30-01:00", "UTC", "2026-03-01 23:00", True),
        ("22:30-01:00", "UTC", "2026-03-01 00:59", True),
        ("22:30-01:00", "UTC", "2026-03-01 01:00", False),
        ("00:00-24:00", "UTC", "2026-03-01 23:59", True),
        ("02:00-05:00", "Europe/Paris", "2026-07-01 00:30", True),
        ("02:00-05:00", "Europe/Paris", "2026-01-01 00:30", False),
    ],
)
def test_a_window_is_open_within_its_hours_on_the_clock_of_its_zone(
    window: str, zone: str, moment: str, is_open: bool
) -> None:
    assert parse(window, zone).is_open(at(moment)) is is_open


def test_it_says_when_it_opens_and_closes_over_a_night_that_is_an_hour_shorter() -> None:
    window = parse("01:30-03:30", "Europe/Paris")
    assert window.opens_at(at("2026-03-28 12:00")) == at("2026-03-29 00:30")
    assert window.closes_at(at("2026-03-28 12:00")) == at("2026-03-29 01:30")
    assert window.opens_at(at("2026-03-29 00:45")) == at("2026-03-29 00:45")


def test_one_that_is_always_open_does_not_close_today() -> None:
    window = parse("00:00-24:00", "UTC")
    assert window.closes_at(at("2026-03-01 12:00")) >= at("2026-03-02 12:00")


@pytest.mark.parametrize(("text", "zone"), [("", "UTC"), ("2-5", "UTC"), ("25:00-26:00", "UTC"), ("02:00-02:00", "UTC"), ("02:61-05:00", "UTC"), ("02:00-05:00", "Mars/Olympus"), ("02:00-05:00", "Europe")])  # fmt: skip
def test_what_is_no_window_is_refused_with_the_accepted_form(text: str, zone: str) -> None:
    with pytest.raises(UserError, match=r"02:00-05:00|Europe/Paris"):
        parse(text, zone)


@pytest.mark.parametrize("text", ["02:00-05:00", "22:30-01:00", "00:00-24:00"])
def test_it_is_written_as_it_was_read(text: str) -> None:
    assert str(parse(text, "UTC")) == text
