"""Cut a page of log rows into runs that lie close together and rows that do not: pure.

A run is read as one range of the primary key and joined; whatever lies apart is looked up row by row. Results mostly come
in the order in which messages were handed over, so nearly all of a page is a few runs; but a page may as well name twenty
thousand deliveries, or the stragglers of a month, and must not read millions of rows for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

Key: TypeAlias = tuple[int, int]
"""(delivery, log id)."""
MAX_GAP = 100
"""Ids further apart than this begin another run."""
MIN_ROWS = 1_000
"""Fewer are looked up one by one: each run is a statement of its own, so a page of 20 000 rows makes at most twenty."""
MAX_SPREAD = 6
"""A range is read where it has at most so many rows for each one wanted: a row in order costs a sixth of a look-up."""


@dataclass(frozen=True, slots=True)
class Run:
    """Sorted keys ``start`` to ``stop`` (excluded), all of one delivery."""

    start: int
    stop: int


def runs_of(keys: Sequence[Key]) -> list[Run]:
    """Return the runs among sorted, distinct ``keys``, in order; keys in none of them lie apart."""
    cuts = [
        at
        for at, (before, after) in enumerate(pairwise(keys), 1)
        if after[1] - before[1] > MAX_GAP or after[0] != before[0]
    ]
    edges = [0, *cuts, len(keys)]
    return [Run(start, stop) for start, stop in pairwise(edges) if _is_worth_a_range(keys, start, stop)]


def _is_worth_a_range(keys: Sequence[Key], start: int, stop: int) -> bool:
    rows = stop - start
    return rows >= MIN_ROWS and keys[stop - 1][1] - keys[start][1] < rows * MAX_SPREAD
