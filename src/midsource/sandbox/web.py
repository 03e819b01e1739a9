"""The sink's pages and JSON, on the loopback interface: what arrived, and how it compares.

    GET  /                    inbox page: newest first, search, one page of ``PAGE`` after another
    GET  /inbox/{n}           one message: headers, text, HTML in a frame without any right
    GET  /inbox/{n}/html      that frame's content, under a policy of its own that forbids scripts and remote loading
    GET  /inbox/{n}/raw       exactly what arrived
    GET  /inbox.json          ``delivery, domain, q, after, limit`` (at most 500): ``{"messages", "after"}``
    GET  /inbox/{n}.json      the index line, headers, text, HTML
    GET  /summary.json        received, distinct, unanswered, duplicates; by domain, delivery, personality; refused
    GET  /truth.ndjson        one line per message and recipient, oldest first; ``delivery``
    POST /clear               forget everything

Security: only ``Host: 127.0.0.1`` or ``localhost`` is answered (DNS rebinding); a POST that a browser sends from another
site is refused; no script anywhere; mail is shown in a sandboxed frame. Links are relative, so that the console may serve
these pages below a prefix. Files are read in threads: the event loop belongs to the mail.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from importlib.resources import files
from urllib.parse import urlencode

import jinja2
import msgspec
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from midsource.sandbox.inbox import MAX_PAGE, Inbox, Line, Query
from midsource.sandbox.judge import Judge
from midsource.sandbox.message import Readable, read_message

PAGE = 50
"""Messages on one HTML page: fits a phone's patience."""
MAX_NUMBER = 2**53
"""Above it JSON readers lose digits; no sink gets there."""

_PAGE_POLICY = "default-src 'none'; style-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
_MAIL_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "frame-ancestors 'self'"
)


def make_app(inbox: Inbox, judge: Judge) -> Starlette:
    """Return the pages of this inbox."""
    pages = _Pages(inbox, judge)
    return Starlette(
        routes=[
            Route("/", pages.inbox_page),
            Route("/sandbox.css", pages.style),
            Route("/inbox.json", pages.inbox_json),
            Route("/inbox/{n:int}.json", pages.message_json),
            Route("/inbox/{n:int}/raw", pages.message_raw),
            Route("/inbox/{n:int}/html", pages.message_html),
            Route("/inbox/{n:int}", pages.message_page),
            Route("/summary.json", pages.summary),
            Route("/truth.ndjson", pages.truth),
            Route("/clear", pages.clear, methods=["POST"]),
        ],
        middleware=[
            Middleware(_Shield),
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"], www_redirect=False),
        ],
    )


