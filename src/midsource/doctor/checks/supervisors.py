"""Checks of those who are told: a supervisor that cannot be reached, and nobody to tell."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from midsource.doctor.check import BOTH, Check
from midsource.doctor.facts import Facts
from midsource.model.finding import Seen, Severity, age
from midsource.store.database import Connection, scalar

MANY_FAILURES = 2
"""One try may meet a restart; two in a row, five minutes apart, do not."""


def unreachable(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Supervisors that could not be told twice in a row. The others are told of it."""
    rows = conn.execute(
        "select name, channel, failures, failed_since, last_problem from supervisor where active and failures >= %s order by name limit 50",
        (MANY_FAILURES,),
    ).fetchall()
    for name, channel, failures, since, problem in rows:
        yield Seen(
            Severity.WARNING,
            evidence=f"{name} ({channel}) could not be told {failures} times in a row, since {age(now - (since or now))}.",
            cause=problem or "It gave no answer.",
            remedy=f"`midsource supervisor test {name}`; what it missed is tried again for a day.",
            subject=name,
        )


def nobody(conn: Connection, facts: Facts, _now: datetime) -> Iterator[Seen]:
    """No active supervisor while this look found something above info: nobody is told (the field's F106)."""
    bad = [finding for finding in facts.before if finding.severity is not Severity.INFO]
    if bad and not scalar(conn, "select count(*) from supervisor where active"):
        yield Seen(
            Severity.WARNING,
            evidence=f"Findings above info: {len(bad)}. There is no supervisor to be told of them.",
            cause="Whoever does not look at the console does not know.",
            remedy="`midsource supervisor add NAME --webhook URL` (or --syslog, --smtp), then `midsource supervisor test NAME`.",
        )


CHECKS = (
    Check("supervisor.unreachable", unreachable, BOTH, Severity.WARNING, ("F77", "F106"), "Test it, and mend its address."),
    Check("supervisor.nobody", nobody, BOTH, Severity.WARNING, ("F106",), "Add a supervisor."),
)  # fmt: skip
