"""What one may order a delivery to do, and doing it: the functions of the command line, each with its row in the audit.

An order is stored and asked for in one transaction and answered at once; it shows as not confirmed until the mid has
confirmed it. Sending and stopping ask on a page of their own first, which says how many people it is about; what is asked
there is done to exactly what was seen: a delivery that changed meanwhile is shown again.

POST /deliveries/{number}/prepare, send, pause, resume, stop
GET  /deliveries/{number}/send, /stop     the questions
"""

from __future__ import annotations

from datetime import datetime
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.engine import jobs
from midsource.marketing import deliveries, orders
from midsource.model.delivery import DeliveryState
from midsource.model.errors import Conflict
from midsource.security import audit
from midsource.security.roles import Permission, Visitor
from midsource.store.database import Connection
from midsource.web.console.frame import Frame, done, whole
from midsource.web.console.pages import delivery_view
from midsource.web.console.pages.delivery_view import DeliveryStory
from midsource.web.routing import Action, Form, Page, visitor_of

S = DeliveryState
_BEFORE = (S.EDITED, S.TARGET_READY, S.PERSONALISATION, S.PREPARATION_FAILED)
_RUNNING = (S.START_PENDING, S.IN_PROGRESS, S.RETRY)
_HELD = (S.PAUSE_REQUESTED, S.PAUSING, S.PAUSED)


def possible(story: DeliveryStory) -> list[str]:
    """Return the orders that make sense now, the first one first; the functions behind them decide in the end."""
    state, ordered = S(story.row.state), story.row.ordered if story.row.is_unconfirmed else None
    if state.is_final:
        return []
    busy = any(job.outcome is None and job.kind in ("prepare", "handover") for job in story.jobs)
    asked = story.row.confirmed_at is not None
    if state in _BEFORE or state is S.MESSAGE_FINALISED:
        prepare = ["prepare"] if state is not S.MESSAGE_FINALISED and not busy else []
        return [*prepare, *([] if asked and busy else ["send"]), "stop"]
    if state is S.READY:
        return ["pause", "stop"] if ordered == "start" else ["send", "stop"]
    wanted = ["pause"] if state in _RUNNING else ["resume"]
    return [*([] if ordered in wanted else wanted), *([] if ordered == "stop" else ["stop"])]


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of orders; they stand before those that show a delivery."""
    pages = _Orders(frame)
    deliver = Permission.DELIVER
    return [
        Page("/deliveries/{number}/send", pages.ask_send, needs=deliver),
        Page("/deliveries/{number}/stop", pages.ask_stop, needs=deliver),
        Action("/deliveries/{number}/prepare", pages.prepare, needs=deliver),
        Action("/deliveries/{number}/send", pages.send, needs=deliver),
        Action("/deliveries/{number}/pause", pages.pause, needs=deliver),
        Action("/deliveries/{number}/resume", pages.resume, needs=deliver),
        Action("/deliveries/{number}/stop", pages.stop, needs=deliver),
    ]


class _Orders:
    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def ask_send(self, request: Request) -> Response:
        return await self._ask(request, "delivery_send.html", "send")

    async def ask_stop(self, request: Request) -> Response:
        return await self._ask(request, "delivery_stop.html", "stop")

    async def _ask(self, request: Request, template: str, verb: str) -> Response:
        read = partial(delivery_view.story, delivery_id=_number(request), now=self._frame.clock.now())
        story = await self._frame.reader.read(read)
        if verb not in possible(story):  # followed an old link, or somebody else was first: the page says how it stands
            return done(_path(request))
        return self._frame.page(request, template, "deliveries", delivery=story.row, account=story.account)

    async def prepare(self, request: Request, _form: Form) -> Response:
        number, visitor = _number(request), visitor_of(request.scope)

        def change(conn: Connection) -> None:
            deliveries.start_preparation(conn, number)
            jobs.ask(conn, "prepare", number, visitor.name)
            audit.record(conn, visitor, "delivery.prepare", number)

        await self._frame.write(change)
        path = _path(request)
        return done(path, "delivery_prepare")

    async def send(self, request: Request, form: Form) -> Response:
        path = _path(request)
        if not await self._order(request, "start", form.get("version", "")):
            question = f"{path}/send"
            return done(question, "delivery_moved")
        return done(path, "delivery_send")

    async def pause(self, request: Request, _form: Form) -> Response:
        await self._order(request, "pause")
        path = _path(request)
        return done(path, "delivery_pause")

    async def resume(self, request: Request, _form: Form) -> Response:
        await self._order(request, "resume")
        path = _path(request)
        return done(path, "delivery_resume")

    async def stop(self, request: Request, _form: Form) -> Response:
        await self._order(request, "stop")
        path = _path(request)
        return done(path, "delivery_stop")

    async def _order(self, request: Request, verb: str, seen: str | None = None) -> bool:
        """Store an order; False where the delivery is no longer what the question was about."""
        number, visitor, now = _number(request), visitor_of(request.scope), self._frame.clock.now()

        def change(conn: Connection) -> bool:
            delivery = deliveries.get(conn, number, lock=True)
            if seen is not None and seen != str(delivery.version):
                if S(delivery.state) in _RUNNING or delivery.ordered == "start":
                    raise Conflict(f"delivery {number} is ordered to be sent already", "see its page")
                return False
            _give(conn, number, verb, visitor, now)
            return True

        return await self._frame.write(change)


def _give(conn: Connection, number: int, verb: str, visitor: Visitor, now: datetime) -> None:
    ordered = orders.order(conn, number, verb, by=visitor.name, now=now)
    name = "send" if verb == "start" else verb
    audit.record(conn, visitor, f"delivery.{name}", number, state=ordered.state.label, job=ordered.job)


def _number(request: Request) -> int:
    return whole(request.path_params["number"], "a delivery's number")


def _path(request: Request) -> str:
    return f"/deliveries/{_number(request)}"
