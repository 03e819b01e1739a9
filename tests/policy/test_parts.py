from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midsource.policy.parts import (
    MAX_SECONDS,
    MIN_ROWS,
    AskThenSplit,
    Failure,
    Retry,
    Split,
    child_name,
    decide,
    parent_name,
)

STATUSES = st.sampled_from([0, 408, 413, 425, 429, 500, 502, 503, 504, 507])


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 0])
def test_a_part_the_mid_may_hold_is_split_only_after_asking(status: int) -> None:
    assert decide(2000, 1, Failure(status, reached=True), 0.0) == AskThenSplit(rows=1000, after_seconds=1.0)


def test_a_part_refused_for_its_size_is_split_at_once() -> None:
    assert decide(2000, 1, Failure(413, reached=False), 0.0) == Split(rows=1000, after_seconds=0.0)
    assert decide(40, 3, Failure(413, reached=False), 0.0) == Split(rows=20, after_seconds=0.0)


def test_one_row_refused_for_its_size_waits_instead_of_splitting_for_ever() -> None:
    assert decide(1, 4, Failure(413, reached=False), 0.0) == Retry(after_seconds=8.0)


@pytest.mark.parametrize(
    "failure", [Failure(0, reached=False), Failure(429, reached=False), Failure(507, reached=True)]
)
def test_smaller_parts_do_not_help_when_nobody_is_there_or_the_mid_wants_rest_or_has_no_room(failure: Failure) -> None:
    assert isinstance(decide(2000, 1, failure, 0.0), Retry)


def test_the_mid_says_how_long_to_wait() -> None:
    assert decide(2000, 1, Failure(429, reached=False, retry_after_seconds=20), 0.5) == Retry(after_seconds=20.0)


@given(
    rows=st.integers(1, 5000),
    attempt=st.integers(1, 100),
    status=STATUSES,
    reached=st.booleans(),
    chance=st.floats(0, 0.999),
)
def test_every_step_is_bounded_and_a_split_always_shrinks(
    rows: int, attempt: int, status: int, reached: bool, chance: float
) -> None:
    step = decide(rows, attempt, Failure(status, reached), chance)
    assert 0 <= step.after_seconds <= MAX_SECONDS
    if isinstance(step, AskThenSplit | Split):
        assert 1 <= step.rows < rows
    if isinstance(step, AskThenSplit):
        assert step.rows >= MIN_ROWS


@given(attempt=st.integers(1, 20), chance=st.floats(0, 0.999))
def test_pauses_double_up_to_a_minute(attempt: int, chance: float) -> None:
    now, then = (decide(10, n, Failure(503, reached=True), chance).after_seconds for n in (attempt, attempt + 1))
    assert then == pytest.approx(min(2 * now, MAX_SECONDS * (1 - 0.25 * chance)), rel=0.01)


def test_children_are_named_after_their_part() -> None:
    assert child_name("17", 2) == "17.2"
    assert [parent_name(name) for name in ("17.2.1", "17.2", "17")] == ["17.2", "17", None]
