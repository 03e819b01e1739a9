"""Mend what can be mended, and write down what was done; undo it where that is possible.

Each healing is one row of `healing` (what, before, after, by whom, how it ended) and one of the audit, with the treatment's own
changes in one transaction where it has any. The same thing is never done twice within a back-off that grows from 15 minutes to
six hours with each healing of a day: what comes back at once is not mended, and needs somebody.

By itself the workflow treats only what is safe (`treatments`), has been seen by two looks, and only while the option
`NmsDoctor_AutoHeal` is 1. A treatment that fails, by whatever, is recorded as failed and stops neither another nor telling supervisors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from psycopg.types.json import Jsonb

from midsource.doctor.treatments import TREATMENTS, Done, Surgery, Treatment
from midsource.model.errors import Conflict, MidsourceError, NotFound, said
from midsource.model.finding import Finding, Standing
from midsource.model.options import AUTO_HEAL
from midsource.security import audit
from midsource.store.database import Connection, scalar

FIRST_PAUSE = timedelta(minutes=15)
LONGEST_PAUSE = timedelta(hours=6)
REMEMBERED = timedelta(days=1)
CONFIRMED_LOOKS = 2
"""Looks that have seen it before it is treated without asking: what was passing is gone by then."""
MAX_TEXT = 600
MOST_AT_ONCE = 20
"""Treatments of one run; the others follow with the next."""
TREAT_SECONDS = 30
"""Longest statement of a treatment within a run of the workflow."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done about a finding. ``why_not``: why it is not done now; '' where nothing forbids it."""

    row: Standing
    treatment: Treatment
    why_not: str = ""

    @property
    def does(self) -> str:
        """What it would do."""
        return self.treatment.does.format(subject=self.row.finding.subject)


@dataclass(frozen=True, slots=True)
class Healing:
    """What was done about a finding, as its row has it."""

    id: int
    finding_id: int
    check: str
    subject: str
    at: datetime
    by: str
    what: str
    before: str
    after: str
    outcome: str
    can_undo: bool
    undone_at: datetime | None
    undone_by: str


_COLUMNS = (
    "id, finding_id, check_name, subject, at, by, what, before, after, outcome, undo is not null, undone_at, undone_by"
)


def plans(conn: Connection, rows: Iterable[Standing], now: datetime, *, alone: bool = False) -> list[Plan]:
    """Return what can be done about ``rows``; ``alone``: without asking anybody, so only what is safe and seen twice."""
    found = []
    for row in rows:
        treatment = TREATMENTS.get(row.finding.check)
        if treatment is None or not row.finding.healable or row.closed_at is not None:
            continue
        if alone and not (treatment.is_safe and row.times_seen >= CONFIRMED_LOOKS and not row.is_muted(now)):
            continue
        found.append(Plan(row, treatment, _waits(conn, row.finding, now)))
    return found


def may_alone(conn: Connection) -> bool:
    """Tell whether the workflow heals by itself: the option says so where it was not set to 0."""
    return bool(scalar(conn, "select coalesce((select value from option where name = %s), '1') <> '0'", (AUTO_HEAL,)))


def treat(surgery: Surgery, plan: Plan) -> Healing:
    """Do what is planned and return what was written down.

    Raises Conflict where it must wait, Unhealthy where nothing can be written down, and nothing that the treatment raises.
    """
    if plan.why_not:
        raise Conflict(f"{plan.does}: {plan.why_not}", "it is not done twice so soon; mend the cause")
    finding, now = plan.row.finding, surgery.facts.clock.now()
    try:
        if plan.treatment.is_apart:
            with surgery.database.connection() as conn:
                done = plan.treatment.act(conn, surgery, finding)
            with surgery.database.transaction() as conn:
                return _write(conn, surgery, plan.row, done, "done", now)
        with surgery.database.transaction(statement_seconds=TREAT_SECONDS) as conn:
            done = plan.treatment.act(conn, surgery, finding)
            return _write(conn, surgery, plan.row, done, "done", now)
    except Exception as exc:
        cause, known = said(exc), isinstance(exc, MidsourceError)
        log.warning(
            "not_healed", action="not_healed", check=finding.check, cause=cause, exc_info=None if known else exc
        )
        with surgery.database.transaction() as conn:
            return _write(conn, surgery, plan.row, Done(plan.does, "", cause), "failed", now)


