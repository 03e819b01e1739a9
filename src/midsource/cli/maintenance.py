"""`maintenance status|vacuum|reindex|actions`: upkeep of an instance's database, on either role.

`status` measures and decides, and changes nothing. `vacuum` and `reindex` ask the workflow databaseMaintenance for an
action by name; `--print-sql` and `--advise` execute nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import typer

from midsource.cli import asking
from midsource.cli.group import group
from midsource.cli.output import err, moment, say, say_json, say_table
from midsource.cli.session import Opened, Session, need_worker
from midsource.engine import admin
from midsource.model.errors import Failed, Unhealthy
from midsource.model.maintenance import Act, Outcome, Step
from midsource.net.clock import SystemClock
from midsource.policy.sizes import size
from midsource.security import audit
from midsource.store.maintenance import actions, measuring, settings
from midsource.store.maintenance import status as reading
from midsource.store.maintenance.orders import ordered
from midsource.store.maintenance.statements import statement
from midsource.workflows import database_maintenance

FORECASTS_SHOWN = 5
WAIT_SECONDS = 4 * 3600
"""As long as an ordered action may take; who waits longer looks again later."""

app = group("Upkeep of the database: status, vacuum, reindex, actions.")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Relations = Annotated[list[str] | None, typer.Argument(help="Tables (all partitions of a parent), or indexes.")]
PrintSql = Annotated[bool, typer.Option("--print-sql", help="Print the SQL and do nothing.")]
Advise = Annotated[bool, typer.Option("--advise", help="Keep it as advice for the DBA; execute nothing.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until it is done.")]


@app.command()
def status(ctx: typer.Context, json: Json = False) -> None:
    """Say what is wrong, what it costs and what will be done, worst first; exit 3 when something does not wait."""
    session: Session = ctx.obj
    with session.open() as opened, opened.database.connection() as conn:
        found = reading.read(conn, SystemClock().now())
    if json:
        say_json(reading.as_dict(found))
    else:
        _show(opened, found)
    if found.is_urgent:
        raise typer.Exit(Unhealthy.exit_code)


@app.command()
def vacuum(
    ctx: typer.Context,
    relations: Relations = None,
    print_sql: PrintSql = False,
    advise: Advise = False,
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Vacuum and analyse tables at once, whatever the hour; without names those that need it."""
    _order(ctx, Act.VACUUM_ANALYZE, relations or [], print_sql=print_sql, advise=advise, wait=wait, json=json)


