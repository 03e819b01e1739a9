"""Doctor: every five minutes it looks for what is wrong, late or absent, on each instance.

*Reads* whatever the checks of this role look at (docs/reference/checks.md): tables, the server's own views, the disk, and a
hello of every mid. *Writes* `finding` (opened, changed, closed), `doctor_look`, and with each change its `notification`; then tells
supervisors what is due, which notes it in `telling` and `supervisor`. What is safe to mend (doctor/treatments.py) and was seen by two
looks it mends, with a row in `healing` and the audit, unless the option `NmsDoctor_AutoHeal` is 0.

Once a day it also takes the sample of sizes that forecasts are drawn from (store/maintenance/samples.py).

*Bounds*: each check has its own statement time limit (5 s as a rule) in a read-only transaction of its own; after 40 s the
checks not begun wait for the next run, and come first in it. A hello takes at most 5 s.

*When it fails*: a check that cannot look is itself a finding and stops no other; its findings stay as they are. A run that
fails as a whole (no database) is tried again with back-off. `midsource doctor` looks at once, without any worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from midsource import config as configuration
from midsource.doctor import book, heal, look, telling
from midsource.doctor.channels import Carrier
from midsource.doctor.facts import Facts
from midsource.doctor.treatments import Surgery
from midsource.engine.work import Context, Report
from midsource.model.errors import MidsourceError
from midsource.model.finding import Standing
from midsource.security.roles import SYSTEM
from midsource.store.maintenance import samples

NAME = "doctor"
LABEL = "Doctor"
SCHEDULE = "every 5 minutes"
ROLES = ("marketing", "mid")


@dataclass(frozen=True, slots=True)
class Settings:
    """What may be set for it. ``only``: a check or a family of checks; empty: all."""

    only: str = ""


def run_once(context: Context, settings: Settings | None = None) -> Report:
    """Do one slice: one look, written down."""
    chosen = settings or Settings()
    config = configuration.load(context.home)
    instance = config.instance(context.instance)
    checks = look.of_role(instance.role)
    if chosen.only:
        checks = tuple(check for check in checks if check in look.named(chosen.only))
    with context.database.connection() as conn:
        due = look.due(conn, checks, context.clock.now())
    looked = look.at(config, instance, context.database, context.clock, due, context.beat)
    with context.database.transaction() as conn:
        standing = book.record(conn, looked, context.clock.now())
        telling.spread(conn, context.clock.now())
        book.forget(conn, context.clock.now())
    healed = _heal(context, Facts(config, instance, context.clock), standing)
    carrier = Carrier.of(config, instance, context.clock)
    told, untold = telling.deliver(context.database, carrier, context.clock.now(), context.beat)
    if told or untold:
        context.say(
            "warning" if untold else "info", f"{told} changes told; supervisors that could not be told: {untold}"
        )
    _sample(context)
    open_now = book.above_info(standing, context.clock.now())
    if open_now:
        worst = open_now[0].finding
        context.say(
            "warning",
            f"{len(open_now)} findings above info; the worst: {worst.check} {worst.subject}: {worst.evidence}",
        )
    return Report(rows_read=looked.checked, rows_written=len(looked.findings) + healed, note=f"{looked.checked} checks")


def _heal(context: Context, facts: Facts, standing: Sequence[Standing]) -> int:
    """Do what is safe about what two looks have seen; return how many treatments were done."""
    with context.database.connection() as conn:
        if not heal.may_alone(conn):
            return 0
        planned = heal.plans(conn, standing, context.clock.now(), alone=True)
    surgery = Surgery(context.database, facts, SYSTEM)
    done = 0
    for plan in [one for one in planned if not one.why_not and one.row.finding.subject != NAME][: heal.MOST_AT_ONCE]:
        context.beat()
        healing = heal.treat(surgery, plan)
        done += healing.outcome == "done"
        level = "info" if healing.outcome == "done" else "warning"
        context.say(level, f"{healing.what}: {healing.after or healing.outcome}")
    return done


def _sample(context: Context) -> None:
    """Take today's sample, where there is none; without it the look is as good, and the next one tries again."""
    try:
        with context.database.connection() as conn:
            samples.take_daily(conn, context.clock.now())
    except MidsourceError as exc:
        context.say("warning", f"the daily sample of sizes was not taken: {exc}")
