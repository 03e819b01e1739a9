from __future__ import annotations

from typing import Any

import pytest

from midsource.model.maintenance import IndexMeasure, Shape, TableMeasure
from midsource.policy.phase_pace import LEAST_PHASES, Statement, sentence, slow, suspect

USUAL = [9_000.0] * LEAST_PHASES
READ = {"name": "read a page of people", "calls": 50, "seconds": 41.2, "longest": 3.1}
STORE = {"name": "store parts", "calls": 10, "seconds": 2.0, "longest": 0.4}


def phase(rows: int = 100_000, seconds: float = 50, **more: Any) -> dict[str, Any]:
    return {"phase": "personalisation", "rows": rows, "seconds": seconds} | more


@pytest.mark.parametrize(
    ("judged", "history", "is_slow"),
    [
        (phase(seconds=50), USUAL, True),
        (phase(seconds=33), USUAL, False),
        (phase(seconds=33.4), USUAL, True),
        (phase(rows=999), USUAL, False),
        (phase(rows=1_000, seconds=1.9), USUAL, False),
        (phase(), USUAL[1:], False),
        (phase(), [1.0, 1.0, 9_000.0, 9_000.0, 9_000.0], True),
        (phase(), [2_000.0] * 30, False),
        (phase(), [], False),
    ],
)
def test_a_phase_is_slow_below_a_third_of_its_median_where_that_can_be_said(
    judged: dict[str, Any], history: list[float], is_slow: bool
) -> None:
    assert (slow(judged, history) is not None) is is_slow


def test_the_slowest_statement_is_the_one_that_took_longest_in_all() -> None:
    found = slow(phase(statements=[STORE, READ]), USUAL)
    assert found is not None
    assert found.slowest == Statement("read a page of people", 50, 41.2, 3.1)
    assert (found.pace, found.usual) == (2_000, 9_000)


def test_the_suspect_is_the_worst_table_of_the_statement_with_its_most_wasteful_index() -> None:
    shape = Shape(width=16, columns=2, has_nulls=False, fillfactor=90)
    tables = (
        TableMeasure("recipient", bytes=10**8, rows=1e6, live=10**6, dead=10),
        TableMeasure("broad_log_202603", bytes=10**9, rows=1e6, live=10**6, dead=3 * 10**6),
        TableMeasure("upload_part", bytes=10**9, rows=1, live=1, dead=10**9),
    )
    indexes = (
        IndexMeasure("large", "broad_log_202603", 10**8, rows=1e6, shape=shape),
        IndexMeasure("small", "broad_log_202603", 35_000_000, rows=1e6, shape=shape),
        IndexMeasure("other", "upload_part", 10**12, rows=1, shape=shape),
    )
    blamed = suspect(["recipient", "broad_log_202603"], tables, indexes)
    assert blamed is not None
    assert blamed.index is not None
    assert (blamed.table.name, blamed.index.name) == ("broad_log_202603", "large")
    found = slow(phase(statements=[READ]), USUAL)
    assert found is not None
    assert sentence(found, blamed) == (
        "personalisation ran at 2 000 rows a second, a third of its usual 9 000 or less (median of 5 in 30 days); "
        "slowest statement: read a page of people, 41.2 s in 50 calls, 3.1 s the longest; table broad_log_202603: "
        "3 000 000 dead rows, 75 % of all; index large: 100 MB, 69 % of it not needed. `midsource maintenance vacuum "
        "broad_log_202603` and `midsource maintenance reindex broad_log_202603`"
    )


def test_without_a_table_of_that_name_nobody_is_blamed() -> None:
    assert suspect(["gone"], (), ()) is None
    found = slow(phase(), USUAL)
    assert found is not None
    assert "table" not in sentence(found, None)
