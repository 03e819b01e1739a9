"""The status page and the sandbox's inbox.

GET /          processes, technical workflows, external accounts, latest deliveries, sandbox
GET /sandbox   what the sandbox holds
"""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.web.console.frame import Frame
from midsource.web.console.pages import overview
from midsource.web.console.pages.inbox import Inbox
from midsource.web.routing import Page


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""
    inbox = Inbox(frame.config.home)

    async def status(request: Request) -> Response:
        found = await frame.reader.read(partial(overview.overview, now=frame.clock.now()))
        held = await inbox.look(messages=False)
        return frame.page(request, "status.html", "status", found=found, held=held, live=True)

    async def sandbox(request: Request) -> Response:
        held = await inbox.look(messages=True)
        return frame.page(request, "sandbox.html", "sandbox", held=held, live=True)

    return [Page("/", status), Page("/sandbox", sandbox)]
