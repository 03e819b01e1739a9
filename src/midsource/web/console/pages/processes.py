"""Processes: by instance, as they report themselves to the database and as the supervisor of this home sees them.

GET  /processes               all of them
GET  /processes/stop          what stopping one means; ``name=web@mid1``
POST /processes/{verb}        start, stop, restart the process ``name`` through the supervisor's socket

The supervisor is asked within ASK_SECONDS; where it cannot be reached (another machine runs the processes, another user
does) the page shows what it knows from the database, and the command to type. The web process that serves this page can
be restarted (the order is given without waiting, and a page says so meanwhile), never stopped: who would start it?
"""

from __future__ import annotations

from functools import partial

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.model.errors import Conflict, MidsourceError, NotFound
from midsource.net import control
from midsource.security import audit
from midsource.security.roles import Permission
from midsource.web.console.frame import Frame, done
from midsource.web.console.pages import process_view
from midsource.web.console.pages.process_view import Supervised
from midsource.web.routing import Action, Form, Page, visitor_of

VERBS = ("start", "stop", "restart")
ASK_SECONDS = 2.0
"""The supervisor answers in milliseconds, or is not there."""
ORDERS_AT_ONCE = 2
"""Orders that wait for a process to end or to begin, up to 50 s."""
_PATH = "/processes"


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""
    limiter = CapacityLimiter(ORDERS_AT_ONCE)

    async def listing(request: Request) -> Response:
        supervised = await _supervised(frame)
        read = partial(process_view.board, instance=frame.instance.name, supervised=supervised)
        board = await frame.reader.read(read)
        return frame.page(
            request, "processes.html", "processes", board=board, own=_own(frame),
            age=process_view.age, live=True,
        )  # fmt: skip

    async def ask_stop(request: Request) -> Response:
        name = request.query_params.get("name", "")
        supervised = await _supervised(frame)
        read = partial(process_view.board, instance=frame.instance.name, supervised=supervised)
        board = await frame.reader.read(read)
        row = next((row for row in board.rows if row.name == name), None)
        if row is None:
            raise NotFound(f"there is no process {name[:60]!r}", "go back and follow a link")
        return frame.page(request, "process_stop.html", "processes", row=row)

    async def order(request: Request, form: Form) -> Response:
        verb, name = request.path_params["verb"], form.get("name", "")
        if verb not in VERBS:
            raise NotFound(f"there is no order {verb[:40]!r}", f"orders: {', '.join(VERBS)}")
        if _is_own(frame, name) and verb == "stop":
            raise Conflict(f"{name} serves this page", f"stop it by `midsource stop {name}`")
        record = partial(audit.record, visitor=visitor_of(request.scope), verb=f"process.{verb}", subject=name)
        if _is_own(frame, name):
            await frame.write(record)  # before the order: afterwards nobody may be left to write it
            await to_thread.run_sync(partial(control.tell, frame.config.home, verb, [name]), limiter=limiter)
            return frame.page(request, "process_own.html", "processes", name=name)
        await to_thread.run_sync(partial(control.ask, frame.config.home, verb, [name]), limiter=limiter)
        await frame.write(record)
        return _done(verb)

    async def back(_request: Request) -> Response:
        return done(_PATH)

    return [
        Page(_PATH, listing),
        Page("/processes/stop", ask_stop, needs=Permission.SUPERVISE),
        Page("/processes/{verb}", back),
        Action("/processes/{verb}", order, needs=Permission.SUPERVISE),
    ]


def _done(verb: str) -> Response:
    match verb:
        case "start":
            return done(_PATH, "process_start")
        case "stop":
            return done(_PATH, "process_stop")
        case _:
            return done(_PATH, "process_restart")


def _own(frame: Frame) -> str:
    return f"web@{frame.instance.name}"


def _is_own(frame: Frame, name: str) -> bool:
    return name == _own(frame) or name.startswith(f"{_own(frame)}.")


async def _supervised(frame: Frame) -> Supervised:
    """Ask the supervisor what runs; its absence is an answer."""
    ask = partial(control.ask, frame.config.home, "ps", seconds=ASK_SECONDS)
    try:
        return Supervised.parse(await to_thread.run_sync(ask, abandon_on_cancel=True))
    except MidsourceError as exc:
        return Supervised((), str(exc))
