from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midsource.model.errors import UserError
from midsource.policy.position import OLDEST, parse, read_by_hand, show

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@given(st.datetimes(min_value=datetime(1991, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - hypothesis wants it naive
def test_what_is_shown_can_be_typed_in_again(moment: datetime) -> None:
    assert parse(show(moment)) == moment


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2020-01-01", datetime(2020, 1, 1, tzinfo=UTC)),
        ("2020-01-01T00:00Z", datetime(2020, 1, 1, tzinfo=UTC)),
        (" 2020-01-01 02:00:00+02:00 ", datetime(2020, 1, 1, tzinfo=UTC)),
    ],
)
def test_times_with_a_zone_and_bare_dates_are_read(text: str, moment: datetime) -> None:
    assert parse(text) == moment


@pytest.mark.parametrize(
    "text", ["", "yesterday", "01/02/2020", "2020-13-01", "2020-01-01T10:00", "0001-01-01T00:00:00+14:00", "1970-01-01"]
)
def test_what_is_not_certain_is_refused_with_the_accepted_form(text: str) -> None:
    with pytest.raises(UserError, match=r"2026-03-01T12:00Z"):
        parse(text)


def test_a_time_without_zone_found_in_the_table_is_read_as_the_earliest_it_can_mean() -> None:
    moment, remark = read_by_hand("2020-01-01 00:00:00", NOW)
    assert moment == datetime(2019, 12, 31, 10, 0, tzinfo=UTC)
    assert "earliest" in remark


def test_a_time_in_the_future_found_in_the_table_is_clamped_to_now() -> None:
    moment, remark = read_by_hand(show(NOW + timedelta(days=3)), NOW)
    assert moment == NOW
    assert "future" in remark


@given(st.text(max_size=40))
def test_nothing_written_by_hand_breaks_the_reader(text: str) -> None:
    moment, remark = read_by_hand(text, NOW)
    assert (moment is None and remark) or (moment is not None and OLDEST <= moment <= NOW)
