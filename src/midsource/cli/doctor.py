"""`doctor`: look at every instance of this home at once, say what is wrong and what to do, and mend it. Needs no worker, nor a database.

Order of events: the embedded server is started where it is not running · each instance is looked at and what was found is written
down, as the worker does · with --heal what can be mended is mended, and those checks look again: what they see no more is healed ·
an instance whose database does not answer is itself a finding. Exit code 0: nothing above info (but muted or healed), 3 otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated, Any

import typer

from midsource.cli import asking
from midsource.cli.group import group
from midsource.cli.output import err, moment, say, say_json
from midsource.cli.session import Session, serving
from midsource.config import Config, InstanceConfig
from midsource.doctor import book, heal, look
from midsource.doctor.check import Check
from midsource.doctor.facts import Facts
from midsource.doctor.heal import Healing
from midsource.doctor.treatments import Surgery
from midsource.model.durations import parse_duration
from midsource.model.errors import MidsourceError, UserError
from midsource.model.finding import Finding, Severity, Standing
from midsource.net.clock import SystemClock
from midsource.security import audit
from midsource.store import migrate
from midsource.store.database import Database

app = group()


@dataclass(frozen=True, slots=True)
class Shown:
    """A finding of one instance; ``row`` None: its database could not take it. ``did``: what was or would be done about it."""

    instance: InstanceConfig
    finding: Finding
    row: Standing | None = None
    did: str = ""
    healed: bool = False

    @property
    def needs_somebody(self) -> bool:
        """Whether it is above info, and neither muted nor healed."""
        muted = self.row is not None and self.row.is_muted(SystemClock().now())
        return self.finding.severity is not Severity.INFO and not muted and not self.healed


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a command asks for. ``checks`` None: all of each role."""

    checks: Iterable[Check] | None = None
    heals: bool = False
    dry: bool = False


@app.command()
def doctor(
    ctx: typer.Context,
    *,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
    only: Annotated[str, typer.Option(help="One check, or a family of them: pointer.late, pointer.")] = "",
    heals: Annotated[bool, typer.Option("--heal", help="Mend what can be mended, and look again.")] = False,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="With --heal: say what would be done, and do nothing.")
    ] = False,
    undo: Annotated[
        str, typer.Option(metavar="FINDING", help="Undo what was done about a finding: marketing:12.")
    ] = "",
    mute: Annotated[str, typer.Option(metavar="FINDING", help="Tell nobody about a finding for a time.")] = "",
    for_: Annotated[str, typer.Option("--for", help="With --mute, how long: 8h, 7d. 0s: tell again.")] = "8h",
) -> None:
    """Look at every instance of this home and say what is wrong, why, and what to do; exit 3 when something needs somebody."""
    session: Session = ctx.obj
    if dry and not heals:
        raise UserError("--dry-run is about --heal", "give both")
    if undo or mute:
        _about_one(session, undo or mute, "" if undo else for_)
        return
    config = session.config()
    wanted = Wanted(look.named(only) if only else None, heals=heals, dry=dry)
    shown, checked = look_at_all(session, config, wanted)
    if json:
        say_json({"findings": [_as_json(one) for one in shown], "checked": checked})
    else:
        for instance in instances_of(session, config):
            _say_instance(instance, [one for one in shown if one.instance.name == instance.name])
        say(f"{checked} checks, {_counts(shown)}")
    raise typer.Exit(3 if any(one.needs_somebody for one in shown) else 0)


def instances_of(session: Session, config: Config) -> Sequence[InstanceConfig]:
    """Return the instances a command acts on: the one that was named, else all of the home."""
    return (session.instance(),) if session.name or session.role else config.instances


def look_at_all(session: Session, config: Config, wanted: Wanted) -> tuple[list[Shown], int]:
    """Look at every instance; return what was found, the worst first, and how many checks were run."""
    shown: list[Shown] = []
    checked = 0
    with ExitStack() as held:
        try:
            urls = held.enter_context(serving(config))
            chosen = [replace(one, database_url=urls(one)) for one in instances_of(session, config)]
        except MidsourceError as exc:
            return [Shown(one, look.unreachable(exc)) for one in instances_of(session, config)], 0
        for instance in chosen:
            with Database(instance.name, instance.database_url, application=f"cli@{instance.name}") as database:
                found, count = _look(config, instance, database, wanted)
            shown += found
            checked += count
    return sorted(shown, key=lambda one: -one.finding.severity.rank), checked


def _look(config: Config, instance: InstanceConfig, database: Database, wanted: Wanted) -> tuple[list[Shown], int]:
    checks = [check for check in wanted.checks or look.of_role(instance.role) if instance.role in check.roles]
    try:
        migrate.check(database, instance.role, instance.name)
        shown, checked = _seen(config, instance, database, checks)
        if wanted.heals:
            shown = _healed(config, database, shown, dry=wanted.dry)
    except MidsourceError as exc:
        return [Shown(instance, look.unreachable(exc))], 0
    return shown, checked


