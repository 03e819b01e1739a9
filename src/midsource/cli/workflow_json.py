"""Technical workflows and their runs as the command line prints them: JSON objects and cells of tables."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from midsource.engine.records import RunRow, WorkflowRow
from midsource.engine.restarting import Restart
from midsource.model import technical


def workflow(row: WorkflowRow, role: str, now: datetime) -> dict[str, Any]:
    """Return one workflow as JSON."""
    return {
        "name": row.name,
        "label": technical.label(row.name),
        "role": role,
        "state": row.state.label,
        "failed": row.failed,
        "schedule": row.schedule,
        "zone": row.zone,
        "valid_from": row.valid_from,
        "valid_to": row.valid_to,
        "runs_left": row.runs_left,
        "between": row.hours,
        "last_run": row.last_run_at,
        "last_success": row.last_success_at,
        "next_run": row.next_run,
        "next_ticks": row.next_ticks(now),
        "skipped": row.skipped_at,
        "consecutive_failures": row.consecutive_failures,
        "last_error": row.last_error,
        "held_at": row.held_at,
        "held_by": row.held_by,
    }


def run(row: RunRow) -> dict[str, Any]:
    """Return one run as JSON."""
    names = (
        "id", "asked_at", "asked_by", "started_at", "finished_at", "seconds", "slices", "rows_read", "rows_written",
        "rows_refused", "window_from", "window_to", "outcome", "error_class", "error",
    )  # fmt: skip
    return {name: getattr(row, name) for name in names}


def restart(one: Restart, instance: str) -> dict[str, Any]:
    """Return one restart as JSON."""
    return {
        "instance": instance,
        "name": one.name,
        "run": one.run,
        "after_seconds": one.after_seconds,
        "different": one.different,
        "problem": one.problem,
    }


def state(row: WorkflowRow) -> str:
    """Return state and flag in one cell."""
    return f"{row.state.label}, failed" if row.failed else row.state.label


def run_cells(row: RunRow) -> tuple[Any, ...]:
    """Return one run as cells of a table."""
    outcome = row.outcome or ("running" if row.started_at else "waiting")
    seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
    counts = (row.slices, row.rows_read, row.rows_written, row.rows_refused)
    why = f"{row.error_class}: {row.error[:60]}" if row.error else ""
    return (str(row.id), row.asked_at, row.asked_by, outcome, seconds, *counts, row.window_from, row.window_to, why)


RUN_COLUMNS = (
    "run",
    "asked",
    "by",
    "outcome",
    "seconds",
    "slices",
    "read",
    "written",
    "refused",
    "from",
    "to",
    "error",
)
