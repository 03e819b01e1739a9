"""Technical workflows: all of them worst first, one with its runs and journal, and the orders one gives.

GET  /workflows                  all of this instance; ``journal=NAME`` opens the journal of one in its place
GET  /workflows/{name}           one; older runs ``run=ID``, older lines ``line=ID``
GET  /workflows/{name}/stop      what stopping means, before it is done; /kill likewise
POST /workflows/{name}/{verb}    run-now, start, pause, stop, kill, restart; a GET (a reload of a refusal) leads back to the page

Orders are the functions of the command line (engine/admin.py), each in one transaction with its row in the audit. Restarts of
several: workflow_restart.py; schedules: workflow_schedule.py; who ran beside whom: concurrency.py.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.engine import admin, records
from midsource.model.errors import Conflict, NotFound
from midsource.security import audit
from midsource.security.roles import Permission, Visitor
from midsource.store import processes
from midsource.store.database import Connection
from midsource.web.console.frame import Frame, done, number
from midsource.web.console.pages import workflow_view
from midsource.web.routing import Action, Form, Page, visitor_of

HERE = "workflows"
VERBS = ("run-now", "start", "pause", "stop", "kill", "restart")
NEED_A_WORKER = frozenset({"run-now", "restart"})


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""

    async def workflows(request: Request) -> Response:
        read = partial(
            workflow_view.board,
            role=frame.instance.role,
            now=frame.clock.now(),
            opened=request.query_params.get("journal", ""),
        )
        board = await frame.reader.read(read)
        return frame.page(request, "workflows.html", HERE, board=board, live=True)

    async def workflow(request: Request) -> Response:
        story = await _story(frame, request)
        return frame.page(request, "workflow.html", HERE, story=story, live=_is_newest(request), time_of=_time_of)

    async def ask_stop(request: Request) -> Response:
        story = await _story(frame, request)
        return frame.page(request, "workflow_stop.html", HERE, story=story, verb="stop")

    async def ask_kill(request: Request) -> Response:
        story = await _story(frame, request)
        return frame.page(request, "workflow_stop.html", HERE, story=story, verb="kill")

    async def order(request: Request, _form: Form) -> Response:
        name, verb = request.path_params["name"], request.path_params["verb"]
        await frame.write(partial(_carry_out, frame=frame, visitor=visitor_of(request.scope), name=name, verb=verb))
        return _done(name, verb)

    async def back(request: Request) -> Response:
        path = f"/workflows/{request.path_params['name']}"
        return done(path)

    return [
        Page("/workflows", workflows),
        Page("/workflows/{name}", workflow),
        Page("/workflows/{name}/stop", ask_stop, needs=Permission.SUPERVISE),
        Page("/workflows/{name}/kill", ask_kill, needs=Permission.SUPERVISE),
        Page("/workflows/{name}/{verb}", back),
        Action("/workflows/{name}/{verb}", order, needs=Permission.SUPERVISE),
    ]


async def _story(frame: Frame, request: Request) -> workflow_view.Story:
    read = partial(
        workflow_view.story,
        role=frame.instance.role,
        name=request.path_params["name"],
        now=frame.clock.now(),
        before_run=number(request, "run"),
        before_line=number(request, "line"),
    )
    return await frame.reader.read(read)


def _done(name: str, verb: str) -> Response:
    path = f"/workflows/{name}"
    match verb:
        case "run-now":
            return done(path, "workflow_run")
        case "start":
            return done(path, "workflow_start")
        case "pause":
            return done(path, "workflow_pause")
        case "stop":
            return done(path, "workflow_stop")
        case "kill":
            return done(path, "workflow_kill")
        case _:
            return done(path, "workflow_restart")


def _is_newest(request: Request) -> bool:
    return not request.query_params.get("run") and not request.query_params.get("line")


def _time_of(text: str) -> datetime | None:
    """Read a bound of a window where it is a time; another workflow may count by something else."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None


def _carry_out(conn: Connection, *, frame: Frame, visitor: Visitor, name: str, verb: str) -> None:
    """Do what was ordered and say so in the audit. Raises NotFound; Conflict, also where nobody would run it."""
    if verb not in VERBS:
        raise NotFound(f"there is no order {verb[:40]!r}", f"orders: {', '.join(VERBS)}")
    records.get(conn, name)
    if verb in NEED_A_WORKER:
        need_worker(conn, frame)
    match verb:
        case "run-now":
            admin.run_now(conn, name, visitor.name)
        case "start":
            admin.start(conn, name, frame.clock.now())
        case "pause":
            admin.pause(conn, name, visitor.name)
        case "stop":
            admin.stop(conn, name, visitor.name)
        case "kill":
            admin.kill(conn, name, visitor.name)
        case _:
            admin.restart(conn, name, visitor.name, frame.clock.now())
    audit.record(conn, visitor, f"workflow.{verb}", name)


def need_worker(conn: Connection, frame: Frame) -> None:
    """Raise Conflict where no worker lives: what is asked for would wait."""
    if not processes.any_alive(conn, "worker"):
        raise Conflict(*processes.no_worker(frame.instance.name))
