"""How many technical workflows ran at once, for each five minutes of a day: what the console draws as 24 rows of 12 cells.

Read through the index over the spans of runs, so a day costs its own runs, however many are kept and however long each took.
"""

from __future__ import annotations

from collections import Counter
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
class Hour:
    """An hour of the wall clock: its twelve cells, None where the clock skips them. ``offset`` from UTC: '+02:00' where it comes twice."""

    hour: int
    offset: str
    cells: Sequence[int | None]


@dataclass(frozen=True, slots=True)
class Heat:
    """A day of a zone: ``cells`` from ``begin`` on (276 or 300 of them where the clock changes), and the names in the fullest."""

    day: date
    begin: datetime
    zone: ZoneInfo
    cells: Sequence[int]
    busiest: Sequence[str]

    @property
    def most(self) -> int:
        """How many ran at once in the fullest cell."""
        return max(self.cells, default=0)

    @property
    def fullest_at(self) -> str:
        """When the fullest cell begins, on the zone's clock; '' where nothing ran."""
        if not self.most:
            return ""
        local = self._local(list(self.cells).index(self.most))
        offset = next(hour.offset for hour in self.hours if hour.hour == local.hour)
        return f"{local:%H:%M} UTC{_offset(local)}" if offset else f"{local:%H:%M}"

    @property
    def hours(self) -> list[Hour]:
        """The cells by hour of the wall clock: one that is skipped is not there, one that comes twice is there twice."""
        rows: dict[tuple[int, str], list[int | None]] = {}
        for cell, n in enumerate(self.cells):
            local = self._local(cell)
            rows.setdefault((local.hour, _offset(local)), [None] * CELLS_OF_HOUR)[
                local.minute * CELLS_OF_HOUR // 60
            ] = n
        comes = Counter(hour for hour, _ in rows)
        return [Hour(hour, offset if comes[hour] > 1 else "", cells) for (hour, offset), cells in rows.items()]

    def _local(self, cell: int) -> datetime:
        return (self.begin + CELL * cell).astimezone(self.zone)


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
    fullest = max(cells, key=len, default=set())  # a zone that crossed the date line has a day without any
    return Heat(day, begin, where, [len(found) for found in cells], sorted(fullest))


def count(runs: Iterable[tuple[str, datetime, datetime]], begin: datetime, end: datetime) -> list[set[str]]:
    """Return who ran in each cell from ``begin`` to ``end``: a workflow counts once in a cell, however often it ran there. Pure."""
    cells: list[set[str]] = [set() for _ in range((end - begin) // CELL)]
    for name, started, finished in runs:
        first = max(0, (started - begin) // CELL)
        for cell in cells[first : (finished - begin) // CELL + 1]:
            cell.add(name)
    return cells


def _offset(local: datetime) -> str:
    return local.isoformat()[-6:]
