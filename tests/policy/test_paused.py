"""What becomes of a workflow that was paused and forgotten: the whole month, Monday by Monday."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from midsource.policy.paused import WARNINGS, Fate, judge

WEEK = timedelta(days=7)
MONDAY = datetime(2026, 5, 4, 5, 0, tzinfo=UTC)


def fates(paused_at: datetime, period: timedelta, *, slips: list[timedelta]) -> list[Fate]:
    """Judge each Monday, late by ``slips``, as the workflow does."""
    found, warnings, warned_at = [], 0, None
    for week, slip in enumerate(slips):
        now = MONDAY + week * WEEK + slip
        fate = judge(paused_at, warnings, warned_at, period, now)
        if fate is Fate.WARN:
            warnings, warned_at = warnings + 1, now
        found.append(fate)
        if fate is Fate.END:
            break
    return found


def test_four_weekly_warnings_and_then_the_end() -> None:
    found = fates(MONDAY - timedelta(days=1), WEEK, slips=[timedelta(0)] * 9)
    assert found == [Fate.NOTHING, Fate.WARN, Fate.WARN, Fate.WARN, Fate.WARN, Fate.END]


def test_running_it_again_the_same_day_warns_once() -> None:
    assert judge(MONDAY - 2 * WEEK, 1, MONDAY, WEEK, MONDAY + timedelta(hours=3)) is Fate.NOTHING


@given(
    st.timedeltas(timedelta(days=-60), timedelta(0)),
    st.integers(1, 60).map(lambda days: timedelta(days=days)),
    st.lists(st.timedeltas(timedelta(0), timedelta(hours=6)), min_size=25, max_size=25),
)
def test_nobody_is_ended_without_all_warnings_and_everybody_is_in_the_end(
    paused: timedelta, period: timedelta, slips: list[timedelta]
) -> None:
    found = fates(MONDAY + paused, period, slips=slips)
    assert found[-1] is Fate.END
    assert found.count(Fate.WARN) == WARNINGS
    first = found.index(Fate.WARN)
    assert MONDAY + first * WEEK + slips[first] - (MONDAY + paused) >= period
