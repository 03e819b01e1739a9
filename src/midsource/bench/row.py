"""What a row of the benchmark says: its figure, what was measured beside it in the same run, and whether the target is met.

Absolute times of a shared machine mean little: a row states the median of several runs with their spread, and a ratio to
a limit or a peer that was measured in the same run. A missed target is a fact in the table, never a failure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

NOT_INSTALLED = "not installed"


@dataclass(frozen=True, slots=True)
class Measure:
    """One quantity, measured once a run."""

    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Highest less lowest value, as a share of the median: what a difference must exceed to mean something."""
        return (max(self.values) - min(self.values)) / self.median if self.median else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the measure with its median and spread, three significant digits."""
        return {
            "name": self.name, "unit": self.unit, "median": rounded(self.median), "spread": round(self.spread, 3),
            "runs": [rounded(value) for value in self.values],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Beside:
    """A limit or a peer of the same run. ``measure`` None: not here, for the reason ``absent``."""

    name: str
    measure: Measure | None
    ratio: Measure | None = None
    absent: str = NOT_INSTALLED

    def to_json(self) -> dict[str, Any]:
        """Return what was measured, or why it was not."""
        if self.measure is None:
            return {"name": self.name, "absent": self.absent}
        return {
            "name": self.name, "measure": self.measure.to_json(), "ratio": self.ratio.to_json() if self.ratio else None,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Goal:
    """One bound on one measure of the row. ``informs``: written down, but another goal decides (the ratio before the figure).

    ``ceiling``: more than this cannot be (nobody signs faster than OpenSSL does nothing else), so the limit was measured
    while others used the machine, and nothing is judged.
    """

    measure: str
    bound: float
    unit: str
    at_most: bool = False
    informs: bool = False
    ceiling: float = math.inf

    def holds(self, value: float) -> bool:
        """Whether ``value`` is within the bound."""
        return value <= self.bound if self.at_most else value >= self.bound

    @property
    def words(self) -> str:
        """The goal as a phrase."""
        return f"{self.measure} {'≤' if self.at_most else '≥'} {show(self.bound)} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Row:
    """One measured row. ``setting`` says what ran; ``scaled``: done with less or more work than the target speaks of."""

    name: str
    what: str
    figure: Measure
    goals: tuple[Goal, ...]
    beside: tuple[Beside, ...] = ()
    also: tuple[Measure, ...] = ()
    setting: str = ""
    scaled: bool = False

    def measure(self, name: str) -> Measure | None:
        """Return a measure of this row by its name, ratios included."""
        ratios = [beside.ratio for beside in self.beside if beside.ratio is not None]
        return next((found for found in (self.figure, *self.also, *ratios) if found.name == name), None)

    @property
    def is_met(self) -> bool | None:
        """Whether every goal that decides holds; None where one of them could not be judged here."""
        verdicts = [self.judged(goal) for goal in self.goals if not goal.informs]
        if self.scaled or None in verdicts:
            return None
        return all(verdicts)

    def judged(self, goal: Goal) -> bool | None:
        """Tell whether a goal holds; None where what it speaks of was not measured, or cannot be true."""
        found = self.measure(goal.measure)
        return None if found is None or found.median > goal.ceiling else goal.holds(found.median)

    def _judged(self, goal: Goal) -> dict[str, Any]:
        found = self.measure(goal.measure)
        return {
            "measure": goal.measure, "bound": goal.bound, "words": goal.words, "decides": not goal.informs,
            "value": None if found is None else rounded(found.median),
            "holds": self.judged(goal),
        }  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON writes it."""
        return {
            "name": self.name,
            "what": self.what,
            "figure": self.figure.to_json(),
            "beside": [beside.to_json() for beside in self.beside],
            "also": [measure.to_json() for measure in self.also],
            "goals": [self._judged(goal) for goal in self.goals],
            "met": self.is_met,
            "scaled": self.scaled,
            "setting": self.setting,
        }  # fmt: skip


class RowModule(Protocol):
    """The shape of a row's module."""

    NAME: str
    WHAT: str
    TARGET: tuple[Goal, ...]

    def run(self, bench: Any) -> Row:
        """Measure."""


@dataclass(slots=True)
class Runs:
    """Collects the values of several runs under their names, in order."""

    _kept: dict[str, tuple[str, list[float]]] = field(default_factory=dict)

    def add(self, name: str, unit: str, value: float) -> None:
        """Add one run's value."""
        self._kept.setdefault(name, (unit, []))[1].append(value)

    def against(self, name: str, unit: str, value: float, ratio: float) -> None:
        """Add one run's limit or peer, and the ratio of ours to it."""
        self.add(name, unit, value)
        self.add(ratio_to(name), "", ratio)

    def beside(self, name: str, absent: str = NOT_INSTALLED) -> Beside:
        """Return what `against` collected under ``name``, or that it was not here."""
        if name not in self:
            return Beside(name, None, absent=absent)
        return Beside(name, self[name], self[ratio_to(name)])

    def __getitem__(self, name: str) -> Measure:
        """Return a measure by its name."""
        unit, values = self._kept[name]
        return Measure(name, unit, tuple(values))

    def __contains__(self, name: str) -> bool:
        """Whether anything was measured under this name."""
        return name in self._kept

    def several(self, names: Sequence[str]) -> tuple[Measure, ...]:
        """Return those of the named measures that there are."""
        return tuple(self[name] for name in names if name in self)


def ratio_to(name: str) -> str:
    """Return the name of the ratio of ours to this limit or peer."""
    return f"ratio to {name}"


def rounded(value: float) -> float:
    """Return ``value`` with four significant digits: more would claim what no run here can know."""
    return float(f"{value:.4g}")


def show(value: float) -> str:
    """Return a number as people read it: 4 310, 0.62, 15.4."""
    if value >= 1_000:
        return f"{float(f'{value:.3g}'):,.0f}".replace(",", " ")
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
