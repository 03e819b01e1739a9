"""`delivery create|proof|prepare|send|pause|resume|stop|show|list|logs|explain|recompute|reconcile|stats`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from midsource.cli import asking
from midsource.cli.follow import Progress, follow, read, resolve
from midsource.cli.group import group
from midsource.cli.output import say, say_json, say_table
from midsource.cli.recompute import recompute
from midsource.cli.reconcile import reconcile
from midsource.cli.session import Opened, Session, need_worker
from midsource.cli.stats import stats
from midsource.engine import jobs
from midsource.marketing import (
    deliveries,
    delivery_log,
    explain,
    link_journal,
    orders,
    planned,
    proofs,
    recipients,
    slow_phases,
)
from midsource.marketing.deliveries import Delivery
from midsource.model.delivery import DeliveryState
from midsource.model.errors import UserError
from midsource.model.message import MessageState, Reason
from midsource.net.clock import SystemClock
from midsource.security import audit
from midsource.store.database import Connection

app = group("Create, prepare, send, watch and explain deliveries.")
Id = Annotated[str, typer.Argument(metavar="ID", help="Number of the delivery, or `last`.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow it with progress until it is done.")]


@app.command()
def create(
    ctx: typer.Context,
    file: Annotated[Path, typer.Option("--file", help="TOML file; content files stand beside it.")],
    json: Json = False,
) -> None:
    """Create a delivery from a file."""
    session: Session = ctx.obj
    with session.open("marketing") as opened, opened.database.transaction() as conn:
        number = deliveries.create_from_toml(conn, file, SystemClock())
        audit.record(conn, asking.visitor(), "delivery.create", number)
    if json:
        say_json({"id": number})
    else:
        say(f"delivery {number} is created; next `midsource delivery prepare {number}`")


@app.command()
def proof(
    ctx: typer.Context,
    number: Id,
    people: Annotated[
        list[str] | None, typer.Option("--as", help="Whose message (address); default: the first of the target.")
    ] = None,
    to: Annotated[list[str] | None, typer.Option(help="Seed address; default: all of them.")] = None,
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Send the messages of chosen people to seed addresses, the whole way, as a proof of the delivery (BAT)."""
    session: Session = ctx.obj
    with session.open("marketing") as opened:
        need_worker(opened)
        with opened.database.transaction() as conn:
            found = resolve(conn, number)
            chosen = [recipients.by_email(conn, email)[0].id for email in people or []]
            who = asking.visitor()
            made = proofs.send_proof(conn, found.id, people=chosen, to=to or [], by=who.name, clock=SystemClock())
            audit.record(conn, who, "delivery.proof", found.id, proof=made, people=len(chosen), seeds=len(to or []))
        if wait or json:
            _tell(opened, made, "", wait=wait, json=json, until=lambda now: now.is_over)
        else:
            say(f"proof {made} is under way; see `midsource delivery show {made}`")


@app.command()
def prepare(ctx: typer.Context, number: Id, wait: Wait = False, json: Json = False) -> None:
    """Target, check, personalise and hand over; nothing is sent before `delivery send`."""
    session: Session = ctx.obj
    with session.open("marketing") as opened:
        need_worker(opened)
        with opened.database.transaction() as conn:
            found = resolve(conn, number)
            deliveries.start_preparation(conn, found.id)
            who = asking.visitor()
            job = jobs.ask(conn, "prepare", found.id, who.name)
            audit.record(conn, who, "delivery.prepare", found.id)
        _tell(opened, found.id, job, wait=wait, json=json, until=lambda now: now.is_prepared)


@app.command()
def send(ctx: typer.Context, number: Id, wait: Wait = False, json: Json = False) -> None:
    """Confirm a delivery: it is prepared and handed over if it is not yet, then the mid sends it."""
    _order(ctx, number, "start", wait=wait, json=json, until=lambda now: now.is_over)


