"""`doctor`: look at every instance of this home at once, say what is wrong and what to do. Needs no worker, nor a database.

Order of events: the embedded server is started where it is not running · each instance is looked at and what was found is written
down, as the worker does · an instance whose database does not answer is itself a finding. Exit code 0: nothing above info (but
muted), 3 otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Annotated, Any

import typer

from midsource.cli.group import group
from midsource.cli.output import moment, say, say_json
from midsource.cli.session import Session, serving
from midsource.config import Config, InstanceConfig
from midsource.doctor import book, look
from midsource.doctor.check import Check
from midsource.model.errors import MidsourceError
from midsource.model.finding import Finding, Severity, Standing
from midsource.net.clock import SystemClock
from midsource.store import migrate
from midsource.store.database import Database

app = group()


@dataclass(frozen=True, slots=True)
class Shown:
    """A finding of one instance; ``row`` None: its database could not take it."""

    instance: InstanceConfig
    finding: Finding
    row: Standing | None = None
    healed: bool = False

    @property
    def needs_somebody(self) -> bool:
        """Whether it is above info and not muted."""
        muted = self.row is not None and self.row.is_muted(SystemClock().now())
        return self.finding.severity is not Severity.INFO and not muted and not self.healed


@app.command()
def doctor(
    ctx: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
    only: Annotated[str, typer.Option(help="One check, or a family of them: pointer.late, pointer.")] = "",
) -> None:
    """Look at every instance of this home and say what is wrong, why, and what to do; exit 3 when something needs somebody."""
    session: Session = ctx.obj
    config = session.config()
    checks = look.named(only) if only else None
    shown, checked = look_at_all(session, config, checks)
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


def look_at_all(session: Session, config: Config, checks: Iterable[Check] | None) -> tuple[list[Shown], int]:
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
            wanted = [check for check in checks or look.of_role(instance.role) if instance.role in check.roles]
            with Database(instance.name, instance.database_url, application=f"cli@{instance.name}") as database:
                found, count = _look(config, instance, database, wanted)
            shown += found
            checked += count
    return sorted(shown, key=lambda one: -one.finding.severity.rank), checked


def _look(
    config: Config, instance: InstanceConfig, database: Database, checks: Sequence[Check]
) -> tuple[list[Shown], int]:
    clock = SystemClock()
    try:
        migrate.check(database, instance.role, instance.name)
        looked = look.at(config, instance, database, clock, checks)
        with database.transaction() as conn:
            rows = {row.finding.key: row for row in book.record(conn, looked, clock.now())}
    except MidsourceError as exc:
        return [Shown(instance, look.unreachable(exc))], 0
    worst = {finding.key: finding for finding in sorted(looked.findings, key=lambda one: one.severity.rank)}
    return [Shown(instance, finding, rows.get(key)) for key, finding in worst.items()], looked.checked


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
    say()


def _counts(shown: Sequence[Shown]) -> str:
    counted = Counter(one.finding.severity for one in shown)
    said = [f"{counted[severity]} {severity}" for severity in reversed(Severity) if counted[severity]]
    many = "1 finding" if len(shown) == 1 else f"{len(shown)} findings"
    return f"{many} ({', '.join(said)})" if said else "no finding"


def _as_json(one: Shown) -> dict[str, Any]:
    finding, row = one.finding, one.row
    return {
        "id": row.id if row is not None else None,
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
        "opened_at": row.opened_at if row is not None else None,
        "muted_until": row.muted_until if row is not None else None,
    }
