"""One look of the doctor at one instance: run the checks that are due, each by itself, and return what they saw.

Order of events: facts from outside the database (``facts.gather``) · each check in a read-only transaction of its own with
its own time limit · a check that fails is itself a finding, ``check.failed``, and stops no other · the time of each look is
kept. The checks of a role are run in the order of their list; those about supervisors come last, and see the others' findings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from midsource.config import Config, InstanceConfig
from midsource.doctor import facts as outside
from midsource.doctor.check import Check
from midsource.doctor.checks import CHECKS
from midsource.doctor.facts import Facts
from midsource.model.clock import Clock
from midsource.model.errors import MidsourceError, Unhealthy, UserError, said
from midsource.model.finding import FAILED, Finding, Seen, Severity
from midsource.store.database import Connection, Database, StatementTimeout

UNREACHABLE = "database.unreachable"
"""Beside ``check.failed`` the one finding that no check of the list makes: none can look."""
LOOK_SECONDS = 40.0
"""Checks not begun by then are left out, and come first the next time: a slice has a minute."""
MOST_OF_A_CHECK = 50
"""Findings one check may open in a look; the rest is counted in the last of them."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Looked:
    """What one look came to. ``looked``: checks that could look; their findings not seen again are on their way to closing."""

    findings: tuple[Finding, ...]
    looked: frozenset[str]
    seconds: dict[str, float]
    problems: dict[str, str]

    @property
    def checked(self) -> int:
        """How many checks were run, those that failed among them."""
        return len(self.looked) + len(self.problems)


def of_role(role: str) -> tuple[Check, ...]:
    """Return the checks of an instance of ``role``."""
    return tuple(check for check in CHECKS if role in check.roles)


def named(only: str) -> tuple[Check, ...]:
    """Return the check ``only``, or those of the family ``only`` ('pointer'). Raises UserError naming what there is."""
    found = tuple(check for check in CHECKS if only in (check.name, check.name.partition(".")[0]))
    if not found:
        raise UserError(f"there is no check {only!r}", f"there are {', '.join(check.name for check in CHECKS)}")
    return found


def due(conn: Connection, checks: Iterable[Check], now: datetime) -> tuple[Check, ...]:
    """Return those whose time has come, those first that have not looked for longest; those about supervisors stay last."""
    rows = conn.execute("select check_name, looked_at from doctor_look where problem = ''").fetchall()
    last: dict[str, datetime] = dict(rows)
    never = now - timedelta(days=365)

    def is_due(check: Check) -> bool:
        at = last.get(check.name)
        return not check.every_seconds or at is None or not at <= now < at + timedelta(seconds=check.every_seconds)

    chosen = [check for check in checks if is_due(check)]
    return tuple(sorted(chosen, key=lambda check: (check.name.startswith("supervisor."), last.get(check.name, never))))


def at(
    config: Config,
    instance: InstanceConfig,
    database: Database,
    clock: Clock,
    checks: Sequence[Check],
    between: Callable[[], None] = lambda: None,
) -> Looked:
    """Look at one instance. ``between`` is called before each check and may raise to end the look.

    Raises Unhealthy when the database goes away meanwhile: what it found till then says little.
    """
    facts = outside.gather(config, instance, database, clock)
    found: list[Finding] = []
    looked: set[str] = set()
    seconds: dict[str, float] = {}
    problems: dict[str, str] = {}
    away = False
    deadline = clock.boot_seconds() + LOOK_SECONDS
    for check in checks:
        between()
        began = clock.boot_seconds()
        if began > deadline and not check.name.startswith("supervisor."):
            continue
        try:
            seen = _run(check, database, replace(facts, before=tuple(found)), clock.now())
        except Exception as exc:
            if away and isinstance(exc, Unhealthy):
                raise
            away = isinstance(exc, Unhealthy)
            problems[check.name] = said(exc)
            found.append(Finding.of(FAILED, (), _failed(check, exc)))
        else:
            away = False
            looked.add(check.name)
            found += [Finding.of(check.name, check.answers, one) for one in seen]
        seconds[check.name] = clock.boot_seconds() - began
    return Looked(tuple(found), frozenset(looked), seconds, problems)


def unreachable(exc: MidsourceError) -> Finding:
    """Return the finding of an instance whose database does not answer: nothing else can be told about it."""
    seen = Seen(
        Severity.CRITICAL,
        evidence=f"{exc.cause}.",
        cause="Without its database an instance neither sends nor records anything; what was begun is kept in the journals.",
        remedy=f"{exc.remedy or 'see `midsource status`'}.",
    )
    return Finding.of(UNREACHABLE, ("F126",), seen)


def _run(check: Check, database: Database, facts: Facts, now: datetime) -> list[Seen]:
    # Not ``database.transaction``: the engine's fence locks a row at its end, and what reads only commits nothing.
    with database.connection() as conn, conn.transaction():
        conn.execute("set transaction read only")
        conn.execute(f"set local statement_timeout = {round(check.bound_seconds * 1000)}")
        seen = list(check.look(conn, facts, now))
    seen.sort(key=lambda one: -one.severity.rank)
    if len(seen) <= MOST_OF_A_CHECK:
        return seen
    last = seen[MOST_OF_A_CHECK - 1]
    more = len(seen) - MOST_OF_A_CHECK
    return [*seen[: MOST_OF_A_CHECK - 1], replace(last, evidence=f"{last.evidence} And {more} more like this.")]


def _failed(check: Check, exc: Exception) -> Seen:
    log.warning("check_failed", action="check_failed", check=check.name, cause=said(exc), error=type(exc).__name__)
    slow = isinstance(exc, StatementTimeout)
    return Seen(
        Severity.WARNING,
        evidence=f"The check {check.name} could not look: {said(exc)}",
        cause=f"Its statement took longer than the {check.bound_seconds:g} s it may." if slow else "It is about what it looks at, or a fault of ours.",
        remedy="See `midsource maintenance status` for tables in poor shape." if slow else f"Run `midsource doctor --only {check.name} --debug` and report what it says.",
        subject=check.name,
    )  # fmt: skip
