"""How many bytes a table or a B-tree needs for the rows it has, by the planner's statistics: the rest is bloat.

The known estimate by average widths: page header 24 bytes, item pointer 4, row header 23 and a bit for each column where
there are nulls, everything aligned to 8. Padding between columns is not seen, so a table is estimated somewhat too small
(by up to a fifth), and who decides by it asks for more than that; widths are averages, so
very narrow rows and entries are estimated too large, towards no bloat. For B-trees equal entries are counted as PostgreSQL
stores them: the value once for many rows, then 6 bytes a row. What our own last rebuild left is better than any
estimate and goes before it. Sizes in bytes.
"""

from __future__ import annotations

import math

from midsource.model.maintenance import IndexMeasure, Shape, TableMeasure

PAGE = 8_192
PAGE_HEADER = 24
ITEM_POINTER = 4
ROW_HEADER = 23
ENTRY_HEADER = 8
BTREE_SPECIAL = 16
"""What a B-tree page keeps at its end."""
ALIGNMENT = 8
ROW_ID = 6
"""Bytes of one more row in an entry that stands for many."""
ROWS_OF_ENTRY = 400
"""Rows that one such entry holds at most, about: a third of a page."""


def table_bytes(rows: float, shape: Shape) -> int:
    """Return what ``rows`` rows of this shape need at least."""
    header = ROW_HEADER + ((shape.columns + 7) // 8 if shape.has_nulls else 0)
    row = ITEM_POINTER + _aligned(header) + _aligned(shape.width)
    fitting = max(1, math.floor((PAGE - PAGE_HEADER) * shape.fillfactor / 100 / row))
    return math.ceil(max(0.0, rows) / fitting) * PAGE


def btree_bytes(rows: float, shape: Shape) -> int:
    """Return what a B-tree over ``rows`` entries of this shape needs."""
    header = ENTRY_HEADER + (4 if shape.has_nulls else 0)
    entry = ITEM_POINTER + _aligned(_aligned(header) + shape.width)
    rows = max(0.0, rows)
    needed = rows * entry
    if shape.distinct is not None and shape.distinct < rows:
        entries = max(shape.distinct, rows / ROWS_OF_ENTRY)
        needed = min(needed, entries * entry + rows * ROW_ID)
    page = (PAGE - PAGE_HEADER - BTREE_SPECIAL) * shape.fillfactor / 100
    leaves = math.ceil(needed / page)
    inner = math.ceil(leaves / 200)  # a page of the level above leads to some hundreds
    return (leaves + inner + 1) * PAGE


def table_waste(table: TableMeasure) -> int | None:
    """Return the bytes of a table that its rows do not need; None where that is not known."""
    if table.free is not None:
        return table.free
    if table.shape is None or table.rows < 0:
        return None
    return max(0, table.bytes - table_bytes(table.rows, table.shape))


def index_waste(index: IndexMeasure, rows: float) -> int | None:
    """Return the bytes of an index that ``rows`` entries do not need; None where that is not known."""
    if index.density is not None and index.shape is not None:
        return max(0, round(index.bytes * (1 - index.density / index.shape.fillfactor)))
    if rows < 0 or index.method != "btree":
        return None
    if index.rebuilt is not None and index.rebuilt.rows > 0:
        return max(0, index.bytes - round(index.rebuilt.bytes * max(1.0, rows / index.rebuilt.rows)))
    if index.shape is None:
        return None
    return max(0, index.bytes - btree_bytes(rows, index.shape))


def _aligned(size: float) -> int:
    return math.ceil(math.ceil(size) / ALIGNMENT) * ALIGNMENT
