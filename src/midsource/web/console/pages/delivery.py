"""The list of deliveries and the page of one.

GET /deliveries          deliveries, newest first; ``before=ID``
GET /deliveries/{id}     one delivery; its log: ``after=N``, ``state=N``, ``email=ADDRESS``
"""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.model.errors import UserError
from midsource.model.message import MessageState
from midsource.store.database import Connection
from midsource.web.console.frame import Frame, number, whole
from midsource.web.console.pages import delivery_view, log_view, overview
from midsource.web.console.pages.delivery_view import DeliveryStory
from midsource.web.console.pages.figures import behind
from midsource.web.console.pages.log_view import LogPage, Wanted
from midsource.web.routing import Page

MAX_EMAIL = 320
LOG_STATES = tuple(MessageState)


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""

    async def deliveries(request: Request) -> Response:
        before = number(request, "before")
        page = await frame.reader.read(partial(overview.page, before=before))
        changes = any(not delivery.is_final for delivery in page.deliveries)
        return frame.page(request, "deliveries.html", "deliveries", page=page, before=before, live=changes)

    async def delivery(request: Request) -> Response:
        asked = whole(request.path_params["number"], "a delivery's number")
        wanted = _wanted(request)

        def read(conn: Connection) -> tuple[DeliveryStory, LogPage]:
            story = delivery_view.story(conn, asked)
            return story, log_view.page(conn, asked, story.row.targeted or 0, wanted)

        story, log = await frame.reader.read(read)
        lag = behind(story.row.counted, story.totals.states)
        return frame.page(
            request, "delivery.html", "deliveries", story=story, delivery=story.row, log=log, wanted=wanted, lag=lag,
            log_states=LOG_STATES, live=not story.row.is_final or lag > 0,
        )  # fmt: skip

    return [Page("/deliveries", deliveries), Page("/deliveries/{number}", delivery)]


def _wanted(request: Request) -> Wanted:
    state = number(request, "state")
    if state is not None and state not in {int(known) for known in LOG_STATES}:
        raise UserError(f"{state} is no state of a message", "choose one of the list")
    email = request.query_params.get("email", "").strip().replace("\0", "")[:MAX_EMAIL]
    return Wanted(number(request, "after") or 0, None if state is None else MessageState(state), email)
