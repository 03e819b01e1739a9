"""`supervisor add|list|test|mute|remove`: who is told of findings and failed workflows, and how."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import typer

from midsource.cli import asking
from midsource.cli.group import group
from midsource.cli.output import moment, say, say_json, say_table
from midsource.cli.session import Session
from midsource.doctor import supervisors, telling
from midsource.doctor.channels import Carrier
from midsource.doctor.supervisors import Channel, Draft, Supervisor
from midsource.doctor.trial import trial
from midsource.model.durations import parse_duration
from midsource.model.errors import UserError
from midsource.model.finding import Severity
from midsource.net.clock import SystemClock
from midsource.security import audit

app = group("Supervisors: who is told of findings and failed workflows. Each instance has its own (--role mid).")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Name = Annotated[str, typer.Argument(help="Name of the supervisor.")]


@app.command()
def add(
    ctx: typer.Context,
    name: Name,
    *,
    webhook: Annotated[str, typer.Option(help="Address of a webhook: https://alerts.example/hook.")] = "",
    syslog: Annotated[str, typer.Option(help="Syslog server: udp://logs.example:514 or tcp://logs.example:601.")] = "",
    smtp: Annotated[
        str, typer.Option(help="Relay: smtp://relay.example:25/?to=ops@example.com&from=midsource@example.com.")
    ] = "",
    severity: Annotated[str, typer.Option(help="From this on: warning, error or critical.")] = "warning",
    quiet: Annotated[str, typer.Option(help="Hours in which only what is critical is told: 22:00-07:00.")] = "",
    digest: Annotated[
        str, typer.Option(help="When what happened then is told: 07:30. Default: at the end of the quiet hours.")
    ] = "",
    zone: Annotated[str, typer.Option(help="Zone of these hours: Europe/Paris.")] = "UTC",
    language: Annotated[str, typer.Option(help="en, fr or pt.")] = "en",
    json: Json = False,
) -> None:
    """Add a supervisor: give one of --webhook, --syslog, --smtp. The secret of a webhook is shown this once."""
    given = [(channel, address) for channel, address in zip(Channel, (webhook, syslog, smtp), strict=True) if address]
    if len(given) != 1:
        raise UserError("a supervisor has one channel", "give one of --webhook, --syslog, --smtp")
    if severity not in [str(one) for one in Severity]:
        raise UserError(f"{severity!r} is no severity", "choose warning, error or critical")
    channel, address = given[0]
    draft = Draft(name, channel, address, Severity(severity), quiet, digest, zone, language)
    session: Session = ctx.obj
    who = asking.visitor()
    with session.open() as opened, opened.database.transaction() as conn:
        secret = supervisors.add(conn, session.home, draft, who.name, SystemClock().now())
        audit.record(conn, who, "supervisor.add", name, channel=str(channel), severity=severity)
        made = supervisors.get(conn, name)
    if json:
        say_json(_as_json(made, 0) | {"secret": secret})
        return
    say(f"{name} is told by {channel} at {made.shown} of what is {severity} or worse on {opened.instance.name}")
    if secret:
        say("its webhooks are signed with this secret, shown this once:")
        say(secret)
    say(f"try it: `midsource supervisor test {name}`")


@app.command("list")
def listing(ctx: typer.Context, json: Json = False) -> None:
    """List the supervisors of this instance, with what they were not told yet."""
    session: Session = ctx.obj
    with session.open() as opened, opened.database.connection() as conn:
        known = supervisors.listing(conn)
        waiting = {name: count for name, count, _ in telling.pending(conn)}
    if json:
        say_json({"supervisors": [_as_json(one, waiting.get(one.name, 0)) for one in known]})
        return
    columns = (
        "name",
        "channel",
        "address",
        "from",
        "quiet hours",
        "last told",
        "waiting",
        "failures",
        "muted until",
        "last problem",
    )
    say_table(
        columns,
        [
            (
                *(one.name, str(one.channel), one.shown, str(one.severity), _quiet(one), one.last_told_at),
                *(waiting.get(one.name, 0), one.failures, moment(one.muted_until), one.last_problem[:80]),
            )
            for one in known
        ],
    )


@app.command("test")
def try_it(ctx: typer.Context, name: Name, json: Json = False) -> None:
    """Tell a supervisor at once that this is a test; what goes wrong is said here."""
    session: Session = ctx.obj
    with session.open() as opened:
        with opened.database.connection() as conn:
            supervisor = supervisors.get(conn, name)
        carrier = Carrier.of(opened.config, opened.instance, SystemClock())
        answer = trial(opened.database, carrier, name, asking.visitor())
    if json:
        say_json({"name": name, "told": True, "answer": answer})
        return
    say(f"{name} was told by {supervisor.channel}: {answer}")
    if supervisor.channel is Channel.SYSLOG and supervisor.address.startswith("udp:"):
        say("UDP tells nothing of its arrival: look whether the line is there")


@app.command()
def mute(
    ctx: typer.Context,
    name: Name,
    for_: Annotated[str, typer.Option("--for", help="How long: 8h, 2d. 0s: tell it again from now on.")] = "8h",
) -> None:
    """Tell a supervisor nothing of what happens for a time."""
    session: Session = ctx.obj
    who, now = asking.visitor(), SystemClock().now()
    span = timedelta(seconds=parse_duration(for_))
    with session.open() as opened, opened.database.transaction() as conn:
        muted = supervisors.mute(conn, name, now + span if span else None, who.name, now)
        audit.record(conn, who, "supervisor.mute", name, until=moment(muted.muted_until))
    say(f"{name} is told nothing until {moment(muted.muted_until)}" if muted.muted_until else f"{name} is told again")


@app.command()
def remove(ctx: typer.Context, name: Name) -> None:
    """Remove a supervisor, with what it was still to be told."""
    session: Session = ctx.obj
    with session.open() as opened, opened.database.transaction() as conn:
        supervisors.remove(conn, name)
        audit.record(conn, asking.visitor(), "supervisor.remove", name)
    say(f"{name} is told nothing any more")


def _quiet(one: Supervisor) -> str:
    if one.quiet.start is None or one.quiet.end is None:
        return ""
    digest = f", digest {one.quiet.digest:%H:%M}" if one.quiet.digest else ""
    return f"{one.quiet.start:%H:%M}-{one.quiet.end:%H:%M} {one.quiet.zone}{digest}"


def _as_json(one: Supervisor, waiting: int) -> dict[str, Any]:
    return {
        "name": one.name,
        "channel": str(one.channel),
        "address": one.shown,
        "severity": str(one.severity),
        "quiet": _quiet(one),
        "language": one.language,
        "active": one.active,
        "muted_until": one.muted_until,
        "failures": one.failures,
        "last_problem": one.last_problem,
        "last_told_at": one.last_told_at,
        "waiting": waiting,
    }
