"""The verbs of technical workflows. Each is one transaction of the caller's; none waits for a run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from midsource.engine import circuit, journal, moves, records
from midsource.engine.records import WorkflowRow
from midsource.model.errors import Conflict, UserError
from midsource.model.workflow import WorkflowEvent, WorkflowState
from midsource.store.database import Connection, scalar

OPERATOR = "an operator"
KILLED = "Killed"
"""Class of the error of a killed run: its slice writes nothing more, also where it is at the end of a page."""


@dataclass(frozen=True, slots=True)
class Killed:
    """What an unconditional stop ended: the run (None: there was none), and how many of its sessions were cancelled."""

    run: int | None
    sessions: int


def start(conn: Connection, name: str, now: datetime) -> WorkflowRow:
    """Put a paused or stopped workflow back on its schedule. Raises Conflict where no tick would come."""
    row = records.get(conn, name)
    over = row.plan.why_over(now)
    if over:
        raise Conflict(
            f"{name} would have no run: {over}", f"give it a schedule with `midsource workflow schedule {name}`"
        )
    _move(conn, row, WorkflowEvent.START)
    conn.execute("update workflow set next_at = %s where name = %s", (row.plan.next_tick(now), name))
    return records.get(conn, name)


def pause(conn: Connection, name: str, by: str = OPERATOR) -> WorkflowRow:
    """Hold a workflow: the slice under way goes on, its next slice and the ticks wait until it is started again."""
    _move(conn, records.get(conn, name), WorkflowEvent.PAUSE, by)
    return records.get(conn, name)


def stop(conn: Connection, name: str, by: str = OPERATOR) -> WorkflowRow:
    """End a workflow: its unfinished run is aborted (the slice leaves at its next page), no tick comes any more."""
    row = records.get(conn, name)
    _abort_run(conn, name, f"stopped by {by}", "Stopped")
    _move(conn, row, WorkflowEvent.STOP, by)
    return records.get(conn, name)


def kill(conn: Connection, name: str, by: str = OPERATOR) -> Killed:
    """Stop a workflow unconditionally: in any state, without asking the machine that runs it, and at once.

    Its unfinished run is aborted and fenced off, the statements of its sessions are cancelled in the database (a session that
    idles in a transaction is ended), and the leader takes its slice out of the queue.
    """
    row = records.get(conn, name)
    run = _abort_run(conn, name, f"killed by {by}", KILLED)
    moves.move(conn, name, WorkflowEvent.STOP, by)
    sessions = 0 if run is None else _cancel_sessions(conn, run)
    said = (
        "no run was under way" if run is None else f"run {run} aborted, {sessions} of its database sessions cancelled"
    )
    journal.write(conn, row.name, run, "warning", f"killed by {by}: {said}")
    return Killed(run, sessions)


def run_now(conn: Connection, name: str, by: str, *, after_seconds: float = 0) -> int:
    """Ask for a run at once and return its id; one that is unfinished already is made due and its id returned.

    Raises Conflict for a paused or stopped workflow: start it first.
    """
    row = records.get(conn, name)
    if not row.state.is_on_schedule:
        raise Conflict(f"{name} is {row.state.label}", f"run `midsource workflow start {name}` first")
    conn.execute(
        "insert into workflow_run (workflow, asked_by, due_at) values (%s, %s, now() + make_interval(secs => %s)) "
        "on conflict (workflow) where finished_at is null "
        "do update set due_at = case when workflow_run.enqueued_at is null then now() else workflow_run.due_at end",
        (name, by, after_seconds),
    )
    run = scalar(conn, "select id from workflow_run where workflow = %s and finished_at is null", (name,))
    assert run is not None
    return int(run)


def bring_forward(conn: Connection, name: str, at: datetime) -> None:
    """Let the next tick of ``name`` come no later than ``at``: what a run could not do yet is then done."""
    conn.execute("update workflow set next_at = least(next_at, %s) where name = %s", (at, name))


def restart(conn: Connection, name: str, by: str, now: datetime, *, after_seconds: float = 0) -> int:
    """Abort what is unfinished, clear flag and back-off, start, and ask for a run; return its id.

    A page in commit is not interrupted: the aborted slice leaves at its next page, and the pointer is in that page's
    transaction, so the new run goes on from there. The engine begins no run of a workflow whose slice is still leaving.
    """
    row = records.get(conn, name)
    advice = circuit.different(row, records.runs(conn, name, circuit.RUNS_LOOKED_AT))
    _abort_run(conn, name, f"restarted by {by}", "Restarted")
    _move(conn, row, WorkflowEvent.RESTART, by)
    conn.execute(
        "update workflow set failed = false, consecutive_failures = 0, not_before = null, next_at = %s where name = %s",
        (_next_tick(row, now), name),
    )
    run = run_now(conn, name, by, after_seconds=after_seconds)
    journal.write(conn, name, run, "info", f"restarted by {by}" + (f": {advice}" if advice else ""))
    return run


def _next_tick(row: WorkflowRow, now: datetime) -> datetime | None:
    try:
        return row.plan.next_tick(now)
    except UserError:  # the leader says so on the workflow itself, and all else of a restart goes on
        return None


def _abort_run(conn: Connection, name: str, why: str, kind: str) -> int | None:
    """Abort the unfinished run; return its id, None where there is none."""
    run = scalar(
        conn,
        "update workflow_run set finished_at = now(), outcome = 'aborted', error = %s, error_class = %s "
        "where workflow = %s and finished_at is null returning id",
        (why, kind, name),
    )
    return None if run is None else int(run)


def _cancel_sessions(conn: Connection, run: int) -> int:
    """Cancel what the sessions of a run do, wherever their process is; return how many there were."""
    return int(
        scalar(
            conn,
            "select count(*) filter (where case when state like 'idle in transaction%%' then pg_terminate_backend(pid) "
            "else pg_cancel_backend(pid) end) from pg_stat_activity where datname = current_database() "
            "and pid <> pg_backend_pid() and state <> 'idle' and pg_has_role(usesysid, 'USAGE') "
            "and right(application_name, length(%(work)s)) = %(work)s",
            {"work": f" {session_name(run)}"},
        )
        or 0
    )


def session_name(run: int) -> str:
    """Return what the database sessions of a run are called, after the name of their process."""
    return f"run:{run}"


def _move(conn: Connection, row: WorkflowRow, event: WorkflowEvent, by: str = OPERATOR) -> WorkflowState:
    state = moves.move(conn, row.name, event, by)
    if state is None:
        now = records.get(conn, row.name)
        raise Conflict(
            f"{row.name} is {now.state.label}: {event.value} does not apply", "see `midsource workflow show`"
        )
    return state
