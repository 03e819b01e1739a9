"""`workflow list|show|start|pause|resume|stop|kill|run-now|restart|journal|schedule`: the technical workflows of an instance."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from midsource.cli import asking, workflow_json, workflow_restart, workflow_schedule
from midsource.cli.group import group
from midsource.cli.output import err, moment, say, say_json, say_table
from midsource.cli.session import Opened, Session, need_worker
from midsource.engine import admin, circuit, records, scheduling
from midsource.engine.records import WorkflowRow
from midsource.model import technical
from midsource.model.errors import Failed
from midsource.net.clock import SystemClock
from midsource.security import audit
from midsource.store.database import Connection

WAIT_SECONDS = 3600
"""A catch-up of years is many slices; who waits longer looks again later."""

app = group("Technical workflows: list, show, schedule, run now, restart, journal.")
Name = Annotated[str, typer.Argument(help="Internal name, as in defaultMidSourcingDlv.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow the run until it ends.")]
COLUMNS = ("name", "label", "state", "last success", "next run", "failures", "last error")

app.command("restart")(workflow_restart.restart)
app.command("schedule")(workflow_schedule.schedule)


@app.command("list")
def listing(ctx: typer.Context, json: Json = False) -> None:
    """List the technical workflows with state, last success and next run."""
    session: Session = ctx.obj
    with session.open() as opened, opened.database.connection() as conn:
        rows = records.listing(conn)
    if json:
        now = SystemClock().now()
        say_json({"workflows": [workflow_json.workflow(row, opened.instance.role, now) for row in rows]})
        return
    say_table(
        COLUMNS,
        [
            (
                r.name,
                technical.label(r.name),
                workflow_json.state(r),
                r.last_success_at,
                r.next_run,
                r.consecutive_failures,
                r.cause[:80],
            )
            for r in rows
        ],
    )


@app.command()
def show(ctx: typer.Context, name: Name, json: Json = False) -> None:
    """Show one workflow: schedule, next five ticks, what it waits for, and its last runs."""
    session: Session = ctx.obj
    now = SystemClock().now()
    with session.open() as opened, opened.database.connection() as conn:
        row, runs = records.get(conn, name), records.runs(conn, name)
    waits = str(circuit.breaker(row, now))
    if json:
        shown = workflow_json.workflow(row, opened.instance.role, now)
        say_json(shown | {"waits": waits, "runs": [workflow_json.run(run) for run in runs]})
        return
    say(f"{row.name} ({technical.label(name) or 'technical workflow'}): {workflow_json.state(row)}")
    say(f"schedule {scheduling.described(row)}; last success {moment(row.last_success_at) or 'never'}")
    say(f"next run {moment(row.next_run) or 'none'}; ticks {', '.join(map(moment, row.next_ticks(now))) or 'none'}")
    if row.held_at:
        say(f"{row.state.label} by {row.held_by or admin.OPERATOR} since {moment(row.held_at)}")
    if row.last_error:
        say(f"last error: {row.last_error}")
    if waits:
        say(waits)
    say_table(workflow_json.RUN_COLUMNS, [workflow_json.run_cells(run) for run in runs])


@app.command()
def start(ctx: typer.Context, name: Name, json: Json = False) -> None:
    """Put a paused or stopped workflow back on its schedule."""
    _order(ctx, name, "start", json, lambda conn, _: admin.start(conn, name, SystemClock().now()))


app.command("resume", help="Resume a paused workflow (the same as start).")(start)


@app.command()
def pause(ctx: typer.Context, name: Name, json: Json = False) -> None:
    """Hold a workflow: the page under way is finished, then it waits for `start`."""
    _order(ctx, name, "pause", json, lambda conn, by: admin.pause(conn, name, by))


@app.command()
def stop(ctx: typer.Context, name: Name, json: Json = False) -> None:
    """End a workflow: its run is aborted after the page under way, no tick comes any more."""
    _order(ctx, name, "stop", json, lambda conn, by: admin.stop(conn, name, by))


@app.command()
def kill(ctx: typer.Context, name: Name, json: Json = False) -> None:
    """Stop unconditionally: also where its machine is gone. Its run is aborted, its statements are cancelled in the database."""
    who = asking.visitor()
    with _transaction(ctx) as (opened, conn):
        killed = admin.kill(conn, name, who.name)
        audit.record(conn, who, "workflow.kill", name, run=killed.run, sessions=killed.sessions)
    if json:
        say_json({"name": name, "state": "finished", "run": killed.run, "sessions": killed.sessions})
        return
    run = "no run was under way" if killed.run is None else f"run {killed.run} is aborted"
    say(f"{name} on {opened.instance.name} is finished; {run}, {killed.sessions} database sessions cancelled")


@app.command("run-now")
def run_now(ctx: typer.Context, name: Name, wait: Wait = False, json: Json = False) -> None:
    """Ask for a run at once."""
    session: Session = ctx.obj
    with session.open() as opened:
        need_worker(opened)
        with opened.database.transaction() as conn:
            who = asking.visitor()
            run_id = admin.run_now(conn, name, who.name)
            audit.record(conn, who, "workflow.run-now", name, run=run_id)
        report_run(opened, run_id, wait=wait, json=json)


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


def _order(
    ctx: typer.Context, name: str, verb: str, json: bool, carry_out: Callable[[Connection, str], WorkflowRow]
) -> None:
    """Carry out an order in one transaction with its row in the audit, and say what state came of it."""
    who = asking.visitor()
    with _transaction(ctx) as (opened, conn):
        row = carry_out(conn, who.name)
        audit.record(conn, who, f"workflow.{verb}", name)
    if json:
        say_json(workflow_json.workflow(row, opened.instance.role, SystemClock().now()))
        return
    following = f"; next run {moment(row.next_run)}" if row.next_run else ""
    say(f"{name} on {opened.instance.name} is {row.state.label}{following}")


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
        say_json(workflow_json.run(run))
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