@app.command()
def pause(ctx: typer.Context, number: Id, wait: Wait = False, json: Json = False) -> None:
    """Pause it; while the link is cut the order shows as not confirmed."""
    _order(ctx, number, "pause", wait=wait, json=json, until=lambda now: not now.delivery.is_unconfirmed)


@app.command()
def resume(ctx: typer.Context, number: Id, wait: Wait = False, json: Json = False) -> None:
    """Go on with a paused delivery."""
    _order(ctx, number, "resume", wait=wait, json=json, until=lambda now: not now.delivery.is_unconfirmed)


@app.command()
def stop(ctx: typer.Context, number: Id, wait: Wait = False, json: Json = False) -> None:
    """Stop it for good: what is not sent yet is cancelled."""
    _order(ctx, number, "stop", wait=wait, json=json, until=lambda now: not now.delivery.is_unconfirmed)


@app.command()
def show(ctx: typer.Context, number: Id, json: Json = False) -> None:
    """Show a delivery: state, counts, exclusions, findings, phases, failures of the link."""
    session: Session = ctx.obj
    with session.open("marketing") as opened, opened.database.connection() as conn:
        now = read(conn, resolve(conn, number).id)
        excluded = _exclusions(conn, now.delivery.id)
        failures = link_journal.latest(conn, now.delivery.id, 20)
        plans = planned.read(conn, now.delivery, SystemClock().now())
        slow = slow_phases.of_delivery(conn, now.delivery, SystemClock().now())
    if json:
        found = {"planned": plans.as_dict(), "slow_phases": [one.as_dict() for one in slow]}
        say_json(as_json(now) | {"exclusions": excluded, "link": failures} | found)
        return
    _show(now, excluded, [*(f"slow: {one.sentence}" for one in slow), *failures])
    for line in plans.lines():
        say(line)


