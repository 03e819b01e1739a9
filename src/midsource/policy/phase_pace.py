"""Whether a phase of a preparation is slow: at under a third of its own median pace of the last 30 days. Pure.

What a delivery needs for a row is much the same from one to the next, so its own history is the yardstick: a database that
decays shows here long before a mid answers 408 (F01). Small or short phases say nothing, nor do too few of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from midsource.model.maintenance import IndexMeasure, TableMeasure
from midsource.policy.maintenance import dead_share, waste
from midsource.policy.sizes import count, percent, size

HISTORY_DAYS = 30
SLOW_SHARE = 1 / 3
LEAST_ROWS = 1_000
"""Below it fixed costs decide."""
LEAST_SECONDS = 2.0
"""Nobody waits for it, and one busy moment would decide."""
LEAST_PHASES = 5
"""Phases in the history: with fewer there is no median to speak of."""


@dataclass(frozen=True, slots=True)
class Statement:
    """The statement that took longest, by our own timings. Seconds in all, and of the longest call."""

    name: str
    calls: int
    seconds: float
    longest: float


@dataclass(frozen=True, slots=True)
class SlowPhase:
    """A phase that was, or is, too slow. Paces in rows a second; ``of``: phases in the history."""

    phase: str
    pace: float
    usual: float
    of: int
    slowest: Statement | None


@dataclass(frozen=True, slots=True)
class Suspect:
    """The table that the slowest statement reads or writes and that is in the worst state, and its worst index."""

    table: TableMeasure
    index: IndexMeasure | None


def slow(phase: Mapping[str, Any], history: Sequence[float]) -> SlowPhase | None:
    """Judge a phase as its delivery keeps it by the paces of others; None: it is not slow, or that cannot be said."""
    if phase["rows"] < LEAST_ROWS or phase["seconds"] < LEAST_SECONDS or len(history) < LEAST_PHASES:
        return None
    pace, usual = phase["rows"] / phase["seconds"], median(history)
    if pace >= SLOW_SHARE * usual:
        return None
    statements = phase.get("statements") or ()
    worst = max(statements, key=lambda one: one["seconds"], default=None)
    slowest = Statement(worst["name"], worst["calls"], worst["seconds"], worst["longest"]) if worst else None
    return SlowPhase(phase["phase"], pace, usual, len(history), slowest)


def suspect(names: Sequence[str], tables: Sequence[TableMeasure], indexes: Sequence[IndexMeasure]) -> Suspect | None:
    """Return the table among ``names`` with the largest share of dead rows, and its index with most waste; None: no such table."""
    candidates = [table for table in tables if table.name in names]
    worst = max(candidates, key=lambda table: (dead_share(table), table.dead, table.bytes), default=None)
    if worst is None:
        return None
    own = [index for index in indexes if index.table == worst.name]
    return Suspect(worst, max(own, key=lambda index: (waste(index, worst) or 0, index.bytes), default=None))


def sentence(found: SlowPhase, blamed: Suspect | None) -> str:
    """Say what is slow, by how much, in which statement, and in what state its table and index are; no final dot."""
    said = (
        f"{found.phase} ran at {count(found.pace)} rows a second, a third of its usual {count(found.usual)} or less "
        f"(median of {found.of} in {HISTORY_DAYS} days)"
    )
    if found.slowest is not None:
        slowest = found.slowest
        said += f"; slowest statement: {slowest.name}, {slowest.seconds:.1f} s in {count(slowest.calls)} calls, {slowest.longest:.1f} s the longest"
    if blamed is not None:
        table = blamed.table
        said += f"; table {table.name}: {count(table.dead)} dead rows, {percent(dead_share(table))} of all"
        if blamed.index is not None:
            wasted = waste(blamed.index, table)
            needless = "" if wasted is None else f", {percent(wasted / max(1, blamed.index.bytes))} of it not needed"
            said += f"; index {blamed.index.name}: {size(blamed.index.bytes)}{needless}"
        said += f". `midsource maintenance vacuum {table.name}` and `midsource maintenance reindex {table.name}`"
    return said
