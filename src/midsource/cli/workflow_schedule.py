"""`workflow schedule`: show when a workflow is due, or give it another schedule after showing what would come of it."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

import typer

from midsource.cli import asking
from midsource.cli.output import moment, say, say_json
from midsource.cli.session import Session
from midsource.engine import records, scheduling
from midsource.engine.records import WorkflowRow
from midsource.engine.scheduling import Wanted
from midsource.model.errors import UserError
from midsource.model.schedule import FORMS, Plan
from midsource.model.technical import TECHNICAL
from midsource.net.clock import SystemClock
from midsource.security import audit

NONE = "none"
"""What takes a bound away."""


def schedule(  # noqa: PLR0917 - one option each
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Internal name, as in defaultMidSourcingDlv.")],
    text: Annotated[str, typer.Argument(help=f"The schedule: {FORMS}.")] = "",
    zone: Annotated[str, typer.Option(help="IANA zone of its times, as in Europe/Paris.")] = "",
    begin: Annotated[str, typer.Option("--from", help="No run before this time; none: from now on.")] = "",
    end: Annotated[str, typer.Option("--to", help="No run from this time on; none: for ever.")] = "",
    runs: Annotated[str, typer.Option(help="How many runs by schedule; none: any number.")] = "",
    between: Annotated[str, typer.Option(help="A run begins only then, as in 22:00-06:00; none: at any time.")] = "",
    default: Annotated[bool, typer.Option("--default", help="Back to its own schedule.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Save without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the next ticks and save nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Show the schedule of a workflow and its next five ticks, or give it another one. What is not given stays."""
    session: Session = ctx.obj
    changes = {"text": text, "zone": zone, "valid_from": begin, "valid_to": end, "runs": runs, "hours": between}
    now = SystemClock().now()
    with session.open() as opened:
        with opened.database.connection() as conn:
            row = records.get(conn, name)
        if not default and not any(changes.values()):
            _show(row, now, json=json)
            return
        proposal = scheduling.propose(_default(name) if default else _changed(row, changes), now)
        if not json:
            _show_ticks(name, proposal.plan, proposal.ticks)
        saved = not dry_run and _confirmed(yes=yes)
        if saved:
            who, old = asking.visitor(), scheduling.described(row)
            with opened.database.transaction() as conn:
                row = scheduling.save(conn, name, proposal.plan, "" if default else who.name, now)
                audit.record(conn, who, "workflow.schedule", name, old=old, new=scheduling.described(row))
    if json:
        say_json(_as_json(name, proposal.plan, proposal.ticks, saved=saved))
    elif saved:
        held = "" if row.state.is_on_schedule else f"; it is {row.state.label}: `midsource workflow start {name}`"
        say(f"{name} on {opened.instance.name}: {scheduling.described(row)}{held}")
    else:
        say("nothing was changed")


def _default(name: str) -> Wanted:
    if name not in TECHNICAL:
        raise UserError(f"{name} has no default schedule", "write one")
    return Wanted(TECHNICAL[name].schedule)


def _changed(row: WorkflowRow, changes: dict[str, str]) -> Wanted:
    """Return the present schedule with what was given."""
    given: dict[str, Any] = {key: "" if value == NONE else value for key, value in changes.items() if value}
    if given.get("runs"):
        if not given["runs"].isdecimal() or not 1 <= int(given["runs"]) <= 1_000_000:
            raise UserError(f"{given['runs']!r} is not a number of runs", "write 1 to 1000000, or none")
        given["runs"] = int(given["runs"])
    elif "runs" in given:
        given["runs"] = None
    return replace(scheduling.present(row), **given)


def _confirmed(*, yes: bool) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UserError("nobody said yes, and nothing was changed", "repeat the command with --yes")
    return typer.confirm("Save?")


def _show(row: WorkflowRow, now: datetime, *, json: bool) -> None:
    plan = row.plan
    if json:
        say_json(_as_json(row.name, plan, row.next_ticks(now), saved=False))
        return
    say(f"{row.name}: {scheduling.described(row)}, set by {row.schedule_by or 'default'}")
    over = plan.why_over(now)
    held = "" if row.state.is_on_schedule else f"it is {row.state.label}"
    _show_ticks(row.name, plan, [] if held or over else plan.next_ticks(now), held or over)


def _show_ticks(name: str, plan: Plan, ticks: list[datetime], why: str = "") -> None:
    if not ticks:
        say(f"no run of {name} comes: {why}")
        return
    say(f"next runs of {name} by '{plan.schedule}' ({plan.zone.key}):")
    for tick in ticks:
        say(f"  {tick.astimezone(plan.zone):%a %Y-%m-%d %H:%M %Z}   {moment(tick)}")


def _as_json(name: str, plan: Plan, ticks: list[datetime], *, saved: bool) -> dict[str, Any]:
    return {
        "name": name,
        "schedule": str(plan.schedule),
        "zone": plan.zone.key,
        "valid_from": plan.valid_from,
        "valid_to": plan.valid_to,
        "runs_left": plan.runs_left,
        "between": str(plan.hours) if plan.hours else "",
        "next_ticks": ticks,
        "saved": saved,
    }
