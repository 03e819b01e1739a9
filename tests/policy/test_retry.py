from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midsource.policy.retry import MAX_RETRIES, RetryRule, next_attempt

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
FAR = START + timedelta(days=365)
HOUR = timedelta(hours=1)


def test_the_ladder_has_count_rungs_a_period_apart() -> None:
    now: datetime | None = START
    tries = []
    while now is not None:
        tries.append(now)
        now = next_attempt(len(tries), RetryRule(5, 3600), FAR, now, chance=0)
    assert tries == [START + n * HOUR for n in range(6)]


def test_chance_only_delays() -> None:
    due = next_attempt(1, RetryRule(), FAR, START, chance=0.5)
    assert due == START + HOUR + timedelta(minutes=3)


@pytest.mark.parametrize(("validity", "gives_up"), [(HOUR, False), (HOUR - timedelta(seconds=1), True)])
def test_nothing_is_planned_past_validity(validity: timedelta, gives_up: bool) -> None:
    assert (next_attempt(1, RetryRule(), START + validity, START, chance=0) is None) is gives_up


def test_no_retries_means_one_try() -> None:
    assert next_attempt(1, RetryRule(count=0), FAR, START, chance=0) is None


@pytest.mark.parametrize("step", [-5 * HOUR, -timedelta(days=3_650), timedelta(days=30)])
def test_a_clock_that_steps_changes_neither_the_wait_nor_the_number_of_tries(step: timedelta) -> None:
    now = START + step
    assert next_attempt(2, RetryRule(), now + 2 * HOUR, now, chance=0) == now + HOUR


@given(
    count=st.integers(0, MAX_RETRIES),
    period=st.integers(1, 86400),
    attempts=st.integers(1, 200),
    late=st.integers(0, 10**6),
    validity=st.integers(0, 10**7),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_a_retry_is_never_early_never_too_late_and_never_one_too_many(
    count: int, period: int, attempts: int, late: int, validity: int, chance: float
) -> None:
    now = START + timedelta(seconds=late)
    until = START + timedelta(seconds=validity)
    due = next_attempt(attempts, RetryRule(count, period), until, now, chance)
    if due is not None:
        assert attempts <= count
        assert now + timedelta(seconds=period) <= due <= until


@pytest.mark.parametrize(("count", "period"), [(-1, 60), (101, 60), (1, 0), (1, 10**9)])
def test_a_ladder_without_bounds_is_refused(count: int, period: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        RetryRule(count, period)
