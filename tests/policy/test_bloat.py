"""The estimates against sizes that PostgreSQL really gives (tests/store/test_maintenance_measures.py compares on a live one)."""

from __future__ import annotations

import pytest

from midsource.model.maintenance import IndexMeasure, Shape, TableMeasure
from midsource.policy.bloat import btree_bytes, index_waste, table_bytes, table_waste


def test_a_table_of_narrow_rows_needs_its_headers() -> None:
    assert table_bytes(226 * 100, Shape(4, 1, has_nulls=False, fillfactor=100)) == 100 * 8192
    assert table_bytes(0, Shape(4, 1, has_nulls=False, fillfactor=100)) == 0


def test_room_that_was_asked_for_is_not_bloat() -> None:
    full, roomy = (table_bytes(100_000, Shape(60, 5, has_nulls=True, fillfactor=filled)) for filled in (100, 50))
    assert roomy == pytest.approx(2 * full, rel=0.05)


def test_equal_entries_are_stored_once() -> None:
    each = btree_bytes(1_000_000, Shape(8, 1, has_nulls=False, fillfactor=90))
    shared = btree_bytes(1_000_000, Shape(8, 1, has_nulls=False, fillfactor=90, distinct=100))
    assert each == pytest.approx(22_500_000, rel=0.05)
    assert shared == pytest.approx(6_800_000, rel=0.1)


def test_what_was_never_analysed_or_is_no_btree_is_not_known() -> None:
    shape = Shape(8, 1, has_nulls=False, fillfactor=90)
    assert table_waste(TableMeasure("t", bytes=10**9)) is None
    assert index_waste(IndexMeasure("i", "t", 10**9), 100) is None
    assert index_waste(IndexMeasure("i", "t", 10**9, method="brin", shape=shape), 100) is None
    assert index_waste(IndexMeasure("i", "t", 10**9, shape=shape), -1) is None


def test_what_was_measured_goes_before_the_estimate() -> None:
    shape = Shape(8, 1, has_nulls=False, fillfactor=90)
    assert table_waste(TableMeasure("t", bytes=1_000, free=400)) == 400
    assert index_waste(IndexMeasure("i", "t", 1_000, shape=shape, density=45.0), 10) == 500
