"""The status page of a marketing instance.

GET /          one line a problem; latest deliveries, sandbox, technical workflows, external accounts, processes
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
    inbox = Inbox(frame.config)

    async def status(request: Request) -> Response:
        found = await frame.reader.read(partial(overview.overview, now=frame.clock.now()))
        held = await inbox.look(None)
        return frame.page(request, "status.html", "status", found=found, held=held, live=True)

    return [Page("/", status)]
