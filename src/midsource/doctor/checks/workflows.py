"""Checks of technical workflows: failed, late, never succeeded, held for too long."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from midsource.doctor.check import BOTH, Check
from midsource.doctor.facts import Facts
from midsource.engine import records, watch
from midsource.model.finding import Seen, Severity, age
from midsource.model.workflow import WorkflowState
from midsource.store.database import Connection

PASSING_FAILURES = 1
"""One failed run is tried again after two seconds, as a rule because something was started anew; two in a row are not that."""
HELD_TOO_LONG = timedelta(days=7)
"""What the field warns about from (spec/midsourcing 4.6)."""


def failed(conn: Connection, _facts: Facts, _now: datetime) -> Iterator[Seen]:
    """Technical workflows whose flag *failed* is set after two failed runs in a row, or by a schedule nobody can read."""
    for row in records.listing(conn):
        if not row.failed or row.consecutive_failures == PASSING_FAILURES:
            continue
        since = f", last success {row.last_success_at:%Y-%m-%d %H:%MZ}" if row.last_success_at else ", no success yet"
        yield Seen(
            Severity.ERROR,
            evidence=f"{row.name} failed {row.consecutive_failures} times in a row{since}.",
            cause=row.last_error or "Its journal says why.",
            remedy=f"Mend the cause, then `midsource workflow restart {row.name}`; it tries by itself with growing pauses.",
            subject=row.name,
            healable=row.consecutive_failures > 0,
        )


def late(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Technical workflows on their schedule that had no success for two ticks and are not at work."""
    for found in watch.summaries(conn, now):
        row = found.row
        if found.flag is watch.Flag.LATE and row.last_success_at is not None:
            waits = "a run waits for a worker" if found.open is not None else "no run was made for its tick"
            yield Seen(
                Severity.ERROR,
                evidence=f"{row.name}: last success {age(now - row.last_success_at)} ago, schedule {row.schedule}; {waits}.",
                cause="No worker lives or leads, all of them are busy, or the run hangs.",
                remedy=f"See `midsource ps`; then `midsource workflow restart {row.name}`.",
                subject=row.name,
                healable=True,
            )


def never(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Technical workflows that have not succeeded once since they were registered, from their second tick on."""
    for found in watch.summaries(conn, now):
        row = found.row
        if found.flag is watch.Flag.LATE and row.last_success_at is None and row.created_at is not None:
            yield Seen(
                Severity.ERROR,
                evidence=f"{row.name} was registered {age(now - row.created_at)} ago and has never succeeded.",
                cause=row.last_error or "No run of it has come to its end.",
                remedy=f"See `midsource workflow journal {row.name}`, mend the cause, then `midsource workflow restart {row.name}`.",
                subject=row.name,
                healable=True,
            )


def held(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Technical workflows that an operator paused or stopped: known at once, a warning after 7 days."""
    for row in records.listing(conn):
        if row.state not in (WorkflowState.PAUSED, WorkflowState.FINISHED):
            continue
        last = row.last_success_at or row.created_at or now
        since = row.held_at or last
        long = now - since > HELD_TOO_LONG
        word = "stopped" if row.state is WorkflowState.FINISHED else "paused"
        yield Seen(
            Severity.WARNING if long else Severity.INFO,
            evidence=f"{row.name} is {word} by {row.held_by or 'an operator'} for {age(now - since)}; its last success was {age(now - last)} ago.",
            cause="Somebody holds it, and nothing starts it by itself.",
            remedy=f"Put it back with `midsource workflow start {row.name}`, or mute this finding where it is meant.",
            subject=row.name,
        )


CHECKS = (
    Check("workflow.failed", failed, BOTH, Severity.ERROR, ("F30", "F36", "F101", "F102", "F108", "F119"), "Mend the cause named, then restart it."),
    Check("workflow.late", late, BOTH, Severity.ERROR, ("F33", "F34", "F102", "F103", "F107", "F120"), "See that a worker lives, then restart it."),
    Check("workflow.never", never, BOTH, Severity.ERROR, ("F34", "F103", "F105"), "Read its journal, mend the cause, restart it."),
    Check("workflow.held", held, BOTH, Severity.WARNING, ("F34", "F90", "F114"), "Start it again, or mute the finding."),
)  # fmt: skip
