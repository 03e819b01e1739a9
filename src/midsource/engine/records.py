"""Technical workflows, their runs and journals as values, and how they are read. Nothing here writes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from midsource.model import schedule
from midsource.model.errors import NotFound, UserError
from midsource.model.schedule import Plan
from midsource.model.workflow import WorkflowState
from midsource.store.database import Connection

JOURNAL_LINES = 200
MAX_WORKFLOWS = 200
"""An instance has some fifteen; a list is bounded all the same."""


@dataclass(frozen=True, slots=True)
class WorkflowRow:
    """A technical workflow as lists show it. ``failed`` is a flag beside the state.

    ``not_before``: the circuit breaker waits until then (engine/circuit.py). ``held_at``, ``held_by``: since when and by whom it
    is paused or stopped; ``warnings``: how often that was warned about. ``schedule_by`` '': the default schedule.
    """

    name: str
    state: WorkflowState
    failed: bool
    schedule: str
    zone: str
    next_at: datetime | None
    last_run_at: datetime | None
    last_success_at: datetime | None
    consecutive_failures: int
    not_before: datetime | None
    last_error: str
    created_at: datetime | None = None
    schedule_by: str = ""
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    runs_left: int | None = None
    hours: str = ""
    skipped_at: datetime | None = None
    held_at: datetime | None = None
    held_by: str = ""
    warnings: int = 0
    warned_at: datetime | None = None
    error_class: str = ""

    @property
    def plan(self) -> Plan:
        """When it is due. Raises UserError for a schedule that was broken behind our back."""
        return schedule.plan(
            self.schedule,
            self.zone,
            valid_from=self.valid_from,
            valid_to=self.valid_to,
            runs_left=self.runs_left,
            hours=self.hours,
        )

    @property
    def next_run(self) -> datetime | None:
        """When its next run is due: the end of the breaker's wait, else the next tick; None where it is held or over."""
        return (self.not_before or self.next_at) if self.state.is_on_schedule else None

    @property
    def cause(self) -> str:
        """Its last error on one line."""
        return (self.last_error.splitlines() or [""])[0]

    def next_ticks(self, now: datetime) -> list[datetime]:
        """Return its next five ticks; none where it is held, over or broken."""
        try:
            return self.plan.next_ticks(now) if self.state.is_on_schedule else []
        except UserError:  # the leader says so on the workflow itself
            return []


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run: window, rows, outcome (None: unfinished). ``beat_at``: its last sign of life."""

    id: int
    asked_at: datetime
    asked_by: str
    started_at: datetime | None
    finished_at: datetime | None
    slices: int
    rows_read: int
    rows_written: int
    rows_refused: int
    window_from: str
    window_to: str
    outcome: str | None
    error: str
    error_class: str = ""
    beat_at: datetime | None = None

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it is unfinished, or where it ended before it began."""
        if self.started_at is None or self.finished_at is None:
            return None
        return max(0.0, (self.finished_at - self.started_at).total_seconds())


@dataclass(frozen=True, slots=True)
class JournalLine:
    """One line of a journal; ``id`` is where the page of older ones goes on."""

    id: int
    at: datetime
    run_id: int | None
    level: str
    line: str


_WORKFLOW = (
    "name, state, failed, schedule, zone, next_at, last_run_at, last_success_at, consecutive_failures, not_before, last_error, "
    "created_at, schedule_by, valid_from, valid_to, runs_left, hours, skipped_at, held_at, held_by, warnings, warned_at, "
    "error_class"
)
_RUN = (
    "id, asked_at, asked_by, started_at, finished_at, slices, rows_read, rows_written, rows_refused, window_from, "
    "window_to, outcome, error, error_class, beat_at"
)


def listing(conn: Connection) -> list[WorkflowRow]:
    """Return every technical workflow of this instance, by name."""
    rows = conn.execute(
        f"select {_WORKFLOW} from workflow order by name limit %s",  # noqa: S608 - constant
        (MAX_WORKFLOWS,),
    ).fetchall()
    return [_workflow(row) for row in rows]


def get(conn: Connection, name: str) -> WorkflowRow:
    """Return one, or raise NotFound naming those there are."""
    row = conn.execute(f"select {_WORKFLOW} from workflow where name = %s", (name,)).fetchone()  # noqa: S608 - constant
    if row is not None:
        return _workflow(row)
    known = ", ".join(row.name for row in listing(conn)) or "none yet; a worker registers them when it starts"
    raise NotFound(f"there is no technical workflow {name!r}", f"there are: {known}")


def locked(conn: Connection, name: str) -> WorkflowRow | None:
    """Return one and lock its row, or None where it is not there or another transaction has it."""
    row = conn.execute(
        f"select {_WORKFLOW} from workflow where name = %s for update skip locked",  # noqa: S608 - constant
        (name,),
    ).fetchone()
    return None if row is None else _workflow(row)


def _workflow(row: tuple[Any, ...]) -> WorkflowRow:
    return WorkflowRow(row[0], WorkflowState(row[1]), *row[2:])


def runs(conn: Connection, name: str, limit: int = 20, before: int | None = None) -> list[RunRow]:
    """Return the newest runs of ``name``, newest first; with ``before`` those older than that run."""
    rows = conn.execute(
        f"select {_RUN} from workflow_run where workflow = %s and (%s::bigint is null or id < %s) "  # noqa: S608 - constant
        "order by id desc limit %s",
        (name, before, before, limit),
    ).fetchall()
    return [RunRow(*row) for row in rows]


def latest_runs(conn: Connection, limit: int) -> dict[str, list[RunRow]]:
    """Return the newest runs of every workflow by name, newest first; the unfinished one is the first, where there is one."""
    rows = conn.execute(
        f"select r.workflow, {_RUN.replace('id,', 'r.id,', 1)} "  # noqa: S608 - constant
        "from (select name from workflow order by name limit %s) w cross join lateral ("
        "  select * from workflow_run where workflow = w.name order by id desc limit %s) r order by r.workflow, r.id desc",
        (MAX_WORKFLOWS, limit),
    ).fetchall()
    found: dict[str, list[RunRow]] = {}
    for name, *values in rows:
        found.setdefault(name, []).append(RunRow(*values))
    return found


def get_run(conn: Connection, run_id: int) -> RunRow:
    """Return one run, or raise NotFound."""
    row = conn.execute(f"select {_RUN} from workflow_run where id = %s", (run_id,)).fetchone()  # noqa: S608 - constant
    if row is None:
        raise NotFound(f"there is no run {run_id}")
    return RunRow(*row)


def journal_page(conn: Connection, name: str, limit: int, before: int | None = None) -> list[JournalLine]:
    """Return the newest lines about workflow or job ``name``, newest first; with ``before`` those older than that line."""
    rows = conn.execute(
        "select id, at, run_id, level, line from workflow_journal where workflow = %s and (%s::bigint is null or id < %s) "
        "order by id desc limit %s",
        (name, before, before, limit),
    ).fetchall()
    return [JournalLine(*row) for row in rows]


def journal(conn: Connection, name: str, limit: int = JOURNAL_LINES) -> list[tuple[datetime, str, str]]:
    """Return the last lines (time, level, line) about workflow or job ``name``, oldest first."""
    rows: list[Any] = conn.execute(
        "select at, level, line from workflow_journal where workflow = %s order by id desc limit %s", (name, limit)
    ).fetchall()
    return [(row[0], row[1], row[2]) for row in reversed(rows)]
