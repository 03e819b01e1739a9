"""What the console shows the world: which names it answers to, its headers, its assets, and refusals as pages.

ASGI middleware, outside of the guard, for everything but the link API and health:

1. a ``Host`` that is neither an address in numbers nor a name of this instance is refused (421): a foreign name that
   points here (DNS rebinding) gets nothing;
2. assets are served; they hold nothing of anybody's, and the page that refuses needs them too;
3. security headers are added to every answer;
4. a refusal that left the guard or a page as JSON is shown to browsers (``Accept: text/html``) as a page in their
   language, with the same status; where nobody is signed in that page is the log-in. Other clients get the JSON.
"""

from __future__ import annotations

import ipaddress
from http.cookies import CookieError
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import Request, cookie_parser
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from midsource.config import InstanceConfig
from midsource.security.access import own_path
from midsource.web import problems
from midsource.web.console.catalogue import LANGUAGES, choose
from midsource.web.console.language import Words
from midsource.web.console.render import ASSET_AT, Asset, render
from midsource.wire.schema import Problem

LANGUAGE_COOKIE = "midsource_language"
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
NOT_OURS = ("/mid/", "/healthz", "/readyz", "/r/test")
"""Paths that belong to machines."""
MAX_PROBLEM_BYTES = 64_000
"""A Problem is some sentences; a longer body is none and passes unread."""


class Face:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp, *, instance: InstanceConfig) -> None:
        self._app = app
        names = {instance.host, "localhost", urlsplit(instance.public_url).hostname or "localhost"}
        self._names = frozenset(name.lower() for name in names)
        self._instance = instance

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on and dress the answer."""
        if scope["type"] != "http" or scope["path"].startswith(NOT_OURS):
            await self._app(scope, receive, send)
            return
        dressed = _Dress(scope, send, self._instance)
        if not self._goes_by(Headers(scope=scope).get("host", "")):
            refusal = problems.problem(421, Problem(code="MS-432", cause="this instance does not go by that name"))
            await refusal(scope, receive, dressed)
        elif asset := ASSET_AT.get(scope["path"]):
            await _asset(asset)(scope, receive, dressed)
        else:
            await self._passed_on(scope, receive, dressed)

    async def _passed_on(self, scope: Scope, receive: Receive, dressed: _Dress) -> None:
        try:
            await self._app(scope, receive, dressed)
        except Exception as exc:  # the framework answers bugs outside of every middleware, where no page can be made
            if dressed.has_started:
                raise
            await problems.on_bug(Request(scope), exc)(scope, receive, dressed)

    def _goes_by(self, host: str) -> bool:
        """Tell whether ``host`` may mean us. A number cannot be made to point elsewhere, as a name can."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def language_of(scope: Scope) -> str:
    """Return the language of a request: ``?lang=``, cookie, Accept-Language."""
    headers = Headers(scope=scope)
    asked = QueryParams(scope["query_string"]).get("lang", "")
    try:
        kept = cookie_parser(headers.get("cookie", "")).get(LANGUAGE_COOKIE, "")
    except CookieError:
        kept = ""
    return choose(asked, kept, headers.get("accept-language", ""))


class _Dress:
    """``send`` that adds headers and turns a JSON refusal into a page."""

    def __init__(self, scope: Scope, send: Send, instance: InstanceConfig) -> None:
        self._scope = scope
        self._send = send
        self._instance = instance
        self._start: Message | None = None
        self._body = bytearray()
        self.has_started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_started = True
            if self._is_refusal(message):
                self._start = message
                return
            await self._dressed(message)
        elif self._start is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if len(self._body) > MAX_PROBLEM_BYTES or not message.get("more_body", False):
                start, self._start = self._start, None
                await self._shown(start, message.get("more_body", False))

    def _is_refusal(self, start: Message) -> bool:
        headers = Headers(raw=start["headers"])
        wants_page = "text/html" in Headers(scope=self._scope).get("accept", "")
        is_json = headers.get("content-type", "").startswith("application/json")
        return start["status"] >= 400 and wants_page and is_json and self._scope["method"] != "HEAD"

    async def _shown(self, start: Message, more: bool) -> None:  # noqa: FBT001 - the message's own flag
        try:
            refused = msgspec.json.decode(bytes(self._body), type=Problem)
        except msgspec.MsgspecError:
            await self._dressed(start)
            await self._send({"type": "http.response.body", "body": bytes(self._body), "more_body": more})
            return
        page = self._log_in() if start["status"] == 401 else self._page(start["status"], refused)
        for name in ("retry-after", "www-authenticate"):
            if value := Headers(raw=start["headers"]).get(name):
                page.headers[name] = value
        await self._dressed({"type": "http.response.start", "status": start["status"], "headers": page.raw_headers})
        await self._send({"type": "http.response.body", "body": page.body})

    def _page(self, status: int, refused: Problem) -> Response:
        words = Words(language_of(self._scope))
        shown = status if words.has(f"problem.{status}") else (500 if status >= 500 else 422)
        cause, remedy = (f"{text}." if text else "" for text in (refused.cause, refused.remedy))
        return HTMLResponse(
            render(
                "problem.html", words, status=shown, cause=cause, remedy=remedy, code=refused.code,
                instance=self._instance.name, role=self._instance.role, path=self._scope["path"], here="",
            ),
            status,
        )  # fmt: skip

    def _log_in(self) -> Response:
        """Ask who it is, in the place of the page that was asked for; after that the reader is led there."""
        words, query = Words(language_of(self._scope)), self._scope["query_string"].decode("latin-1")
        asked = self._scope["path"] + (f"?{query}" if query else "")
        target = own_path(asked if self._scope["method"] == "GET" else "/")
        rendered = render(
            "login.html", words, next=target, problem="", instance=self._instance.name, role=self._instance.role, here="",
            in_language={code: f"?{urlencode({**dict(parse_qsl(query)), 'lang': code})}" for code in LANGUAGES},
        )  # fmt: skip
        return HTMLResponse(rendered, 401, headers={"content-language": words.language})

    async def _dressed(self, start: Message) -> None:
        headers = MutableHeaders(raw=start.setdefault("headers", []))
        headers.setdefault("content-security-policy", POLICY)
        headers.setdefault("cache-control", "no-store")
        headers["x-content-type-options"] = "nosniff"
        headers["referrer-policy"] = "no-referrer"
        headers["cross-origin-opener-policy"] = "same-origin"
        headers["cross-origin-resource-policy"] = "same-origin"
        await self._send(start)


def _asset(asset: Asset) -> Response:
    return Response(
        asset.content, media_type=asset.media_type, headers={"cache-control": "public, max-age=31536000, immutable"}
    )
