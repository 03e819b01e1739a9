"""`workflow restart`: those named, those that failed, those with a schedule; of one instance or of all of the home."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import typer

from midsource.cli import asking, workflow_json
from midsource.cli.output import say, say_json
from midsource.cli.session import Opened, Session, need_worker
from midsource.engine import restarting
from midsource.engine.restarting import Restart
from midsource.model.errors import Failed, MidsourceError, UserError
from midsource.net.clock import SystemClock
from midsource.security import audit


@dataclass(slots=True)
class _Told:
    """What was said so far, for the JSON object and for the exit code."""

    restarted: list[dict[str, Any]] = field(default_factory=list)
    left: list[dict[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def restart(
    ctx: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(help="Internal names.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Everything that failed.")] = False,
    scheduled: Annotated[bool, typer.Option("--scheduled", help="Everything that has a schedule.")] = False,
    all_instances: Annotated[bool, typer.Option("--all-instances", help="On every instance of this home.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Restart workflows: clear flag and back-off, abort what is unfinished, run at once, a few seconds apart.

    What an operator paused or stopped is left, and said. A page in commit is not interrupted.
    """
    if not names and not failed and not scheduled:
        raise UserError("nothing to restart was named", "give names, --failed or --scheduled")
    session: Session = ctx.obj
    told = _Told()
    for one in _sessions(session, all_instances):
        try:
            with one.open() as opened:
                _restart(opened, names or [], failed, scheduled, dry_run, told)
        except MidsourceError as exc:  # one instance that cannot be reached holds up no other
            if not all_instances:
                raise
            told.problems.append(f"{one.name}: {exc.cause}")
    if json:
        say_json({"restarted": told.restarted, "left": told.left, "problems": told.problems, "dry_run": dry_run})
    if told.problems:
        raise Failed("not everything was restarted: " + "; ".join(told.problems), "mend that, and repeat the command")


def _sessions(session: Session, all_instances: bool) -> Iterator[Session]:
    if not all_instances:
        yield session
        return
    for instance in session.config().instances:
        yield replace(session, name=instance.name, role="")


def _restart(opened: Opened, names: list[str], failed: bool, scheduled: bool, dry_run: bool, told: _Told) -> None:
    where, who = opened.instance.name, asking.visitor()
    with opened.database.connection() as conn:
        chosen = restarting.choose(conn, names, failed=failed, scheduled=scheduled)
        looked = restarting.look(conn, chosen.rows)
    if dry_run:
        for one in looked:
            _tell(told, where, one, "would restart")
    elif chosen.rows:
        need_worker(opened)
        now = SystemClock().now()
        for one in restarting.restart_all(
            opened.database,
            chosen.rows,
            who.name,
            now,
            lambda conn, name, run: audit.record(conn, who, "workflow.restart", name, run=run),
        ):
            _tell(told, where, one, "restarted" if one.run is not None else "could not restart")
            if one.problem:
                told.problems.append(f"{one.name}: {one.problem.rstrip('.')}")
    for row, why in chosen.left:
        told.left.append({"instance": where, "name": row.name, "why": why})
        say(f"left {row.name} on {where}: {why}")


def _tell(told: _Told, where: str, one: Restart, verb: str) -> None:
    told.restarted.append(workflow_json.restart(one, where))
    run = f": run {one.run}" if one.run is not None else ""
    after = f", {one.after_seconds} s later" if one.after_seconds else ""
    what = one.problem or one.different
    say(f"{verb} {one.name} on {where}{run}{after}" + (f"; {what}" if what else ""))
