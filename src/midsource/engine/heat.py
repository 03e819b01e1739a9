"""How many technical workflows ran at once, for each five minutes of a day: what the console draws as 24 rows of 12 cells.

Read through the index over the spans of runs, so a day costs its own runs, however many are kept and however long each took.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from midsource.model.calendar import place
from midsource.store.database import Connection

CELL = timedelta(minutes=5)
CELLS_OF_HOUR = 12
MAX_RUNS = 50_000
"""Runs of one day: fifteen workflows, each of them every half minute. More are not looked at."""
_RUNS = """
select workflow, started_at, finished_at
  from workflow_run
 where started_at is not null
   and tstzrange(started_at, greatest(started_at, coalesce(finished_at, 'infinity')), '[]') && tstzrange(%(begin)s, %(end)s)
   and (%(names)s::text[] is null or workflow = any(%(names)s))
 limit %(most)s
"""


@dataclass(frozen=True, slots=True)
class Heat:
    """A day: ``cells`` from its first five minutes on (276 or 300 of them where the clock changes), and the names in the fullest."""

    day: date
    cells: Sequence[int]
    busiest: Sequence[str]

    @property
    def most(self) -> int:
        """How many ran at once in the fullest cell."""
        return max(self.cells, default=0)

    @property
    def hours(self) -> list[Sequence[int]]:
        """The cells by hour."""
        return [self.cells[at : at + CELLS_OF_HOUR] for at in range(0, len(self.cells), CELLS_OF_HOUR)]


def of_day(
    conn: Connection,
    day: date,
    zone: ZoneInfo | None = None,
    *,
    names: Sequence[str] | None = None,
    least_seconds: float = 0,
) -> Heat:
    """Return one day of the zone (UTC by default); of ``names`` alone, and without runs shorter than ``least_seconds``."""
    where = zone or ZoneInfo("UTC")
    begin, end = (place(datetime.combine(day + timedelta(days=n), datetime.min.time()), where) for n in (0, 1))
    rows = conn.execute(
        _RUNS,
        {"begin": begin, "end": end, "names": None if names is None else list(names), "most": MAX_RUNS},
    ).fetchall()
    least = timedelta(seconds=least_seconds)
    runs = [
        (name, started, max(started, finished or end))
        for name, started, finished in rows
        if finished is None or max(finished, started) - started >= least
    ]
    cells = count(runs, begin, end)
    fullest = max(range(len(cells)), key=lambda cell: len(cells[cell]))
    return Heat(day, [len(found) for found in cells], sorted(cells[fullest]))


def count(runs: Iterable[tuple[str, datetime, datetime]], begin: datetime, end: datetime) -> list[set[str]]:
    """Return who ran in each cell from ``begin`` to ``end``: a workflow counts once in a cell, however often it ran there. Pure."""
    cells: list[set[str]] = [set() for _ in range((end - begin) // CELL)]
    for name, started, finished in runs:
        first = max(0, (started - begin) // CELL)
        for cell in cells[first : (finished - begin) // CELL + 1]:
            cell.add(name)
    return cells
