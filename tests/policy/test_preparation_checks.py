"""Preparation checks on times and counts: None, or the sentence an operator reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from midsource.model.message import Reason
from midsource.policy import checks

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0s"), (59, "59s"), (5_400, "1h 30min"), (432_000, "5d"), (129_600, "1d 12h")]
)
def test_times_are_spoken_with_their_largest_units(seconds: int, words: str) -> None:
    assert checks.spoken(seconds) == words


def test_validity_must_leave_room_for_the_retries() -> None:
    assert checks.validity_against_retries(18_000, 5, 3_600) is None
    assert "only 4 fit" in (checks.validity_against_retries(17_999, 5, 3_600) or "")


def test_validity_must_leave_room_for_the_volume() -> None:
    assert checks.validity_against_volume(3_600, 72_000) is None
    assert "72001 messages can take" in (checks.validity_against_volume(3_600, 72_001) or "")


def test_contact_date_whose_validity_is_over_is_refused() -> None:
    assert checks.contact_date_passed(None, 60, NOW) is None
    assert checks.contact_date_passed(NOW - timedelta(seconds=59), 60, NOW) is None
    assert "choose a later date" in (checks.contact_date_passed(NOW - timedelta(seconds=60), 60, NOW) or "")


def test_nobody_left_says_why() -> None:
    assert checks.nobody_left(10, 1, {}) is None
    assert "The target is empty" in (checks.nobody_left(0, 0, {}) or "")
    sentence = checks.nobody_left(3, 0, {Reason.DUPLICATE: 1, Reason.NO_ADDRESS: 2})
    assert sentence == (
        "All 3 targeted people are excluded (2 address not specified, 1 duplicate): nobody is left to deliver to."
    )


def test_prepared_and_logged_must_be_equal() -> None:
    assert checks.prepared_differs(5, 5) is None
    assert "1 of 5 people were erased" in (checks.prepared_differs(4, 5) or "")
    assert "The parts hold 6 messages and the log says 5" in (checks.prepared_differs(6, 5) or "")
