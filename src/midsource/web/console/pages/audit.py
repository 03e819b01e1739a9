"""Administration: who did what, to what, when; the newest first, found by who, verb and subject."""

from __future__ import annotations

from functools import partial
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.security import audit
from midsource.security.audit import MAX_SUBJECT
from midsource.security.roles import Permission
from midsource.web.console.frame import Frame, number
from midsource.web.routing import Page

ROWS = 50
FILTERS = ("who", "verb", "subject")


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""

    async def page(request: Request) -> Response:
        wanted = {name: _text(request, name) for name in FILTERS}
        before = number(request, "before")
        found = await frame.reader.read(
            partial(
                audit.page, who=wanted["who"], verb=wanted["verb"], subject=wanted["subject"], before=before, limit=ROWS
            )
        )
        given = {name: value for name, value in wanted.items() if value}
        older = f"?{urlencode({**given, 'before': found.before})}" if found.before else ""
        return frame.page(
            request, "audit.html", "audit", found=found, wanted=wanted, older=older,
            newest=f"/audit?{urlencode(given)}".rstrip("?") if before else "",
        )  # fmt: skip

    return [Page("/audit", page, needs=Permission.ADMINISTER)]


def _text(request: Request, name: str) -> str:
    return request.query_params.get(name, "").strip().replace("\0", "")[:MAX_SUBJECT]
