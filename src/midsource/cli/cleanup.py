"""`cleanup`: what each step of the database cleanup did last and would remove now, or a run of it at once."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from midsource.cli import asking
from midsource.cli.group import group
from midsource.cli.output import say_json, say_table
from midsource.cli.session import Session, need_worker
from midsource.cli.workflow import report_run
from midsource.net.clock import SystemClock
from midsource.security import audit
from midsource.workflows import cleanup as workflow
from midsource.workflows.cleanup import StepView

app = group()


@app.command()
def cleanup(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and change nothing.")] = False,
    step: Annotated[str, typer.Option(help="One step only, by its name.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run until it ends.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Remove what was kept for its time, on the instance that --role or --instance names: a run at once, or a dry run."""
    session: Session = ctx.obj
    with session.open() as opened:
        if dry_run:
            now = SystemClock().now()
            views = workflow.overview(opened.database, opened.config.home, opened.instance, now, only=step)
            _show(views, json=json)
            return
        need_worker(opened)
        who = asking.visitor()
        with opened.database.transaction() as conn:
            run_id = workflow.ask(conn, opened.instance.role, who.name, step)
            audit.record(conn, who, "workflow.run-now", workflow.NAME, run=run_id, step=step)
        report_run(opened, run_id, wait=wait, json=json)


def _show(views: list[StepView], *, json: bool) -> None:
    if json:
        say_json({"steps": [as_json(view) for view in views]})
        return
    columns = ("step", "rows now", "MB", "kept", "next", "last", "rows", "seconds", "outcome", "note")
    say_table(columns, [_row(view) for view in views])


def as_json(view: StepView) -> dict[str, Any]:
    """Return a step as JSON writes it."""
    names = ("ended_at", "rows", "bytes", "seconds", "outcome", "error", "rows_before", "rows_after", "failures")
    last = view.last
    return {
        "name": view.name, "removes": view.removes, "option": view.option, "kept_seconds": int(view.kept.total_seconds()),
        "rows": view.forecast.rows, "bytes": view.forecast.bytes, "next_at": view.forecast.next_at,
        "note": view.forecast.note, "last": None if last is None else {name: getattr(last, name) for name in names},
    }  # fmt: skip


def _row(view: StepView) -> tuple[Any, ...]:
    seen, last = view.forecast, view.last
    kept = f"{view.kept.total_seconds() / 86_400:g}d" if view.kept else ""
    now = (view.name, seen.rows, f"{seen.bytes / 1_000_000:.1f}", kept, seen.next_at)
    note = seen.note or (last.error if last else "")
    if last is None:
        return (*now, None, None, None, "", note)
    return (*now, last.ended_at, last.rows, f"{last.seconds:.1f}", last.outcome or "under way", note)
