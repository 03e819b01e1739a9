"""Whether a message is the same on both sides, also while it moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midsource.policy.reconciling import Seen, Verdict, judge

SENT, FAILED, PENDING, DEFERRED, CANCELLED, IGNORED = 1, 2, 6, 61, 7, 0


@pytest.mark.parametrize(
    ("before", "theirs", "after", "passed", "verdict"),
    [
        (Seen(PENDING, 0, 0), Seen(PENDING, 0, 1), Seen(PENDING, 0, 0), False, Verdict.SAME),
        (Seen(SENT, 0, 2), Seen(SENT, 0, 2), Seen(SENT, 0, 2), True, Verdict.SAME),
        (Seen(PENDING, 0, 0), Seen(SENT, 0, 2), Seen(PENDING, 0, 0), False, Verdict.UNJUDGED),
        (Seen(PENDING, 0, 0), Seen(SENT, 0, 2), Seen(PENDING, 0, 0), True, Verdict.BEHIND),
        (Seen(PENDING, 0, 0), Seen(DEFERRED, 20, 2), Seen(SENT, 0, 3), False, Verdict.MOVING),
        (Seen(SENT, 0, 4), Seen(SENT, 0, 2), Seen(SENT, 0, 4), True, Verdict.AHEAD),
        (Seen(FAILED, 1, 2), Seen(SENT, 0, 2), Seen(FAILED, 1, 2), False, Verdict.CHANGED),
        (Seen(FAILED, 1, 2), Seen(FAILED, 20, 2), Seen(FAILED, 1, 2), False, Verdict.CHANGED),
        (None, Seen(SENT, 0, 2), None, False, Verdict.MISSING),
        (None, Seen(SENT, 0, 2), Seen(SENT, 0, 2), False, Verdict.SAME),
        (Seen(SENT, 0, 2), None, Seen(SENT, 0, 2), True, Verdict.UNKNOWN),
        (Seen(PENDING, 0, 0), None, Seen(PENDING, 0, 0), True, Verdict.UNKNOWN),
        (Seen(IGNORED, 10, 0), None, Seen(IGNORED, 10, 0), True, Verdict.SAME),
        (Seen(CANCELLED, 0, 0), None, Seen(CANCELLED, 0, 0), True, Verdict.SAME),
        (Seen(IGNORED, 10, 0), Seen(PENDING, 0, 1), Seen(IGNORED, 10, 0), True, Verdict.CHANGED),
    ],
)
def test_each_case(
    before: Seen | None, theirs: Seen | None, after: Seen | None, passed: bool, verdict: Verdict
) -> None:
    assert judge(before, theirs, after, passed=passed) is verdict


@st.composite
def looks(draw: st.DrawFn) -> tuple[list[Seen], int, int, int, bool]:
    """Give a message's life, and which revision each of the three looks of a healthy pair saw."""
    states = draw(st.lists(st.sampled_from((SENT, FAILED, PENDING, DEFERRED)), min_size=1, max_size=6))
    life = [Seen(state, 0, revision) for revision, state in enumerate(states, 1)]
    top = len(life) - 1
    before = draw(st.integers(0, top))
    theirs = draw(st.integers(before, top))  # the mid is never behind what we had before
    passed = draw(st.booleans())
    after = draw(st.integers(theirs if passed else before, top))  # the feed only goes forward, and has passed theirs
    return life, before, theirs, after, passed


@given(looks())
def test_a_healthy_pair_never_differs_however_busy_it_is(
    given_looks: tuple[list[Seen], int, int, int, bool],
) -> None:
    life, before, theirs, after, passed = given_looks
    verdict = judge(life[before], life[theirs], life[after], passed=passed)
    assert verdict in (Verdict.SAME, Verdict.MOVING, Verdict.UNJUDGED)
    assert not verdict.is_mended
    if passed:
        assert verdict is not Verdict.UNJUDGED