def _seen(
    config: Config, instance: InstanceConfig, database: Database, checks: Sequence[Check]
) -> tuple[list[Shown], int]:
    clock = SystemClock()
    looked = look.at(config, instance, database, clock, checks)
    with database.transaction() as conn:
        rows = {row.finding.key: row for row in book.record(conn, looked, clock.now())}
    worst = {finding.key: finding for finding in sorted(looked.findings, key=lambda one: one.severity.rank)}
    return [Shown(instance, finding, rows.get(key)) for key, finding in worst.items()], looked.checked


def _healed(config: Config, database: Database, shown: Sequence[Shown], *, dry: bool) -> list[Shown]:
    """Treat what can be treated, look again with those checks, and say of each finding what came of it."""
    if not shown:
        return []
    instance, clock = shown[0].instance, SystemClock()
    with database.connection() as conn:
        planned = {
            plan.row.finding.key: plan
            for plan in heal.plans(conn, [one.row for one in shown if one.row is not None], clock.now())
        }
    if dry:
        said = {
            key: f"would {plan.does}{f', but: {plan.why_not}' if plan.why_not else ''}" for key, plan in planned.items()
        }
        return [replace(one, did=said.get(one.finding.key, "")) for one in shown]
    surgery = Surgery(database, Facts(config, instance, clock), asking.visitor())
    done: dict[tuple[str, str], Healing | str] = {}
    for key, plan in planned.items():
        err.print(f"{instance.name}: {plan.does}", markup=False, style="dim")
        done[key] = plan.why_not or heal.treat(surgery, plan)
    names = {check for check, _ in done}
    still, _ = _seen(
        config, instance, database, [check for check in look.of_role(instance.role) if check.name in names]
    )
    left = {one.finding.key for one in still}
    return [
        replace(one, did=_did(done[one.finding.key]), healed=one.finding.key not in left)
        if one.finding.key in done
        else one
        for one in shown
    ]


def _did(healing: Healing | str) -> str:
    if isinstance(healing, str):
        return f"not done: {healing}"
    return (
        f"{healing.what}: {healing.after or healing.outcome}"
        if healing.outcome == "done"
        else f"failed: {healing.after}"
    )


def _about_one(session: Session, reference: str, for_: str) -> None:
    """Undo what was done about a finding, or (with ``for_``) mute it."""
    name, colon, number = reference.rpartition(":")
    if not number.isdigit() or (not colon and not (session.name or session.role)):
        raise UserError(
            f"{reference!r} names no finding",
            "write instance and number as `midsource doctor` shows them: marketing:12",
        )
    chosen = replace(session, name=name) if colon else session
    clock, who = SystemClock(), asking.visitor()
    with chosen.open() as opened:
        if not for_:
            facts = Facts(opened.config, opened.instance, clock)
            said = heal.undo(Surgery(opened.database, facts, who), int(number))
            say(said)
            return
        span = timedelta(seconds=parse_duration(for_))
        with opened.database.transaction() as conn:
            muted = book.mute(conn, int(number), clock.now() + span if span else None, who.name, clock.now())
            audit.record(
                conn,
                who,
                "doctor.mute",
                f"{muted.finding.check} {muted.finding.subject}".strip(),
                until=moment(muted.muted_until),
            )
    say(
        f"nobody is told of {reference} until {moment(muted.muted_until)}"
        if muted.muted_until
        else f"{reference} is told again"
    )


def _say_instance(instance: InstanceConfig, shown: Sequence[Shown]) -> None:
    say(f"{instance.name} ({instance.role}): {_counts(shown)}")
    for one in shown:
        finding, row = one.finding, one.row
        about = [f"{one.instance.name}:{row.id}", f"since {moment(row.opened_at)}"] if row is not None else []
        about += [*finding.answers]
        if row is not None and row.is_muted(SystemClock().now()):
            about.append(f"muted until {moment(row.muted_until)} by {row.muted_by}")
        say(f"  {finding.severity.upper()} {finding.check} {finding.subject}".rstrip() + f" ({', '.join(about)})")
        say(f"    {finding.evidence}")
        say(f"    Cause: {finding.cause}")
        say(f"    Remedy: {finding.remedy}")
        if one.did:
            say(f"    {'Healed' if one.healed else 'Treatment'}: {one.did}")
    say()


def _counts(shown: Sequence[Shown]) -> str:
    counted = Counter(one.finding.severity for one in shown)
    said = [f"{counted[severity]} {severity}" for severity in reversed(Severity) if counted[severity]]
    many = "1 finding" if len(shown) == 1 else f"{len(shown)} findings"
    return f"{many} ({', '.join(said)})" if said else "no finding"


def _as_json(one: Shown) -> dict[str, Any]:
    finding, row = one.finding, one.row
    return {
        "id": f"{one.instance.name}:{row.id}" if row is not None else None,
        "check": finding.check,
        "subject": finding.subject,
        "severity": str(finding.severity),
        "role": one.instance.role,
        "instance": one.instance.name,
        "evidence": finding.evidence,
        "cause": finding.cause,
        "remedy": finding.remedy,
        "answers": list(finding.answers),
        "healable": finding.healable,
        "healed": one.healed,
        "treatment": one.did,
        "opened_at": row.opened_at if row is not None else None,
        "muted_until": row.muted_until if row is not None else None,
    }
