"""A small drawing of how long the last runs took: one bar a run, the newest at the right; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from midsource.engine.records import RunRow

SLOT = 5
"""Units from one bar to the next; a bar is one narrower."""
HEIGHT = 24
LEAST = 2
"""The shortest run is still to be seen."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One run. ``outcome`` names its colour."""

    x: int
    y: int
    height: int
    outcome: str


@dataclass(frozen=True, slots=True)
class Spark:
    """The drawing: its width in units, its bars, and the shortest and longest duration in seconds."""

    width: int
    bars: Sequence[Bar]
    least: float
    most: float


def spark(runs: Sequence[RunRow], slots: int) -> Spark | None:
    """Draw the newest ``slots`` of ``runs`` (newest first); None where none of them took any time that is known."""
    timed = [(run.seconds, run.outcome or "") for run in runs[:slots] if run.seconds is not None]
    if not timed:
        return None
    most = max(seconds for seconds, _ in timed)
    bars = []
    for place, (seconds, outcome) in enumerate(reversed(timed), start=slots - len(timed)):
        height = max(LEAST, round(HEIGHT * seconds / most)) if most else LEAST
        bars.append(Bar(place * SLOT, HEIGHT - height, height, outcome))
    return Spark(slots * SLOT - 1, bars, min(seconds for seconds, _ in timed), most)
