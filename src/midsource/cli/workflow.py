"""`workflow list|show|start|pause|resume|stop|run-now|restart|journal`: the technical workflows of an instance."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from midsource.cli import asking
from midsource.cli.group import group
from midsource.cli.output import err, moment, say, say_json, say_table
from midsource.cli.session import Opened, Session, need_worker
from midsource.engine import admin, records
from midsource.model.errors import Failed, UserError
from midsource.net.clock import SystemClock
from midsource.security import audit
from midsource.store.database import Connection
from midsource.workflows import WORKFLOWS

WAIT_SECONDS = 3600
"""A catch-up of years is many slices; who waits longer looks again later."""

LABELS = {module.NAME: module.LABEL for module in WORKFLOWS}

app = group("Technical workflows: list, show, run now, restart, journal.")
Name = Annotated[str, typer.Argument(help="Internal name, as in defaultMidSourcingDlv.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow the run until it ends.")]


@app.command("list")
def listing(ctx: typer.Context, json: Json = False) -> None:
    """List the technical workflows with state, last success and next run."""
    session: Session = ctx.obj
    with session.open() as opened, opened.database.connection() as conn:
        rows = records.listing(conn)
    if json:
        say_json({"workflows": [_as_json(row, opened.instance.role) for row in rows]})
        return
    columns = ("name", "label", "state", "last success", "next run", "failures", "last error")
    say_table(
        columns,
        [
            (
                r.name,
                LABELS.get(r.name, ""),
                _state(r),
                r.last_success_at,
                r.next_run,
                r.consecutive_failures,
                r.last_error[:80],
            )
            for r in rows
        ],
    )


@app.command()
def show(ctx: typer.Context, name: Name, json: Json = False) -> None:
    """Show one workflow and its last runs."""
    session: Session = ctx.obj
    with session.open() as opened, opened.database.connection() as conn:
        row, runs = records.get(conn, name), records.runs(conn, name)
    if json:
        say_json(_as_json(row, opened.instance.role) | {"runs": [_run_json(run) for run in runs]})
        return
    say(f"{row.name} ({LABELS.get(row.name, 'technical workflow')}): {_state(row)}")
    say(
        f"schedule {row.schedule} ({row.zone}); next run {moment(row.next_run)}; last success {moment(row.last_success_at)}"
    )
    if row.last_error:
        say(f"last error: {row.last_error}")
    columns = ("run", "asked", "by", "outcome", "slices", "read", "written", "refused", "from", "to", "error")
    say_table(columns, [_run_row(run) for run in runs])


@app.command()
def start(ctx: typer.Context, name: Name) -> None:
    """Put a paused or stopped workflow back on its schedule."""
    with _transaction(ctx) as (opened, conn):
        row = admin.start(conn, name, SystemClock().now())
        audit.record(conn, asking.visitor(), "workflow.start", name)
    say(f"{name} on {opened.instance.name} is {row.state.label}; next run {moment(row.next_run)}")


app.command("resume", help="Resume a paused workflow (the same as start).")(start)


@app.command()
def pause(ctx: typer.Context, name: Name) -> None:
    """Hold a workflow: the page under way is finished, then it waits for `start`."""
    with _transaction(ctx) as (opened, conn):
        row = admin.pause(conn, name)
        audit.record(conn, asking.visitor(), "workflow.pause", name)
    say(f"{name} on {opened.instance.name} is {row.state.label}")


@app.command()
def stop(ctx: typer.Context, name: Name) -> None:
    """End a workflow: its run is aborted after the page under way, no tick comes any more."""
    with _transaction(ctx) as (opened, conn):
        row = admin.stop(conn, name)
        audit.record(conn, asking.visitor(), "workflow.stop", name)
    say(f"{name} on {opened.instance.name} is {row.state.label}")


@app.command("run-now")
def run_now(ctx: typer.Context, name: Name, wait: Wait = False, json: Json = False) -> None:
    """Ask for a run at once."""
    session: Session = ctx.obj
    with session.open() as opened:
        need_worker(opened)
        with opened.database.transaction() as conn:
            who = asking.visitor()
            run_id = admin.run_now(conn, name, who.name)
            audit.record(conn, who, "workflow.run", name, run=run_id)
        report_run(opened, run_id, wait=wait, json=json)


@app.command()
def restart(
    ctx: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(help="Internal names.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Everything that failed.")] = False,
    scheduled: Annotated[bool, typer.Option("--scheduled", help="Everything that has a schedule.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
) -> None:
    """Restart workflows: clear flag and back-off, abort what is unfinished, run at once."""
    if not names and not failed and not scheduled:
        raise UserError("nothing to restart was named", "give names, --failed or --scheduled")
    session: Session = ctx.obj
    who = asking.visitor()
    with session.open() as opened:
        if not dry_run:
            need_worker(opened)
        with opened.database.connection() as conn:
            rows = records.listing(conn)
            chosen, left = admin.restart_candidates(rows, failed=failed, scheduled=scheduled)
            chosen += [records.get(conn, name) for name in names or [] if name not in {row.name for row in chosen}]
        for row in chosen:
            if dry_run:
                say(f"would restart {row.name} ({_state(row)})")
                continue
            with opened.database.transaction() as conn:
                run_id = admin.restart(conn, row.name, who.name, SystemClock().now())
                audit.record(conn, who, "workflow.restart", row.name, run=run_id)
            say(f"restarted {row.name}: run {run_id}")
        for row, why in left:
            if row.name not in (names or []):
                say(f"left {row.name}: {why}")


@app.command()
def journal(
    ctx: typer.Context,
    name: Name,
    lines: Annotated[int, typer.Option("-n", min=1, max=5000, help="How many of the last lines.")] = 50,
    json: Json = False,
) -> None:
    """Show the last journal lines of a workflow."""
    session: Session = ctx.obj
    with session.open() as opened, opened.database.connection() as conn:
        records.get(conn, name)
        found = records.journal(conn, name, lines)
    if json:
        say_json({"journal": [{"at": at, "level": level, "line": line} for at, level, line in found]})
        return
    for at, level, line in found:
        say(f"{moment(at)} {level:<7} {line}")


@contextmanager
def _transaction(ctx: typer.Context) -> Iterator[tuple[Opened, Connection]]:
    session: Session = ctx.obj
    with session.open() as opened, opened.database.transaction() as conn:
        yield opened, conn


def report_run(opened: Opened, run_id: int, *, wait: bool, json: bool) -> None:
    """Say the id of a run, or follow it to its end; raises Failed with the run's own error."""
    if not wait:
        if json:
            say_json({"run": run_id})
        else:
            say(f"run {run_id} is asked for; follow it with `midsource workflow show`")
        return
    with opened.database.connection() as conn:
        run = _follow(conn, run_id)
    if json:
        say_json(_run_json(run))
    else:
        say(f"run {run.id} {run.outcome}: read {run.rows_read}, written {run.rows_written}, refused {run.rows_refused}")
    if run.outcome != "finished":
        raise Failed(f"run {run.id} {run.outcome}", run.error.rstrip(".") or "see `midsource workflow journal`")


