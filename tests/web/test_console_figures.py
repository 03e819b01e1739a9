"""Figures of a delivery and the bar that shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from midsource.model.message import MessageState
from midsource.web.console.pages.figures import LEAST, SHOWN, WIDTH, Figures, behind, figures_of

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_before_the_mid_reports_everything_to_send_is_pending() -> None:
    figures = figures_of(state=45, to_deliver=900, handed_over=890, figures={}, as_of=None)
    assert (figures.to_send, figures.processed, figures.counts[MessageState.PENDING]) == (890, 0, 890)


def test_what_was_stopped_before_the_mid_reported_is_cancelled() -> None:
    figures = figures_of(state=85, to_deliver=900, handed_over=None, figures={}, as_of=None)
    assert figures.counts[MessageState.CANCELLED] == 900


def test_the_mids_counters_lead() -> None:
    told = {"sent": 5, "failed": 2, "deferred": 1, "uncertain": 1, "pending": 1, "17": 9}
    figures = figures_of(state=55, to_deliver=10, handed_over=10, figures=told, as_of=NOW)
    assert figures.processed == 7
    assert [n for _, n in figures.rows] == [5, 2, 1, 1, 0, 1]


def test_a_delivery_that_is_not_prepared_has_an_empty_bar() -> None:
    assert figures_of(state=0, to_deliver=None, handed_over=None, figures={}, as_of=None).bar() == []


def test_how_far_the_log_is_behind() -> None:
    figures = figures_of(state=55, to_deliver=10, handed_over=10, figures={"sent": 6, "failed": 2}, as_of=NOW)
    assert behind(figures, {MessageState.SENT: 5, MessageState.IGNORED: 3}) == 3
    assert behind(figures, {MessageState.SENT: 9}) == 0


@given(st.lists(st.integers(0, 2_000_000_000), min_size=6, max_size=6).filter(any))
def test_the_bar_is_full_without_gaps_and_shows_what_is_rare(counts: list[int]) -> None:
    bar = Figures(sum(counts), dict(zip(SHOWN, counts, strict=True)), NOW).bar()
    assert bar[0].x == 0
    assert all(before.x + before.width == after.x for before, after in pairwise(bar))
    assert bar[-1].x + bar[-1].width == WIDTH
    assert [piece.name for piece in bar] == [state.label for state, n in zip(SHOWN, counts, strict=True) if n]
    assert all(piece.width >= LEAST for piece in bar)
