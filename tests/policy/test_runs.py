from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from midsource.policy.runs import MAX_SPREAD, MIN_ROWS, Key, Run, runs_of


def test_a_wave_in_order_is_one_run_for_each_delivery() -> None:
    keys = [(delivery, id_) for delivery in (1, 2) for id_ in range(1, 3_000, 2)]
    assert runs_of(keys) == [Run(0, 1_500), Run(1_500, 3_000)]


def test_stragglers_far_away_do_not_spoil_a_run() -> None:
    keys = [(1, 3), (1, 900), *((1, 500_000 + n) for n in range(2_000)), (1, 900_000)]
    assert runs_of(keys) == [Run(2, 2_002)]


def test_rows_of_many_deliveries_lie_apart() -> None:
    assert runs_of([(delivery, 1) for delivery in range(20_000)]) == []
    assert runs_of([]) == []


def test_a_range_with_too_much_between_is_not_read() -> None:
    assert runs_of([(1, n * (MAX_SPREAD + 1)) for n in range(5_000)]) == []
    assert runs_of([(1, n * (MAX_SPREAD - 1)) for n in range(5_000)]) == [Run(0, 5_000)]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 8), st.integers(1, 3_000)), max_size=6))
def test_ranges_read_little_that_is_not_wanted(waves: list[tuple[int, int, int]]) -> None:
    keys: list[Key] = sorted({(d, n * step) for d, step, count in waves for n in range(count)})
    runs = runs_of(keys)
    assert all(before.stop <= after.start for before, after in pairwise(runs))
    for run in runs:
        wanted = keys[run.start : run.stop]
        assert len({delivery for delivery, _ in wanted}) == 1
        assert len(wanted) >= MIN_ROWS
        assert wanted[-1][1] - wanted[0][1] < MAX_SPREAD * len(wanted)
