"""Restart several technical workflows: what that means for each is shown first, then exactly that is done.

GET  /restart-workflows?failed=yes&scheduled=yes    what would be restarted, when and how differently; what is left, and why
POST /restart-workflows                             ``names``: those the page showed. One that is held meanwhile is left

The plan and the restarts are those of the command line (engine/restarting.py); each restart is a transaction of its own with
its row in the audit, so one that cannot be done holds up no other and is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.engine import restarting
from midsource.engine.records import WorkflowRow
from midsource.engine.restarting import Restart
from midsource.security import audit
from midsource.security.roles import Permission, Visitor
from midsource.store import processes
from midsource.store.database import Connection, Database
from midsource.web.console.frame import Frame, done
from midsource.web.console.pages.workflows import HERE, need_worker
from midsource.web.routing import Action, Form, Page, visitor_of

PATH = "/restart-workflows"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a restart would do. ``left``: workflows with the reason they are left."""

    restarts: Sequence[Restart]
    left: Sequence[tuple[WorkflowRow, str]]
    has_worker: bool

    @property
    def names(self) -> str:
        """What is restarted, as the form carries it."""
        return ",".join(one.name for one in self.restarts)


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""

    async def ask(request: Request) -> Response:
        scheduled = request.query_params.get("scheduled") == "yes"
        plan = await frame.reader.read(lambda conn: _plan(conn, scheduled=scheduled))
        return frame.page(request, "workflows_restart.html", HERE, plan=plan, scheduled=scheduled, problems=())

    async def restart(request: Request, form: Form) -> Response:
        visitor, scheduled = visitor_of(request.scope), form.get("scheduled") == "yes"
        wanted = frozenset(form.get("names", "").split(","))
        finished = await frame.work(lambda database: _restart(database, frame, visitor, wanted, scheduled=scheduled))
        problems = [one for one in finished if one.problem]
        path = "/workflows"
        if not finished:
            return done(path, "workflows_none")
        if not problems:
            return done(path, "workflows_restart")
        plan = await frame.reader.read(lambda conn: _plan(conn, scheduled=scheduled))
        return frame.page(
            request, "workflows_restart.html", HERE, status=409, plan=plan, scheduled=scheduled, problems=problems
        )

    return [Page(PATH, ask, needs=Permission.SUPERVISE), Action(PATH, restart, needs=Permission.SUPERVISE)]


def _plan(conn: Connection, *, scheduled: bool) -> Plan:
    chosen = restarting.choose(conn, (), failed=True, scheduled=scheduled)
    return Plan(restarting.look(conn, chosen.rows), chosen.left, processes.any_alive(conn, "worker"))


def _restart(
    database: Database, frame: Frame, visitor: Visitor, wanted: frozenset[str], *, scheduled: bool
) -> list[Restart]:
    """Restart those of ``wanted`` that are still to be restarted. Raises Conflict where nobody would run them."""
    with database.connection() as conn:
        need_worker(conn, frame)
        chosen = restarting.choose(conn, (), failed=True, scheduled=scheduled)

    def record(conn: Connection, name: str, run: int) -> None:
        audit.record(conn, visitor, "workflow.restart", name, run=run)

    rows = [row for row in chosen.rows if row.name in wanted]
    return list(restarting.restart_all(database, rows, visitor.name, frame.clock.now(), record))