def _follow(conn: Connection, run_id: int) -> records.RunRow:
    deadline = time.monotonic() + WAIT_SECONDS
    with err.status(f"run {run_id}") as shown:
        while (run := records.get_run(conn, run_id)).outcome is None:
            if time.monotonic() > deadline:
                raise Failed(f"run {run_id} goes on after {WAIT_SECONDS} s", "it is not stopped; look again later")
            shown.update(f"run {run_id}: slice {run.slices + 1}, {run.rows_written} rows written, at {run.window_to}")
            time.sleep(0.2)
    return run


def _state(row: records.WorkflowRow) -> str:
    return f"{row.state.label}, failed" if row.failed else row.state.label


def _as_json(row: records.WorkflowRow, role: str) -> dict[str, Any]:
    return {
        "name": row.name,
        "label": LABELS.get(row.name, ""),
        "role": role,
        "state": row.state.label,
        "failed": row.failed,
        "schedule": row.schedule,
        "zone": row.zone,
        "last_run": row.last_run_at,
        "last_success": row.last_success_at,
        "next_run": row.next_run,
        "consecutive_failures": row.consecutive_failures,
        "last_error": row.last_error,
    }


def _run_json(run: records.RunRow) -> dict[str, Any]:
    names: tuple[str, ...] = (
        "id",
        "asked_at",
        "asked_by",
        "started_at",
        "finished_at",
        "slices",
        "rows_read",
        "rows_written",
    )
    names += ("rows_refused", "window_from", "window_to", "outcome", "error")
    return {name: getattr(run, name) for name in names}


def _run_row(run: records.RunRow) -> tuple[Any, ...]:
    outcome = run.outcome or ("running" if run.started_at else "waiting")
    counts = (run.slices, run.rows_read, run.rows_written, run.rows_refused)
    return (str(run.id), run.asked_at, run.asked_by, outcome, *counts, run.window_from, run.window_to, run.error[:60])