def undo(surgery: Surgery, finding_id: int) -> str:
    """Undo the last healing of a finding and return what that did. Raises NotFound, Conflict where it cannot be undone."""
    now = surgery.facts.clock.now()
    with surgery.database.transaction() as conn:
        row = conn.execute(
            "select id, check_name, subject, undo, undone_at, outcome, what from healing where finding_id = %s order by id desc limit 1 for update",
            (finding_id,),
        ).fetchone()
        if row is None:
            raise NotFound(
                f"nothing was done about finding {finding_id}", "`midsource doctor --heal --dry-run` says what could be"
            )
        number, check, subject, kept, undone_at, outcome, what = row
        treatment = TREATMENTS.get(check)
        if outcome != "done" or undone_at is not None:
            raise Conflict(
                f"{what}: {'it failed' if outcome != 'done' else 'it is undone already'}", "there is nothing to undo"
            )
        if treatment is None or treatment.undo is None or kept is None:
            final = treatment.final if treatment is not None else "this version does not know how"
            raise Conflict(f"{what} cannot be undone", final)
        said = treatment.undo(conn, surgery, kept)
        conn.execute("update healing set undone_at = %s, undone_by = %s where id = %s", (now, surgery.by.name, number))
        audit.record(conn, surgery.by, "doctor.undo", f"{check} {subject}".strip(), what=said, finding=finding_id)
    return said


def latest(conn: Connection, limit: int = 50, finding_id: int | None = None) -> Sequence[Healing]:
    """Return the last healings, newest first; with ``finding_id`` those of one finding."""
    rows = conn.execute(
        f"select {_COLUMNS} from healing where %s::bigint is null or finding_id = %s order by id desc limit %s",  # noqa: S608 - constant
        (finding_id, finding_id, limit),
    ).fetchall()
    return [Healing(*row) for row in rows]


def pause(healings: Sequence[datetime]) -> timedelta:
    """Return how long to wait after these healings of the last day, before the same is done once more. Pure."""
    if not healings:
        return timedelta(0)
    doublings: int = 2 ** min(len(healings) - 1, 10)
    return min(LONGEST_PAUSE, FIRST_PAUSE * doublings)


def _waits(conn: Connection, finding: Finding, now: datetime) -> str:
    rows: list[Any] = conn.execute(
        "select at from healing where check_name = %s and subject = %s and at > %s order by at",
        (*finding.key, now - REMEMBERED),
    ).fetchall()
    times = [at for (at,) in rows]
    until = times[-1] + pause(times) if times else now
    return f"done {len(times)} times within a day, again from {until:%Y-%m-%d %H:%M:%SZ}" if until > now else ""


def _write(conn: Connection, surgery: Surgery, row: Standing, done: Done, outcome: str, now: datetime) -> Healing:
    finding = row.finding
    made = conn.execute(
        "insert into healing (finding_id, check_name, subject, at, by, what, before, after, undo, outcome) "  # noqa: S608 - constant
        f"values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) returning {_COLUMNS}",
        (
            *(
                row.id,
                finding.check,
                finding.subject,
                now,
                surgery.by.name,
                done.what[:MAX_TEXT],
                done.before[:MAX_TEXT],
            ),
            *(done.after[:MAX_TEXT], None if done.undo is None else Jsonb(done.undo), outcome),
        ),
    ).fetchone()
    assert made is not None
    about = f"{finding.check} {finding.subject}".strip()
    audit.record(
        conn, surgery.by, "doctor.heal", about, what=done.what, before=done.before, after=done.after, outcome=outcome
    )
    return Healing(*made)
