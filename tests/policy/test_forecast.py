from __future__ import annotations

from datetime import UTC, datetime, timedelta

from midsource.policy.forecast import Sample, forecast

START = datetime(2026, 3, 1, tzinfo=UTC)


def days(*values: int, most: int | None = None) -> list[Sample]:
    return [Sample(START + timedelta(days=day), value, most) for day, value in enumerate(values)]


def test_a_number_that_grows_says_when_it_is_used_up_and_by_what_pace() -> None:
    found = forecast("number", "job.id", days(100, 200, 300, 400, most=1_000))
    assert (found.per_day, found.days_left) == (100, 6)
    assert found.sentence == "400 now, +100 a day at the pace of the last 3 days; it is used up on 2026-03-10"


def test_a_disk_that_fills_says_when_nothing_is_free() -> None:
    found = forecast("disk free", "disk", days(10_000, 9_000, 8_000, 7_000, most=20_000))
    assert found.days_left == 7
    assert "nothing is free on 2026-03-11" in found.sentence


def test_only_the_last_fourteen_days_count() -> None:
    found = forecast("relation", "message", days(*[0] * 30, *range(0, 1_500, 100)))
    assert found.per_day == 100
    assert found.days_left is None


def test_what_shrinks_or_ends_in_ten_years_has_no_end() -> None:
    assert forecast("number", "a", days(400, 300, 200, 100, most=1_000)).days_left is None
    assert forecast("disk free", "disk", days(100, 200, 300, 400)).days_left is None
    assert forecast("number", "a", days(1, 2, 3, 4, most=10**9)).days_left is None


def test_too_few_days_forecast_nothing_and_say_so() -> None:
    found = forecast("number", "a", days(1, 2, 3, most=10))
    assert (found.per_day, found.days_left) == (None, None)
    assert "too few days" in found.sentence


def test_a_number_beyond_its_end_is_used_up_now() -> None:
    assert forecast("number", "a", days(7, 8, 9, 12, most=10)).days_left == 0