@app.command("list")
def listing(
    ctx: typer.Context,
    before: Annotated[int, typer.Option(help="Go on before this id.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    json: Json = False,
) -> None:
    """List deliveries, newest first."""
    session: Session = ctx.obj
    with session.open("marketing") as opened, opened.database.connection() as conn:
        found = deliveries.latest(conn, before=before or None, limit=limit)
    if json:
        say_json({"deliveries": [_row_json(row) for row in found]})
        return
    columns = ("id", "label", "state", "targeted", "excluded", "handed over", "created", "figures as of")
    say_table(
        columns,
        [
            (str(r.id), r.label, _state(r), r.targeted, r.excluded, r.handed_over, r.created_at, r.figures_at)
            for r in found
        ],
    )


@app.command()
def logs(
    ctx: typer.Context,
    number: Id,
    state: Annotated[str, typer.Option(help="Only messages in this state: sent, failed, deferred …")] = "",
    json: Json = False,
) -> None:
    """Print the delivery log, one message a line; with --json one JSON object a line."""
    session: Session = ctx.obj
    wanted = _message_state(state)
    with session.open("marketing") as opened:
        with opened.database.connection() as conn:
            found = resolve(conn, number)
        for entry in delivery_log.entries(opened.database, found.id, state=wanted):
            if json:
                say_json(delivery_log.as_dict(entry))
            else:
                words = (entry.email, MessageState(entry.state).label, Reason(entry.reason).label, entry.reply)
                say("  ".join(word for word in words if word))


@app.command("explain")
def explain_(
    ctx: typer.Context,
    number: Id,
    email: Annotated[str, typer.Argument(help="One person's address.")] = "",
    json: Json = False,
) -> None:
    """Tell the whole story of one recipient, or where a delivery's messages wait and why."""
    session: Session = ctx.obj
    with session.open("marketing") as opened, opened.database.connection() as conn:
        found = resolve(conn, number)
        if email:
            told = explain.explain_person(conn, found.id, email)
        else:
            told = explain.explain_delivery(conn, found.id, SystemClock().now())
    if json:
        say_json({"delivery": found.id, "email": email or None, "story": told.lines, "facts": told.facts})
        return
    for line in told.lines:
        say(line)


def as_json(now: Progress) -> dict[str, Any]:
    """Return a delivery with its counts by state, as `show --json` prints it."""
    counts = {state.label: now.counts.get(state, 0) for state in MessageState}
    row = now.delivery
    return _row_json(row) | {
        "counts": counts,
        "figures": row.figures,
        "findings": row.findings,
        "phases": row.phases,
        "error": row.error,
        "ordered": row.ordered,
        "order_confirmed": not row.is_unconfirmed,
    }


def _order(
    ctx: typer.Context, number: str, verb: str, *, wait: bool, json: bool, until: Callable[[Progress], bool]
) -> None:
    session: Session = ctx.obj
    with session.open("marketing") as opened:
        need_worker(opened)
        with opened.database.transaction() as conn:
            found = resolve(conn, number)
            who, done = asking.visitor(), "send" if verb == "start" else verb
            ordered = orders.order(conn, found.id, verb, by=who.name, now=SystemClock().now())
            audit.record(conn, who, f"delivery.{done}", found.id, state=ordered.state.label, job=ordered.job)
        _tell(opened, found.id, ordered.job, wait=wait, json=json, until=until)


def _tell(
    opened: Opened, delivery_id: int, job: str, *, wait: bool, json: bool, until: Callable[[Progress], bool]
) -> None:
    if not wait:
        if json:
            say_json({"id": delivery_id, "job": job})
        elif job:
            say(f"job {job} is asked for; see `midsource delivery show {delivery_id}`")
        else:
            say(f"done at once; see `midsource delivery show {delivery_id}`")
        return
    now = follow(opened.database, delivery_id, until)
    if json:
        say_json(as_json(now) | {"job": job})
    else:
        _show(now, [], [])


def _show(now: Progress, excluded: list[dict[str, Any]], failures: list[str]) -> None:
    row = now.delivery
    say(f"{row.id} {row.label}: {_state(row)}")
    say(f"targeted {row.targeted or 0}, excluded {row.excluded or 0}, handed over {row.handed_over or 0}")
    say_table(
        ("messages", "count"), [(state.label, now.counts[state]) for state in MessageState if state in now.counts]
    )
    if excluded:
        say_table(("excluded because", "count"), [(row["reason"], row["count"]) for row in excluded])
    for finding in row.findings:
        say(f"{finding['severity']}: {finding['sentence']}")
    if row.phases:
        say_table(
            ("phase", "seconds", "rows"), [(p["phase"], f"{p['seconds']:.2f}", p.get("rows")) for p in row.phases]
        )
    for line in failures:
        say(line)
    if row.error:
        say(f"error: {row.error}")


def _exclusions(conn: Connection, delivery_id: int) -> list[dict[str, Any]]:
    rows = conn.execute(
        "select reason, sum(n)::bigint from broad_log_total where delivery_id = %s and state = 0 group by reason order by 2 desc",
        (delivery_id,),
    ).fetchall()
    return [{"reason": Reason(reason).label, "code": reason, "count": n} for reason, n in rows if n]


def _state(row: Delivery) -> str:
    label = DeliveryState(row.state).label
    return f"{label} ({row.ordered} ordered, not confirmed)" if row.is_unconfirmed else label


def _row_json(row: Delivery) -> dict[str, Any]:
    names = (
        "id", "label", "account", "targeted", "excluded", "to_deliver", "handed_over", "refused", "created_at", "started_at",
        "finished_at", "figures_at", "proof_of", "proof_number",
    )  # fmt: skip
    return {name: getattr(row, name) for name in names} | {
        "state": DeliveryState(row.state).label,
        "state_number": row.state,
    }


def _message_state(text: str) -> MessageState | None:
    if not text:
        return None
    known = {state.label: state for state in MessageState}
    if text not in known:
        raise UserError(f"--state {text!r} is no message state", f"use one of {', '.join(known)}")
    return known[text]


app.command()(recompute)
app.command()(reconcile)
app.command()(stats)
