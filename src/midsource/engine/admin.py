"""The verbs of technical workflows, and what a list of them shows. Each verb is one transaction; none waits for a run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from midsource.engine.ticks import next_tick
from midsource.model.errors import Conflict, NotFound
from midsource.model.workflow import WorkflowEvent, WorkflowState, next_state
from midsource.store.database import Connection

JOURNAL_LINES = 200


@dataclass(frozen=True, slots=True)
class WorkflowRow:
    """A technical workflow as lists show it. ``failed`` is a flag beside the state."""

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


_RUN = (
    "id, asked_at, asked_by, started_at, finished_at, slices, rows_read, rows_written, rows_refused, window_from, "
    "window_to, outcome, error, error_class, beat_at"
)


def listing(conn: Connection) -> list[WorkflowRow]:
    """Return every technical workflow of this instance, by name."""
    rows = conn.execute(
        "select name, state, failed, schedule, zone, next_at, last_run_at, last_success_at, consecutive_failures, not_before, "
        "last_error, created_at from workflow order by name limit 200"
    ).fetchall()
    return [WorkflowRow(row[0], WorkflowState(row[1]), *row[2:]) for row in rows]


def get(conn: Connection, name: str) -> WorkflowRow:
    """Return one, or raise NotFound naming those there are."""
    rows = listing(conn)
    for row in rows:
        if row.name == name:
            return row
    known = ", ".join(row.name for row in rows) or "none yet; a worker registers them when it starts"
    raise NotFound(f"there is no technical workflow {name!r}", f"there are: {known}")


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
        "from (select name from workflow order by name limit 200) w cross join lateral ("
        "  select * from workflow_run where workflow = w.name order by id desc limit %s) r order by r.workflow, r.id desc",
        (limit,),
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


def start(conn: Connection, name: str, now: datetime) -> WorkflowRow:
    """Put a paused or stopped workflow back on its schedule."""
    row = _move(conn, name, WorkflowEvent.START)
    conn.execute("update workflow set next_at = %s where name = %s", (next_tick(row.schedule, row.zone, now), name))
    return get(conn, name)


def pause(conn: Connection, name: str) -> WorkflowRow:
    """Hold a workflow: the slice under way goes on, its next slice and the ticks wait until it is started again."""
    return _move(conn, name, WorkflowEvent.PAUSE)


def stop(conn: Connection, name: str) -> WorkflowRow:
    """End a workflow: its unfinished run is aborted (the slice leaves at its next page), no tick comes any more."""
    _abort_run(conn, name)
    return _move(conn, name, WorkflowEvent.STOP)


def run_now(conn: Connection, name: str, by: str) -> int:
    """Ask for a run at once and return its id; one that is unfinished already is made due and its id returned.

    Raises Conflict for a paused or stopped workflow: start it first.
    """
    row = get(conn, name)
    if row.state not in (WorkflowState.STARTED, WorkflowState.RUNNING):
        raise Conflict(f"{name} is {row.state.label}", f"run `midsource workflow start {name}` first")
    conn.execute(
        "insert into workflow_run (workflow, asked_by) values (%s, %s) on conflict (workflow) where finished_at is null "
        "do update set due_at = case when workflow_run.enqueued_at is null then now() else workflow_run.due_at end",
        (name, by),
    )
    run = conn.execute("select id from workflow_run where workflow = %s and finished_at is null", (name,)).fetchone()
    assert run is not None
    return int(run[0])


def restart(conn: Connection, name: str, by: str, now: datetime) -> int:
    """Abort what is unfinished, clear flag and back-off, start, and ask for a run at once; return its id.

    A page in commit is not interrupted: the aborted slice leaves at its next page, and the pointer is in that page's
    transaction, so the new run goes on from there.
    """
    row = get(conn, name)
    _abort_run(conn, name)
    conn.execute(
        "update workflow set state = %s, failed = false, consecutive_failures = 0, not_before = null, next_at = %s "
        "where name = %s",
        (WorkflowState.STARTED, next_tick(row.schedule, row.zone, now), name),
    )
    return run_now(conn, name, by)


def restart_candidates(
    rows: list[WorkflowRow], *, failed: bool, scheduled: bool
) -> tuple[list[WorkflowRow], list[tuple[WorkflowRow, str]]]:
    """Choose what `restart --failed --scheduled` restarts, and what it leaves, with the reason. Pure."""
    chosen, left = [], []
    for row in rows:
        held = row.state in (WorkflowState.PAUSED, WorkflowState.FINISHED, WorkflowState.EDITED)
        if held and not (failed and row.failed):
            left.append((row, f"{row.state.label} by an operator"))
        elif (failed and row.failed) or (scheduled and not held):
            chosen.append(row)
        else:
            left.append((row, "not failed"))
    return chosen, left


def _abort_run(conn: Connection, name: str) -> None:
    conn.execute(
        "update workflow_run set finished_at = now(), outcome = 'aborted', error = 'stopped by an operator' "
        "where workflow = %s and finished_at is null",
        (name,),
    )


def _move(conn: Connection, name: str, event: WorkflowEvent) -> WorkflowRow:
    row = get(conn, name)
    target = next_state(row.state, event)
    if target is None:
        raise Conflict(f"{name} is {row.state.label}: {event.value} does not apply", "see `midsource workflow show`")
    done = conn.execute("update workflow set state = %s where name = %s and state = %s", (target, name, row.state))
    if done.rowcount != 1:
        raise Conflict(f"{name} changed its state meanwhile", "look again and repeat")
    return get(conn, name)
