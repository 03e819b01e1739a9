"""Delivery ids carry their month; errors are one sentence."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midsource.cli.reference import error_classes
from midsource.model.errors import ConfigError, Conflict, MidsourceError
from midsource.model.ids import Month, delivery_id


@given(st.integers(2000, 2600), st.integers(1, 12), st.integers(1, 2**32 - 1))
def test_a_delivery_id_lies_in_the_partition_of_its_month(year: int, month_of_year: int, serial: int) -> None:
    created = datetime(year, month_of_year, 28, 23, 59, tzinfo=UTC)
    number = delivery_id(created, serial)
    month = Month.of_delivery(number)
    assert month == Month(created.year, created.month)
    assert month.first_delivery_id < number < month.next().first_delivery_id
    assert number < 2**63


def test_the_year_turns() -> None:
    assert Month(2026, 12).next() == Month(2027, 1)
    assert str(Month(2026, 1)) == "202601"


@pytest.mark.parametrize("serial", [0, -1, 2**32])
def test_a_serial_out_of_range_is_refused(serial: int) -> None:
    with pytest.raises(ValueError, match="serial"):
        delivery_id(datetime(2026, 1, 1, tzinfo=UTC), serial)


@pytest.mark.parametrize("number", [0, 17, -5])
def test_a_number_that_is_no_delivery_id_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="not a month"):
        Month.of_delivery(number)


def test_an_error_is_one_sentence_with_cause_and_remedy() -> None:
    assert str(Conflict("it is paused", "start it")) == "it is paused: start it."
    assert str(MidsourceError("it broke")) == "it broke."
    assert str(ConfigError(["a: wrong", "b: wrong"])).startswith("a: wrong; b: wrong: ")


def test_every_error_has_its_own_code() -> None:
    codes = [kind.code for kind in error_classes() if "code" in vars(kind)]
    assert len(codes) == len(set(codes)), sorted(codes)
