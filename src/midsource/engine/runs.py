"""What the beginning and the end of a run do to its technical workflow: state, flag, breaker, journal. Each in the caller's transaction."""

from __future__ import annotations

from midsource.engine import journal, moves, records
from midsource.engine.ticks import back_off
from midsource.model.workflow import WorkflowEvent
from midsource.store.database import Connection, scalar

LASTING_FAILURES = 2
"""What a marked run counts for: it was tried more than once, so it is no passing failure (doctor/checks/workflows.py)."""


def begin(conn: Connection, name: str, run_id: int) -> bool:
    """Let the workflow run; False where an operator holds it since the slice was handed over: it waits then."""
    if moves.move(conn, name, WorkflowEvent.TICK) is None:
        return False
    conn.execute(
        "update workflow set last_run_at = started_at from workflow_run r "
        "where name = %s and r.id = %s and last_run_at is distinct from started_at",
        (name, run_id),
    )
    return True


def succeed(conn: Connection, name: str, run_id: int) -> None:
    """Close the breaker and say in the journal what the run did."""
    moves.move(conn, name, WorkflowEvent.SETTLED)
    conn.execute(
        "update workflow set failed = false, last_success_at = now(), consecutive_failures = 0, not_before = null, "
        "last_error = '', error_class = '' where name = %s",
        (name,),
    )
    run = records.get_run(conn, run_id)
    # Also where nothing happened: a journal without lines would look like a workflow that never ran.
    figures = f"read {run.rows_read}, written {run.rows_written}, refused {run.rows_refused}"
    journal.write(conn, name, run.id, "info", f"finished: {figures}")


def fail(conn: Connection, name: str, kind: str, sentence: str) -> None:
    """Raise the flag and open the breaker.

    The next try comes after the pause, not at the next tick: an hourly one would leave a delivery without its results for
    an hour because the database was away for a second.
    """
    moves.move(conn, name, WorkflowEvent.SETTLED)
    failures = scalar(
        conn,
        "update workflow set failed = true, last_error = %s, error_class = %s, "
        "consecutive_failures = consecutive_failures + 1 where name = %s returning consecutive_failures",
        (sentence, kind, name),
    )
    conn.execute("update workflow set not_before = now() + %s where name = %s", (back_off(failures or 1), name))


def mark(conn: Connection, name: str, run_id: int, failing: str) -> None:
    """Raise the flag of a workflow whose run goes on although something in it fails, or ('') lower it again.

    The breaker stays closed: what does not fail must not wait. Said once in the journal until it is another sentence.
    """
    if not failing:
        lowered = conn.execute(
            "update workflow set failed = false, consecutive_failures = 0, last_error = '', error_class = '' "
            "where name = %s and failed",
            (name,),
        ).rowcount
        if lowered:
            journal.write(conn, name, run_id, "info", "nothing fails any more; the run goes on")
        return
    raised = conn.execute(
        "update workflow set failed = true, last_error = %s, error_class = 'Failed', "
        "consecutive_failures = greatest(consecutive_failures, %s) where name = %s and (not failed or last_error <> %s)",
        (failing, LASTING_FAILURES, name, failing),
    ).rowcount
    if raised:
        journal.write(conn, name, run_id, "error", failing)
