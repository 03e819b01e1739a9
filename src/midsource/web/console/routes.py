"""The pages of the console of a marketing instance.

    GET /                    status: processes, technical workflows, external accounts, latest deliveries, sandbox
    GET /deliveries          deliveries, newest first; ``before=ID``
    GET /deliveries/{id}     one delivery; its log: ``after=N``, ``state=N``, ``email=ADDRESS``
    GET /sandbox             what the sandbox holds

Each handler parses, reads, renders. ``?lang=en|fr|pt`` chooses the language and keeps it in a cookie. The guard of the web
app (web/guard.py) lets nobody in but the operator, ``Face`` shows refusals as pages. Pages refresh themselves while what
they show can change: htmx asks for the same page every REFRESH_SECONDS and takes over its ``#live`` part; without scripts
the whole page is loaded again.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from midsource.config import Config, InstanceConfig
from midsource.model.clock import Clock
from midsource.model.errors import UserError
from midsource.model.message import MessageState
from midsource.store.database import Connection, Database
from midsource.web.console import delivery_view, log_view, overview
from midsource.web.console.catalogue import LANGUAGES
from midsource.web.console.delivery_view import DeliveryStory
from midsource.web.console.face import LANGUAGE_COOKIE, language_of
from midsource.web.console.figures import behind
from midsource.web.console.inbox import Inbox
from midsource.web.console.language import Words
from midsource.web.console.log_view import LogPage, Wanted
from midsource.web.console.reader import Reader
from midsource.web.console.render import render

REFRESH_SECONDS = 5
SLOW_REFRESH_SECONDS = 20
"""Without scripts, where a refresh moves the reader to the top of the page."""
LANGUAGE_SECONDS = 365 * 86_400
MAX_NUMBER = (1 << 63) - 1
MAX_EMAIL = 320
LOG_STATES = tuple(MessageState)


def console_routes(config: Config, instance: InstanceConfig, database: Database, clock: Clock) -> list[BaseRoute]:
    """Return the pages of ``instance``; nothing is opened before the first request."""
    pages = _Pages(instance.name, Reader(database), Inbox(config.home), clock)
    return [
        Route("/", pages.status),
        Route("/deliveries", pages.deliveries),
        Route("/deliveries/{number}", pages.delivery),
        Route("/sandbox", pages.sandbox),
    ]


class _Pages:
    """The handlers."""

    def __init__(self, instance: str, reader: Reader, inbox: Inbox, clock: Clock) -> None:
        self._instance = instance
        self._reader = reader
        self._inbox = inbox
        self._clock = clock

    async def status(self, request: Request) -> Response:
        """Show how this instance is."""
        found = await self._reader.read(overview.overview)
        held = await self._inbox.look(messages=False)
        return self._page(request, "status.html", "status", found=found, held=held, live=True)

    async def deliveries(self, request: Request) -> Response:
        """List deliveries."""
        before = _number(request, "before")
        page = await self._reader.read(partial(overview.page, before=before))
        changes = any(not delivery.is_final for delivery in page.deliveries)
        return self._page(request, "deliveries.html", "deliveries", page=page, before=before, live=changes)

    async def delivery(self, request: Request) -> Response:
        """Show one delivery."""
        number = _whole(request.path_params["number"], "a delivery's number")
        wanted = _wanted(request)

        def read(conn: Connection) -> tuple[DeliveryStory, LogPage]:
            story = delivery_view.story(conn, number)
            return story, log_view.page(conn, number, story.row.targeted or 0, wanted)

        story, log = await self._reader.read(read)
        lag = behind(story.row.counted, story.totals.states)
        return self._page(
            request, "delivery.html", "deliveries", story=story, delivery=story.row, log=log, wanted=wanted, lag=lag,
            log_states=LOG_STATES, live=not story.row.is_final or lag > 0,
        )  # fmt: skip

    async def sandbox(self, request: Request) -> Response:
        """Show what the sandbox holds."""
        held = await self._inbox.look(messages=True)
        return self._page(request, "sandbox.html", "sandbox", held=held, live=True)

    def _page(self, request: Request, template: str, here: str, **values: Any) -> Response:
        words = Words(language_of(request.scope))
        query = request.query_params.multi_items()
        address = request.url.include_query_params
        content = render(
            template, words, here=here, path=request.url.path, instance=self._instance, now=self._clock.now(),
            refresh=REFRESH_SECONDS, slow_refresh=SLOW_REFRESH_SECONDS,
            same=f"?{request.url.query}" if query else request.url.path,
            in_language={code: f"?{address(lang=code).query}" for code in LANGUAGES}, **values,
        )  # fmt: skip
        response = HTMLResponse(
            content, headers={"content-language": words.language, "vary": "Accept-Language, Cookie"}
        )
        if request.query_params.get("lang") in LANGUAGES:
            response.set_cookie(
                LANGUAGE_COOKIE, words.language, max_age=LANGUAGE_SECONDS, httponly=True, samesite="strict"
            )
        return response


def _wanted(request: Request) -> Wanted:
    state = _number(request, "state")
    if state is not None and state not in {int(known) for known in LOG_STATES}:
        raise UserError(f"{state} is no state of a message", "choose one of the list")
    email = request.query_params.get("email", "").strip().replace("\0", "")[:MAX_EMAIL]
    return Wanted(_number(request, "after") or 0, None if state is None else MessageState(state), email)


def _number(request: Request, name: str) -> int | None:
    given = request.query_params.get(name, "").strip()
    return _whole(given, name) if given else None


def _whole(given: str, what: str) -> int:
    if not (given.isascii() and given.isdecimal() and len(given) <= 19 and int(given) <= MAX_NUMBER):
        raise UserError(f"{given[:40]!r} is not {what}: a whole number is expected", "go back and follow a link")
    return int(given)
