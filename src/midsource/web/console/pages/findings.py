"""Findings of the doctor: what is wrong, why, what to do; mended or muted from here; and who is told of them.

GET  /findings                open ones worst first, healings, closed ones (older ``before=ID``), checks, supervisors
GET  /findings/{number}       one: what would be done about it, what was done, and for how long nobody is told of it
POST /findings/{number}/{do}  heal, undo, mute (``hours``; 0: tell again); a GET (a reload of a refusal) leads back

What is done is what the command line does (doctor/heal.py, doctor/book.py), with its row in the audit. Causes and remedies are
shown in the reader's language (console/sentences.py); what was measured is English, as all that operators search for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.doctor import book, heal, supervisors
from midsource.doctor.book import Look
from midsource.doctor.checks import CHECKS
from midsource.doctor.facts import Facts
from midsource.doctor.heal import Healing, Plan
from midsource.doctor.supervisors import Supervisor
from midsource.doctor.treatments import Surgery
from midsource.model.errors import Conflict, NotFound, UserError
from midsource.model.finding import Severity, Standing
from midsource.security import audit
from midsource.security.roles import Permission, Visitor
from midsource.store.database import Connection, Database
from midsource.web.console.frame import Frame, done, number, whole
from midsource.web.routing import Action, Form, Page, visitor_of

HERE = "findings"
PATH = "/findings"
CLOSED_SHOWN = 20
HEALINGS_SHOWN = 10
HEALINGS_OF_ONE = 20
MUTES = (1, 8, 24, 24 * 7, 24 * 30)
"""Hours for which an operator may want to hear no more of something."""
SILENT_AFTER = timedelta(minutes=15)
"""Three looks of the workflow: a doctor that says nothing for longer has not looked."""

REMEDIES = {check.name: check.remedy for check in CHECKS}
"""What is done about each check in general."""


@dataclass(frozen=True, slots=True)
class Ward:
    """Everything on the page of all findings. ``older``: the closed finding that the next page goes on below."""

    open: Sequence[Standing]
    closed: Sequence[Standing]
    older: int | None
    healings: Sequence[Healing]
    looks: Sequence[Look]
    supervisors: Sequence[Supervisor]

    @property
    def looked_at(self) -> datetime | None:
        """When any check looked last."""
        return max((look.looked_at for look in self.looks), default=None)

    def is_silent(self, now: datetime) -> bool:
        """Tell whether the doctor itself is absent, so that no finding says nothing."""
        return self.looked_at is None or now - self.looked_at > SILENT_AFTER

    def counted(self) -> list[tuple[Severity, int]]:
        """Return how many are open by severity, the worst first."""
        found = [row.finding.severity for row in self.open]
        return [(severity, found.count(severity)) for severity in reversed(Severity)]


@dataclass(frozen=True, slots=True)
class Case:
    """One finding. ``plan`` None: it has no treatment."""

    row: Standing
    plan: Plan | None
    healings: Sequence[Healing]

    @property
    def can_undo(self) -> bool:
        """Whether its last healing can be undone."""
        last = self.healings[0] if self.healings else None
        return last is not None and last.outcome == "done" and last.can_undo and last.undone_at is None


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""

    async def findings(request: Request) -> Response:
        before = number(request, "before")
        found = await frame.reader.read(lambda conn: _ward(conn, before))
        return frame.page(
            request, "findings.html", HERE, ward=found, before=before, live=before is None, remedies=REMEDIES
        )

    async def finding(request: Request) -> Response:
        wanted, now = whole(request.path_params["number"], "a finding"), frame.clock.now()
        case = await frame.reader.read(lambda conn: _case(conn, wanted, now))
        return frame.page(request, "finding.html", HERE, case=case, mutes=MUTES)

    async def act(request: Request, form: Form) -> Response:
        wanted, what = whole(request.path_params["number"], "a finding"), request.path_params["do"]
        visitor, path = visitor_of(request.scope), f"{PATH}/{wanted}"
        match what:
            case "heal":
                await frame.work(lambda database: _heal(frame, database, visitor, wanted))
                return done(path, "finding_healed")
            case "undo":
                surgery = Surgery(frame.database, _facts(frame), visitor)
                await frame.work(lambda _database: heal.undo(surgery, wanted))
                return done(path, "finding_undone")
            case "mute":
                hours = whole(form.get("hours", ""), "a number of hours")
                await frame.write(lambda conn: _mute(conn, visitor, wanted, hours, frame.clock.now()))
                return done(path, "finding_muted") if hours else done(path, "finding_told")
        raise NotFound(f"there is no order {what[:40]!r}", "orders: heal, undo, mute")

    async def back(request: Request) -> Response:
        path = f"{PATH}/{whole(request.path_params['number'], 'a finding')}"
        return done(path)

    return [
        Page(PATH, findings),
        Page(f"{PATH}/{{number}}", finding),
        Page(f"{PATH}/{{number}}/{{do}}", back),
        Action(f"{PATH}/{{number}}/{{do}}", act, needs=Permission.SUPERVISE),
    ]


def _ward(conn: Connection, before: int | None) -> Ward:
    closed = book.closed(conn, CLOSED_SHOWN + 1, before)
    return Ward(
        book.standing(conn),
        closed[:CLOSED_SHOWN],
        closed[CLOSED_SHOWN - 1].id if len(closed) > CLOSED_SHOWN else None,
        heal.latest(conn, HEALINGS_SHOWN),
        sorted(book.looks(conn).values(), key=lambda look: (not look.problem, look.check)),
        supervisors.listing(conn),
    )


def _case(conn: Connection, wanted: int, now: datetime) -> Case:
    row = book.get(conn, wanted)
    plans = heal.plans(conn, [row], now)
    return Case(row, plans[0] if plans else None, heal.latest(conn, HEALINGS_OF_ONE, wanted))


def _facts(frame: Frame) -> Facts:
    """Return what treatments know; none of them asks a mid."""
    return Facts(frame.config, frame.instance, frame.clock)


def _heal(frame: Frame, database: Database, visitor: Visitor, wanted: int) -> None:
    """Mend one finding. Raises Conflict where it has no treatment, must wait, or the treatment failed."""
    with database.connection() as conn:
        plan = _case(conn, wanted, frame.clock.now()).plan
    if plan is None:
        raise Conflict(f"finding {wanted} cannot be mended from here", "its remedy says what to do")
    healing = heal.treat(Surgery(database, _facts(frame), visitor), plan)
    if healing.outcome != "done":
        raise Conflict(healing.after, "mend the cause, and try again later")


def _mute(conn: Connection, visitor: Visitor, wanted: int, hours: int, now: datetime) -> None:
    if hours > MUTES[-1]:
        raise UserError(f"{hours} hours are too long to hear nothing", f"{MUTES[-1]} hours are the most")
    until = now + timedelta(hours=hours) if hours else None
    row = book.mute(conn, wanted, until, visitor.name, now)
    about = f"{row.finding.check} {row.finding.subject}".strip()
    audit.record(conn, visitor, "doctor.mute", about, finding=wanted, until=until)
