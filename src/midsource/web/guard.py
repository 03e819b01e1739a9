"""Default deny: the one place that lets a request through to any route, present or future.

    /healthz, /readyz, /r/test     everybody
    /mid/…                         the key of an account (on a mid): ``Authorization: Bearer <key id>.<secret>``
    a route that says it is open   everybody, as a stranger without a permission unless they are signed in (log-in)
    anything else                  whom the door knows: a session, an API key, the home's token (web/door.py)

It stands before the router, so a route that somebody adds is closed until it is named here or says itself that it is open
(web/routing.py). A session may change something only from our own pages, and under ``/api/`` only with the session's csrf in a
header; forms carry it in a field. What a known visitor may do, each route decides.
"""

from __future__ import annotations

from collections.abc import Container
from functools import partial
from urllib.parse import parse_qs, urlencode

from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from midsource.config import Role
from midsource.mid import accounts
from midsource.model.clock import Clock
from midsource.model.errors import MidsourceError, NotFound
from midsource.security.access import PARAMETER, same_origin
from midsource.security.roles import STRANGER, Visitor
from midsource.store.database import Database
from midsource.web import problems
from midsource.web.door import Door, bearer
from midsource.web.routing import CSRF_HEADER, require_csrf
from midsource.wire.schema import PROTOCOL

PUBLIC = frozenset({"/healthz", "/readyz", "/r/test"})
LINK = "/mid/"
API = "/api/"
PROTOCOL_HEADER = "x-midsource-protocol"


class Guard:
    """ASGI middleware; see the module. ``scope["state"]`` holds the ``account`` of a link request, the ``visitor`` of any other."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        role: Role,
        database: Database,
        clock: Clock,
        door: Door,
        open_paths: Container[str],
        threads: CapacityLimiter,
    ) -> None:
        self._app = app
        self._role = role
        self._database = database
        self._clock = clock
        self._door = door
        self._open = open_paths
        self._threads = threads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no route of ours is anything else; an unanswered handshake is closed by the server
        try:
            response = await self._refusal(scope)
        except MidsourceError as exc:
            response = problems.answer(exc)
        await (self._app if response is None else response)(scope, receive, send)

    async def _refusal(self, scope: Scope) -> Response | None:
        path: str = scope["path"]
        headers = Headers(scope=scope)
        if path in PUBLIC:
            return None
        if path.startswith(LINK):
            if self._role != "mid":
                raise NotFound("this is a marketing instance, not a mid", "give the external account the URL of a mid")
            await self._admit_account(scope, headers)
            return None
        return await self._admit_visitor(scope, headers)

    async def _admit_account(self, scope: Scope, headers: Headers) -> None:
        key = bearer(headers)
        account = await to_thread.run_sync(partial(self._account, key), limiter=self._threads) if key else None
        if account is None:
            raise problems.Unauthorised(
                "the key is not one of this mid's" if key else "the request carries no key",
                "store the key that `midsource account add` printed on the mid",
            )
        spoken = headers.get(PROTOCOL_HEADER, str(PROTOCOL))
        if spoken != str(PROTOCOL):
            newer = spoken.isdecimal() and int(spoken[:9]) > PROTOCOL
            raise problems.OtherProtocol(
                f"this mid speaks protocol {PROTOCOL}, the marketing instance {spoken[:20]!r}",
                f"upgrade the {'mid' if newer else 'marketing instance'}",
            )
        scope.setdefault("state", {})["account"] = account

    def _account(self, key: str) -> accounts.Account | None:
        with self._database.connection() as conn:
            return accounts.authenticate(conn, key)

    async def _admit_visitor(self, scope: Scope, headers: Headers) -> Response | None:
        method, path = scope["method"], scope["path"]
        if method == "GET" and (answer := self._traded(scope)):
            return answer
        visitor = await self._visitor(scope)
        if visitor is None:
            raise problems.Unauthorised(
                "nobody is signed in here",
                "log in, send an API key, or open the address that `midsource up` and `midsource demo` print",
            )
        if visitor.via == "console":
            if not same_origin(method, headers):
                raise problems.Forbidden("the request came from another site", "use the page of the console itself")
            if path.startswith(API) and method not in ("GET", "HEAD"):
                require_csrf(visitor, headers.get(CSRF_HEADER, ""))
        scope.setdefault("state", {})["visitor"] = visitor
        return None

    async def _visitor(self, scope: Scope) -> Visitor | None:
        """Return who asks; on a route that is open to all, nobody is a stranger, also while the database is away."""
        path = scope["path"]
        try:
            found = await self._door.visitor(scope)
        except MidsourceError:
            if path not in self._open:
                raise
            found = None
        return STRANGER if found is None and path in self._open else found

    def _traded(self, scope: Scope) -> Response | None:
        """Trade the token in the address for a cookie, and leave no token in history and logs of proxies."""
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = query.pop(PARAMETER, [""])[0]
        if not given or not self._door.access.admits_token(given):
            return None
        target = scope["path"] + (f"?{urlencode(query, doseq=True)}" if query else "")
        response = RedirectResponse("/" + target.lstrip("/\\"), status_code=303)
        self._door.give(scope, response, self._door.access.start(self._clock.now()))
        return response
