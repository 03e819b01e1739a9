"""Default deny: the one place that lets a request through to any route, present or future.

    /healthz, /readyz, /r/test     everybody
    /mid/…                         the key of an account (on a mid): ``Authorization: Bearer <key id>.<secret>``
    anything else                  the console's token, or the cookie that was given for it

It stands before the router, so a route that somebody adds is closed until it is named here.
"""

from __future__ import annotations

from functools import partial
from urllib.parse import parse_qs, urlencode

from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from midsource.config import Role
from midsource.mid import accounts
from midsource.model.errors import MidsourceError, NotFound
from midsource.security.access import PARAMETER, ConsoleAccess, same_origin
from midsource.security.roles import Permission, Visitor
from midsource.store.database import Database
from midsource.web import problems
from midsource.wire.schema import PROTOCOL

PUBLIC = frozenset({"/healthz", "/readyz", "/r/test"})
LINK = "/mid/"
PROTOCOL_HEADER = "x-midsource-protocol"
SESSION_SECONDS = 12 * 3600
"""A working day."""


class Guard:
    """ASGI middleware; see the module. ``scope["state"]`` holds the ``account`` of a link request, the ``visitor`` of any other."""

    def __init__(
        self, app: ASGIApp, *, role: Role, database: Database, access: ConsoleAccess, threads: CapacityLimiter
    ) -> None:
        self._app = app
        self._role = role
        self._database = database
        self._access = access
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
        return self._admit_operator(scope, headers)

    async def _admit_account(self, scope: Scope, headers: Headers) -> None:
        key = _bearer(headers)
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

    def _admit_operator(self, scope: Scope, headers: Headers) -> Response | None:
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = query.pop(PARAMETER, [""])[0]
        if given and scope["method"] == "GET" and self._access.admits_token(given):
            return self._with_session(scope["path"] + (f"?{urlencode(query, doseq=True)}" if query else ""))
        cookie = cookie_parser(headers.get("cookie", "")).get(self._access.cookie, "")
        if self._access.admits_session(cookie):
            if same_origin(scope["method"], headers):
                self._note(scope, Visitor("home", frozenset(Permission), "console", self._access.csrf))
                return None
            raise problems.Forbidden("the request came from another site", "use the page of the console itself")
        if self._access.admits_token(_bearer(headers)):
            self._note(scope, Visitor("home", frozenset(Permission), "api"))
            return None
        raise problems.Unauthorised(
            "this page is for the operator of midsource",
            "open the address that `midsource up` and `midsource demo` print",
        )

    @staticmethod
    def _note(scope: Scope, visitor: Visitor) -> None:
        scope.setdefault("state", {})["visitor"] = visitor

    def _with_session(self, target: str) -> Response:
        """Trade the token in the address for a cookie, and leave no token in history and logs of proxies."""
        response = RedirectResponse("/" + target.lstrip("/\\"), status_code=303)
        response.set_cookie(
            self._access.cookie, self._access.session, max_age=SESSION_SECONDS, httponly=True, samesite="strict"
        )
        return response


def _bearer(headers: Headers) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""
