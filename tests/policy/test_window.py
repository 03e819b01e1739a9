from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from midsource.policy.window import MAX_ROWS, MIN_ROWS, SLOW_SECONDS, TOO_SLOW_SECONDS, Window


def test_a_failed_page_is_halved_and_not_asked_again_at_that_size_soon() -> None:
    window = Window(rows=8000).after_failure()
    assert window.rows == 4000
    for _ in range(5):
        window = window.after_success()
        assert window.rows < 8000


def test_halving_ends_at_one_row() -> None:
    window = Window(rows=5000)
    for _ in range(13):
        window = window.after_failure()
    assert window.rows == MIN_ROWS
    assert window.is_smallest


def test_a_slow_page_does_not_grow_and_a_very_slow_one_shrinks() -> None:
    assert Window(1000).after_success(SLOW_SECONDS + 1) == Window(1000)
    assert Window(1000).after_success(TOO_SLOW_SECONDS + 1).rows == 750


@given(limit=st.integers(40, 30_000), pages=st.integers(50, 400))
def test_it_settles_below_what_a_mid_can_answer_and_rarely_fails(limit: int, pages: int) -> None:
    window, failures, rows = Window(), 0, 0
    for _ in range(pages):
        if window.rows > limit:
            failures += 1
            window = window.after_failure()
        else:
            rows += window.rows
            window = window.after_success()
    assert failures <= 16 + pages / 6
    assert rows >= (pages - 60) * min(limit, MAX_ROWS) / 4


@given(st.lists(st.booleans(), max_size=300))
def test_it_stays_within_the_links_limits(outcomes: list[bool]) -> None:
    window = Window()
    for passed in outcomes:
        window = window.after_success() if passed else window.after_failure()
        assert MIN_ROWS <= window.rows <= MAX_ROWS
        assert window.ceiling <= MAX_ROWS