class _Shield:
    """Adds the security headers to every response; a response's own policy wins."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def shielded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("content-security-policy", _PAGE_POLICY)
                headers["x-content-type-options"] = "nosniff"
                headers["referrer-policy"] = "no-referrer"
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await self._app(scope, receive, shielded)


class _Pages:
    """The handlers: parse, ask the inbox, render."""

    def __init__(self, inbox: Inbox, judge: Judge) -> None:
        self._inbox = inbox
        self._judge = judge
        package = files("midsource.sandbox")
        self._style = (package / "static" / "sandbox.css").read_bytes()
        self._templates = jinja2.Environment(
            loader=jinja2.FunctionLoader(lambda name: (package / "templates" / name).read_text("utf-8")),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
        )
        self._readers = asyncio.Semaphore(2)  # searches at a time: each holds a thread and a share of the interpreter

    async def inbox_page(self, request: Request) -> Response:
        query = _query(request, PAGE)
        if query is None:
            return self._problem(request, 422, "after and limit are whole numbers")
        async with self._readers:
            page = await asyncio.to_thread(self._inbox.page, query)
        kept = {"q": query.text, "delivery": query.delivery, "domain": query.domain}
        fields = {name: value for name, value in kept.items() if value}
        return self._html(
            "inbox.html",
            lines=page.lines,
            total=self._inbox.tally.total,
            query=query,
            refused=self._judge.refused.total(),
            newest=urlencode(fields),
            older=urlencode(fields | {"after": page.after}) if page.after else "",
        )

    async def inbox_json(self, request: Request) -> Response:
        query = _query(request, MAX_PAGE)
        if query is None:
            return _json({"error": "after and limit are whole numbers"}, 422)
        async with self._readers:
            page = await asyncio.to_thread(self._inbox.page, query)
        return _json({"messages": page.lines, "after": page.after})

    async def message_page(self, request: Request) -> Response:
        line, raw, readable = await self._read(request)
        if line is None:
            return self._problem(request, 404, "There is no message of that number: it was cleared, or never came.")
        return self._html("message.html", line=line, kept=raw is not None, message=readable)

    async def message_json(self, request: Request) -> Response:
        line, raw, readable = await self._read(request)
        if line is None:
            return _json({"error": "no message of that number"}, 404)
        shown = asdict(readable) if readable else dict.fromkeys(("headers", "text", "html", "attachments", "problems"))
        return _json(msgspec.to_builtins(line) | {"kept": raw is not None} | shown)

    async def message_raw(self, request: Request) -> Response:
        line, raw, _ = await self._read(request)
        if line is None or raw is None:
            return PlainTextResponse("Not kept any more.\n", 404)
        return Response(raw, headers={"content-type": "text/plain; charset=utf-8"})

    async def message_html(self, request: Request) -> Response:
        _, _, readable = await self._read(request)
        if readable is None or not readable.html:
            return PlainTextResponse("There is no HTML part.\n", 404)
        content = '<base target="_blank">' + readable.html
        return HTMLResponse(content, headers={"content-security-policy": _MAIL_POLICY})

    async def summary(self, _request: Request) -> Response:
        tally = self._inbox.tally
        return _json(
            {
                "received": tally.total.received,
                "distinct": tally.total.distinct,
                "duplicates": tally.total.received - tally.total.distinct,
                "unanswered": tally.total.unanswered,
                "by_domain": {name: asdict(count) for name, count in tally.by_domain.items()},
                "by_delivery": {name: asdict(count) for name, count in tally.by_delivery.items()},
                "by_personality": {name: asdict(count) for name, count in tally.by_personality.items()},
                "refused_since_start": dict(self._judge.refused),
            }
        )

    async def truth(self, request: Request) -> Response:
        pieces = self._inbox.truth(request.query_params.get("delivery", ""))

        async def stream() -> AsyncIterator[bytes]:
            while piece := await asyncio.to_thread(next, pieces, b""):
                yield piece

        return StreamingResponse(stream(), media_type="application/x-ndjson")

    async def clear(self, request: Request) -> Response:
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return self._problem(request, 403, "This order came from another site.")
        origin = request.headers.get("origin")
        if origin is not None and origin != f"{request.url.scheme}://{request.headers.get('host')}":
            return self._problem(request, 403, "This order came from another site.")
        self._inbox.clear()
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("./", 303)
        return _json({"cleared": True})

    async def style(self, _request: Request) -> Response:
        return Response(self._style, media_type="text/css", headers={"cache-control": "max-age=300"})

    async def _read(self, request: Request) -> tuple[Line | None, bytes | None, Readable | None]:
        number = request.path_params["n"]

        def read() -> tuple[Line | None, bytes | None, Readable | None]:
            line = self._inbox.line(number) if number <= MAX_NUMBER else None
            raw = self._inbox.raw(line) if line else None
            return line, raw, read_message(raw) if raw is not None else None

        async with self._readers:
            return await asyncio.to_thread(read)

    def _html(self, template: str, status: int = 200, **values: object) -> Response:
        return HTMLResponse(self._templates.get_template(template).render(values), status)

    def _problem(self, request: Request, status: int, sentence: str) -> Response:
        root = "../" * (
            request.url.path.count("/") - 1
        )  # relative, as everywhere: a proxy may have put a prefix before
        return self._html("problem.html", status, sentence=sentence, root=root)


def _query(request: Request, default_limit: int) -> Query | None:
    """Return what is asked for, or None where a number is not one."""
    given = request.query_params
    try:
        after = int(given["after"]) if given.get("after") else None
        limit = int(given.get("limit") or default_limit)
    except ValueError:
        return None
    text, delivery, domain = (given.get(name, "").strip()[:250] for name in ("q", "delivery", "domain"))
    return Query(delivery=delivery, domain=domain, text=text, after=after, limit=limit)


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
