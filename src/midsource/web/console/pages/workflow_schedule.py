"""The schedule of a technical workflow: its next five runs are shown before it is saved.

GET  /workflows/{name}/schedule    the form as it stands; ``default=yes``: filled with what it is by default
POST /workflows/{name}/schedule    ``do=save`` saves what was shown (``seen``); anything else shows it and changes nothing

A schedule whose runs were not shown yet is shown instead of saved, with scripts or without. Bad ones are refused with the
sentence of model/schedule.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.engine import records, scheduling
from midsource.engine.records import WorkflowRow
from midsource.engine.scheduling import Proposal, Wanted
from midsource.model.technical import TECHNICAL
from midsource.security import audit
from midsource.security.roles import Permission, Visitor
from midsource.store.database import Connection
from midsource.web.console.frame import Frame, done, whole
from midsource.web.console.pages.beside import MISTAKES
from midsource.web.console.pages.workflows import HERE
from midsource.web.routing import Action, Form, Page, visitor_of

FIELDS = ("text", "zone", "hours", "valid_from", "valid_to", "runs")


@dataclass(frozen=True, slots=True)
class Sketch:
    """A schedule somebody is writing: what was typed, and what comes of it or is wrong with it."""

    given: Mapping[str, str]
    proposal: Proposal | None
    problem: str = ""

    @property
    def seen(self) -> str:
        """What the page has shown the runs of, as the form carries it; '' where it shows none."""
        return fingerprint(self.given) if self.proposal else ""


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""

    async def shown(
        request: Request, row: WorkflowRow, sketch: Sketch, *, status: int = 200, unsaved: bool = False
    ) -> Response:
        default = TECHNICAL.get(row.name)
        return frame.page(
            request, "workflow_schedule.html", HERE, status=status, row=row, sketch=sketch, unsaved=unsaved,
            default=default.schedule if default else "", as_it_is=scheduling.described(row),
        )  # fmt: skip

    async def form_of(request: Request) -> Response:
        row = await _row(frame, request)
        default = TECHNICAL.get(row.name)
        asked = request.query_params.get("default") == "yes" and default is not None
        given = _given(Wanted(default.schedule) if asked and default else scheduling.present(row))
        return await shown(request, row, sketch(given, frame.clock.now()))

    async def saved(request: Request, form: Form) -> Response:
        row = await _row(frame, request)
        given = {name: form.get(name, "").strip() for name in FIELDS}
        drawn = sketch(given, frame.clock.now())
        if form.get("do") != "save":
            return await shown(request, row, drawn)
        if drawn.proposal is None:
            return await shown(request, row, drawn, status=422)
        if form.get("seen") != drawn.seen:
            return await shown(request, row, drawn, unsaved=True)
        visitor, proposal, now = visitor_of(request.scope), drawn.proposal, frame.clock.now()
        await frame.write(lambda conn: _save(conn, row.name, proposal, visitor, now))
        path = f"/workflows/{row.name}"
        return done(path, "workflow_schedule")

    path = "/workflows/{name}/schedule"
    return [Page(path, form_of, needs=Permission.SUPERVISE), Action(path, saved, needs=Permission.SUPERVISE)]


def sketch(given: Mapping[str, str], now: datetime) -> Sketch:
    """Say what would come of what was typed. Pure."""
    try:
        runs = whole(given["runs"], "a number of runs") if given["runs"] else None
        wanted = Wanted(
            given["text"], given["zone"] or "UTC", given["valid_from"], given["valid_to"], runs, given["hours"]
        )
        return Sketch(given, scheduling.propose(wanted, now))
    except MISTAKES as exc:
        return Sketch(given, None, str(exc))


def fingerprint(given: Mapping[str, str]) -> str:
    """Return what was typed as one text. Pure."""
    return " | ".join(given[name] for name in FIELDS)


async def _row(frame: Frame, request: Request) -> WorkflowRow:
    name = request.path_params["name"]
    return await frame.reader.read(lambda conn: records.get(conn, name))


def _given(wanted: Wanted) -> dict[str, str]:
    runs = "" if wanted.runs is None else str(wanted.runs)
    return dict(
        zip(FIELDS, (wanted.text, wanted.zone, wanted.hours, wanted.valid_from, wanted.valid_to, runs), strict=True)
    )


def _save(conn: Connection, name: str, proposal: Proposal, visitor: Visitor, now: datetime) -> None:
    old = scheduling.described(records.get(conn, name))
    row = scheduling.save(conn, name, proposal.plan, visitor.name, now)
    audit.record(conn, visitor, "workflow.schedule", name, old=old, new=scheduling.described(row))
