"""The sandbox's inbox: what arrived, found again, and one message as its reader would see it.

GET /sandbox             newest first; ``q``, ``domain``, ``delivery``, ``after=N``
GET /sandbox/{n}         one message: HTML in a frame without any right, text, headers
GET /sandbox/{n}/html    that frame's content, under a policy of its own that forbids scripts and remote loading
GET /sandbox/{n}/raw     exactly what arrived

Everything comes from the sandbox's own JSON (pages/inbox.py); what it holds was sent to nobody.
"""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute

from midsource.model.errors import NotFound, Unhealthy
from midsource.web.console.face import POLICY
from midsource.web.console.frame import Frame, number, whole
from midsource.web.console.pages.inbox import Inbox, Mail, Query, Unreachable
from midsource.web.routing import Page

MAX_TEXT = 250
"""Characters of a search; the sandbox takes no more."""
WITH_FRAME = f"{POLICY}; frame-src 'self'"
MAIL_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)
"""What a mail may: be looked at, and open its links in a page of their own."""


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""
    inbox = Inbox(frame.config)

    async def listing(request: Request) -> Response:
        query = _query(request)
        held = await inbox.look(query)
        older = _older(query, held.after) if not isinstance(held, Unreachable) and held.after else ""
        return frame.page(request, "sandbox.html", "sandbox", held=held, query=query, older=older, live=query.is_newest)

    async def message(request: Request) -> Response:
        found = await inbox.mail(_number(request))
        if isinstance(found, Unreachable):
            return frame.page(request, "sandbox.html", "sandbox", held=found, query=Query(), older="", live=False)
        response = frame.page(request, "sandbox_message.html", "sandbox", mail=found)
        response.headers["content-security-policy"] = WITH_FRAME
        return response

    async def html(request: Request) -> Response:
        found = _there(await inbox.mail(_number(request)))
        assert isinstance(found, Mail)
        if not found.html:
            raise NotFound("the message has no HTML part", "look at its text")
        content = f'<base target="_blank">{found.html}'
        return HTMLResponse(content, headers={"content-security-policy": MAIL_POLICY})

    async def raw(request: Request) -> Response:
        found = _there(await inbox.raw(_number(request)))
        assert isinstance(found, bytes)
        return PlainTextResponse(found, headers={"content-security-policy": "default-src 'none'; sandbox"})

    return [
        Page("/sandbox", listing),
        Page("/sandbox/{number}", message),
        Page("/sandbox/{number}/html", html),
        Page("/sandbox/{number}/raw", raw),
    ]


def _number(request: Request) -> int:
    return whole(request.path_params["number"], "a message's number")


def _there(found: Mail | bytes | Unreachable) -> Mail | bytes:
    if isinstance(found, Unreachable):
        raise Unhealthy("the sandbox does not answer", "see `midsource status`; `midsource up` starts it")
    return found


def _query(request: Request) -> Query:
    given = request.query_params
    text, domain, delivery = (
        given.get(name, "").replace("\0", "").strip()[:MAX_TEXT] for name in ("q", "domain", "delivery")
    )
    return Query(text, domain, delivery, number(request, "after"))


def _older(query: Query, after: int) -> str:
    return f"/sandbox?{urlencode({**query.fields, 'after': after})}"
