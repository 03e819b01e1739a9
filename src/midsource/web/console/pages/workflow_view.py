"""What the pages of technical workflows show, read in one snapshot: bounded by runs and lines of one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from midsource.config import Role
from midsource.engine import records, watch
from midsource.engine.circuit import Breaker, Circuit
from midsource.engine.records import JournalLine, RunRow
from midsource.engine.watch import RUNS_SHOWN, Flag, Summary
from midsource.marketing import standing
from midsource.marketing.standing import Position
from midsource.model.workflow import WorkflowEvent, WorkflowState, next_state
from midsource.store import processes
from midsource.store.database import Connection
from midsource.web.console.pages.spark import Spark, spark

PAGE_RUNS = 20
PAGE_LINES = 30
OPENED_LINES = 12
"""Lines of a journal that opens in its place in the list; its own page has the others."""
POINTERS_SHOWN = 3
"""Pointers of one workflow in the list, those farthest behind; an instance with more accounts has them on its own page."""


@dataclass(frozen=True, slots=True)
class Line:
    """One workflow as the list shows it."""

    summary: Summary
    positions: Sequence[Position]
    spark: Spark | None

    @property
    def flag(self) -> Flag:
        """What is wrong with it."""
        return self.summary.flag

    @property
    def cause(self) -> str:
        """The first line of its last error."""
        return self.summary.row.cause

    @property
    def breaker(self) -> Breaker:
        """How its circuit breaker stands."""
        return self.summary.breaker

    @property
    def has_open_circuit(self) -> bool:
        """Whether it failed and its next try waits."""
        return self.breaker.circuit is Circuit.OPEN

    @property
    def farthest(self) -> Sequence[Position]:
        """The pointers to be shown in a list: those farthest behind."""
        return sorted(self.positions, key=lambda position: position.reached_at)[:POINTERS_SHOWN]

    def takes(self, verb: str) -> bool:
        """Tell whether an order applies in its present state; the order itself checks again."""
        state = self.summary.row.state
        on_schedule = state.is_on_schedule
        match verb:
            case "run-now":
                return on_schedule
            case "start":
                return not on_schedule and next_state(state, WorkflowEvent.START) is not None
            case "restart":
                return True
            case "kill":
                return self.summary.open is not None
            case _:
                return state is not WorkflowState.FINISHED and next_state(state, WorkflowEvent(verb)) is not None


@dataclass(frozen=True, slots=True)
class Opened:
    """The journal that stands open in its place in the list: its newest lines. ``more``: there are older ones."""

    name: str
    journal: Sequence[JournalLine]
    more: bool


@dataclass(frozen=True, slots=True)
class Board:
    """Every workflow, worst first."""

    lines: Sequence[Line]
    has_worker: bool
    opened: Opened | None = None

    def count(self, flag: str) -> int:
        """Return how many have that flag."""
        return sum(line.flag.value == flag for line in self.lines)

    @property
    def open_circuits(self) -> int:
        """How many wait after a failure; they are among those that failed."""
        return sum(line.has_open_circuit for line in self.lines)


@dataclass(frozen=True, slots=True)
class Story:
    """One workflow: some of its runs and of its journal, newest first. ``older…`` None: there are none older."""

    line: Line
    has_worker: bool
    runs: Sequence[RunRow]
    older_run: int | None
    journal: Sequence[JournalLine]
    older_line: int | None


def board(conn: Connection, role: Role, now: datetime, opened: str = "") -> Board:
    """Read all of them, and the newest lines of the journal of ``opened``; a name that is none opens nothing."""
    stand = _positions(conn, role)
    lines = [_line(found, stand) for found in watch.summaries(conn, now)]
    known = any(line.summary.row.name == opened for line in lines)
    return Board(lines, processes.any_alive(conn, "worker"), _opened(conn, opened) if known else None)


def story(
    conn: Connection, role: Role, name: str, now: datetime, before_run: int | None, before_line: int | None
) -> Story:
    """Read one. Raises NotFound naming those there are."""
    row = records.get(conn, name)
    latest = records.runs(conn, name, RUNS_SHOWN + 1)
    runs = records.runs(conn, name, PAGE_RUNS + 1, before_run)
    lines = records.journal_page(conn, name, PAGE_LINES + 1, before_line)
    return Story(
        _line(watch.summary(row, latest, now), _positions(conn, role)),
        processes.any_alive(conn, "worker"),
        runs[:PAGE_RUNS],
        runs[PAGE_RUNS - 1].id if len(runs) > PAGE_RUNS else None,
        lines[:PAGE_LINES],
        lines[PAGE_LINES - 1].id if len(lines) > PAGE_LINES else None,
    )


def _opened(conn: Connection, name: str) -> Opened:
    lines = records.journal_page(conn, name, OPENED_LINES + 1)
    return Opened(name, lines[:OPENED_LINES], len(lines) > OPENED_LINES)


def _line(summary: Summary, stand: Sequence[Position]) -> Line:
    name = summary.row.name
    positions = [position for position in stand if standing.WORKFLOW_OF[position.stream] == name]
    return Line(summary, positions, spark(summary.ended, RUNS_SHOWN))


def _positions(conn: Connection, role: Role) -> Sequence[Position]:
    return standing.positions(conn) if role == "marketing" else ()
