"""Give a technical workflow another schedule: what would come of it is shown first, then it is saved with who gave it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from midsource.engine import journal, records
from midsource.engine.records import WorkflowRow
from midsource.model import schedule
from midsource.model.errors import UserError
from midsource.model.schedule import Plan
from midsource.store.database import Connection


@dataclass(frozen=True, slots=True)
class Wanted:
    """A schedule as somebody writes it. ``valid_from``, ``valid_to``: '' or a time; ``runs`` None: any number; ``hours`` '': any."""

    text: str
    zone: str = "UTC"
    valid_from: str = ""
    valid_to: str = ""
    runs: int | None = None
    hours: str = ""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A schedule that can be saved, and its next ticks."""

    plan: Plan
    ticks: list[datetime]


def present(row: WorkflowRow) -> Wanted:
    """Return the schedule of a workflow as somebody would write it."""
    return Wanted(
        row.schedule,
        row.zone,
        row.valid_from.isoformat() if row.valid_from else "",
        row.valid_to.isoformat() if row.valid_to else "",
        row.runs_left,
        row.hours,
    )


def propose(wanted: Wanted, now: datetime) -> Proposal:
    """Read what somebody wrote. Pure. Raises UserError where it cannot be meant, or where no tick would come."""
    zone = schedule.parse_zone(wanted.zone)
    plan = schedule.plan(
        wanted.text,
        wanted.zone,
        valid_from=schedule.parse_moment(wanted.valid_from, zone) if wanted.valid_from else None,
        valid_to=schedule.parse_moment(wanted.valid_to, zone) if wanted.valid_to else None,
        runs_left=wanted.runs,
        hours=wanted.hours,
    )
    over = plan.why_over(now)
    if over:
        raise UserError(f"no run would come: {over}", "change the times or the validity")
    return Proposal(plan, plan.next_ticks(now))


def save(conn: Connection, name: str, plan: Plan, by: str, now: datetime) -> WorkflowRow:
    """Give ``name`` a schedule; ``by`` '': its default, which a later version may change. Durable with the transaction.

    Its state stays: what is paused or stopped begins by it when it is started. A breaker that waits goes on waiting.
    """
    before = records.get(conn, name)
    conn.execute(
        "update workflow set schedule = %s, zone = %s, valid_from = %s, valid_to = %s, runs_left = %s, hours = %s, "
        "schedule_by = %s, next_at = %s where name = %s",
        (
            str(plan.schedule),
            plan.zone.key,
            plan.valid_from,
            plan.valid_to,
            plan.runs_left,
            str(plan.hours) if plan.hours else "",
            by,
            plan.next_tick(now),
            name,
        ),
    )
    after = records.get(conn, name)
    journal.write(
        conn,
        name,
        None,
        "info",
        f"schedule set from '{described(before)}' to '{described(after)}' by {by or 'default'}",
    )
    return after


def described(row: WorkflowRow) -> str:
    """Return a schedule with all that bounds it on one line."""
    parts = [f"{row.schedule} ({row.zone})"]
    if row.hours:
        parts.append(f"between {row.hours}")
    if row.valid_from:
        parts.append(f"from {row.valid_from:%Y-%m-%d %H:%M} UTC")
    if row.valid_to:
        parts.append(f"to {row.valid_to:%Y-%m-%d %H:%M} UTC")
    if row.runs_left is not None:
        parts.append("one run left" if row.runs_left == 1 else f"{row.runs_left} runs left")
    return ", ".join(parts)