@app.command()
def reindex(
    ctx: typer.Context,
    relations: Relations = None,
    print_sql: PrintSql = False,
    advise: Advise = False,
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Rebuild indexes concurrently, whatever the hour; without names those that need it."""
    _order(ctx, Act.REINDEX, relations or [], print_sql=print_sql, advise=advise, wait=wait, json=json)


@app.command("actions")
def actions_(
    ctx: typer.Context,
    lines: Annotated[int, typer.Option("-n", min=1, max=1000, help="How many of the last actions.")] = 20,
    json: Json = False,
) -> None:
    """List what maintenance did: duration, size before and after, and how it ended."""
    session: Session = ctx.obj
    with session.open() as opened, opened.database.connection() as conn:
        found = actions.latest(conn, lines)
    if json:
        say_json({"actions": [reading.action_as_dict(action) for action in found]})
    else:
        _show_actions(found)


def _order(
    ctx: typer.Context, act: Act, names: Sequence[str], *, print_sql: bool, advise: bool, wait: bool, json: bool
) -> None:
    session: Session = ctx.obj
    who = asking.visitor()
    with session.open() as opened:
        with opened.database.connection() as conn:
            chosen, _ = settings.read(conn)
            steps = ordered(measuring.measure(conn, SystemClock().now()), chosen, act, names, by=who.name)
        if print_sql:
            _print(steps, json=json)
            return
        if advise or chosen.advises:
            with opened.database.transaction() as conn:
                kept = actions.advise(conn, steps, who.name, None)
                audit.record(conn, who, "maintenance.advise", opened.instance.name, act=act, actions=kept)
            err.print(f"nothing is executed; {kept} statements are kept as advice", markup=False)
            _print(steps, json=json)
            return
        if not steps:
            say_json({"actions": []}) if json else say(f"nothing needs {act} now")
            return
        need_worker(opened)
        ids = _ask(opened, steps, act)
        if wait:
            _follow(opened, ids)
        _tell(opened, ids, json=json, waited=wait)


def _print(steps: Sequence[Step], *, json: bool) -> None:
    if json:
        say_json({"statements": [reading.step_as_dict(step) for step in steps]})
        return
    say("-- outside a transaction (psql without -1); each takes SHARE UPDATE EXCLUSIVE at most")
    for step in steps:
        say(f"-- {step.reason}{': ' + step.why_not if step.why_not else ''}")
        say(f"{statement(step)};")


def _ask(opened: Opened, steps: Sequence[Step], act: Act) -> list[int]:
    who = asking.visitor()
    with opened.database.transaction() as conn:
        ids = actions.ask(conn, [replace(step, why_not="") for step in steps], who.name)
        run = admin.run_now(conn, database_maintenance.NAME, who.name)
        audit.record(conn, who, f"maintenance.{act.split()[0]}", opened.instance.name, run=run, actions=len(ids))
    return ids


def _follow(opened: Opened, ids: Sequence[int]) -> None:
    """Wait until all of ``ids`` have ended; a run that ended without seeing them is asked for again."""
    deadline = time.monotonic() + WAIT_SECONDS
    with err.status("maintenance") as shown:
        while open_ := _open(opened, ids):
            if time.monotonic() > deadline:
                raise Failed(f"maintenance goes on after {WAIT_SECONDS} s", "it is not stopped; look again later")
            running = [action for action in open_ if action.outcome == Outcome.RUNNING]
            shown.update(f"{len(ids) - len(open_)} of {len(ids)}: {running[0].statement if running else 'waiting'}")
            if not running:
                with opened.database.transaction() as conn:
                    admin.run_now(conn, database_maintenance.NAME, asking.visitor().name)
            time.sleep(0.5)


def _open(opened: Opened, ids: Sequence[int]) -> list[actions.ActionRow]:
    with opened.database.connection() as conn:
        found = actions.of(conn, ids)
    return [action for action in found if action.outcome in (Outcome.ASKED, Outcome.RUNNING)]


def _tell(opened: Opened, ids: Sequence[int], *, json: bool, waited: bool) -> None:
    with opened.database.connection() as conn:
        found = actions.of(conn, ids)
    if json:
        say_json({"actions": [reading.action_as_dict(action) for action in found]})
    elif waited:
        _show_actions(found)
    else:
        for action in found:
            say(f"asked for: {action.statement}")
        say("follow it with `midsource maintenance actions`")
    wrong = [action for action in found if action.outcome in (Outcome.FAILED, Outcome.CUT, Outcome.SKIPPED)]
    if waited and wrong:
        raise Failed(
            f"{wrong[0].statement} {wrong[0].outcome}: {wrong[0].error}", "see `midsource maintenance actions`"
        )


def _show(opened: Opened, found: reading.Status) -> None:
    window = found.settings.window
    when = "now" if found.opens_at <= found.measures.at else f"next {moment(found.opens_at)}"
    mode = "advises only" if found.settings.advises else "executes"
    say(
        f"{opened.instance.name}: {size(found.measures.server.database_bytes)}; maintenance {mode}, {window} {window.zone} ({when})"
    )
    if found.remarks:
        say_table(
            ("", "what", "of", "wrong", "costs", "done about it"),
            [(r.level, r.kind, r.subject, r.wrong, r.costs, r.remedy) for r in found.remarks],
        )
    else:
        say("nothing is wrong")
    drawn = [forecast for forecast in found.forecasts if forecast.per_day is not None]
    for forecast in drawn[:FORECASTS_SHOWN]:
        say(
            f"{forecast.kind} {forecast.name}: {forecast.sentence}".replace(
                f"{forecast.kind} {forecast.kind}", forecast.kind
            )
        )
    if not drawn:
        say("no forecast yet: it needs samples of three days, which the workflow doctor takes")
    for sentence in [*found.measures.unseen, *found.broken]:
        say(f"not seen: {sentence}.")
    if found.actions:
        _show_actions(found.actions[:5])


def _show_actions(found: Sequence[actions.ActionRow]) -> None:
    say_table(
        ("began", "act", "relation", "outcome", "seconds", "before", "after", "why", "error"),
        [
            (
                row.began_at or row.asked_at, row.act, row.relation, row.outcome,
                "" if row.seconds is None else f"{row.seconds:.1f}",
                "" if row.bytes_before is None else size(row.bytes_before),
                "" if row.bytes_after is None else size(row.bytes_after), row.reason, row.error,
            )
            for row in found
        ],
    )  # fmt: skip
