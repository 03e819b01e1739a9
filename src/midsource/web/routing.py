"""Routes that say what they need: the guard finds out who asks, a route decides whether that visitor may.

``Page`` answers GET, ``Action`` answers POST with the fields of a form, ``Upload`` with those and a file. All take the permission
they need; a route that names none cannot be made, and ``refuse_open_routes`` keeps any other kind out of the app: default deny. ``OpenPage`` and
``OpenAction`` say themselves that they are for everybody: logging in.

An action reads at most MAX_FORM_BYTES, and nothing is done before the form's ``csrf`` (or the header
``x-csrf``) is the visitor's: the origin was checked by the guard already, this is the second lock. It answers with
a redirect (303), so that a reload never repeats it.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterable, Mapping
from urllib.parse import parse_qsl

from anyio import CapacityLimiter
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from midsource.model.errors import Bug
from midsource.security.roles import Permission, Visitor
from midsource.web import bodies, problems, uploads

MAX_FORM_BYTES = 2_000_000
"""The largest form holds a template: 1 MB of HTML is more than any provider shows."""
MAX_OPEN_FORM_BYTES = 16_000
"""Anybody may send it: a name and a password."""
MAX_FIELDS = 200
UPLOADS_AT_ONCE = 2
"""Forms with a file that are received and worked on at the same time."""
CSRF_FIELD = "csrf"
CSRF_HEADER = "x-csrf"

Form = Mapping[str, str]
"""The fields of a form by name; of a name that comes more than once, the last."""


class Permitted(Route):
    """A route that only visitors with ``needs`` reach."""

    def __init__(
        self,
        path: str,
        endpoint: Callable[[Request], Awaitable[Response]],
        *,
        needs: Permission,
        methods: list[str],
    ) -> None:
        super().__init__(path, endpoint, methods=methods)
        self.needs = needs

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or raise Forbidden."""
        require(visitor_of(scope), self.needs)
        await super().handle(scope, receive, send)


class Page(Permitted):
    """A page: GET."""

    def __init__(
        self,
        path: str,
        endpoint: Callable[[Request], Awaitable[Response]],
        *,
        needs: Permission = Permission.SEE,
    ) -> None:
        super().__init__(path, endpoint, needs=needs, methods=["GET"])


class Action(Permitted):
    """Something that a form asks for: POST."""

    def __init__(
        self, path: str, endpoint: Callable[[Request, Form], Awaitable[Response]], *, needs: Permission
    ) -> None:
        async def with_form(request: Request) -> Response:
            return await endpoint(request, await _form(request))

        super().__init__(path, with_form, needs=needs, methods=["POST"])


class Upload(Permitted):
    """Something that a form with a file asks for: POST. The file, None where none was chosen, is closed afterwards.

    The form's csrf is looked at when all has arrived, and before anything is done with it. UPLOADS_AT_ONCE are received at the
    same time; others wait, and bring nothing meanwhile.
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[[Request, Form, UploadFile | None], Awaitable[Response]],
        *,
        needs: Permission,
        limit_bytes: int,
    ) -> None:
        receiving = CapacityLimiter(UPLOADS_AT_ONCE)

        async def with_file(request: Request) -> Response:
            if _kind(request) != uploads.MULTIPART:
                return await endpoint(request, await _form(request), None)
            async with receiving:
                form, file = await uploads.receive(request, limit_bytes)
                try:
                    csrf = form.pop(CSRF_FIELD, "") or request.headers.get(CSRF_HEADER, "")
                    require_csrf(visitor_of(request.scope), csrf)
                    return await endpoint(request, form, file)
                finally:
                    if file is not None:
                        await file.close()

        super().__init__(path, with_file, needs=needs, methods=["POST"])


class Open(Route):
    """A route that everybody reaches; its path has no parameters, because the guard goes by it."""

    def __init__(self, path: str, endpoint: Callable[[Request], Awaitable[Response]], *, methods: list[str]) -> None:
        assert "{" not in path
        super().__init__(path, endpoint, methods=methods)


class OpenPage(Open):
    """A page for everybody: GET."""

    def __init__(self, path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> None:
        super().__init__(path, endpoint, methods=["GET"])


class OpenAction(Open):
    """A form for everybody: POST, from our own page. There is no session yet that its csrf could be of."""

    def __init__(self, path: str, endpoint: Callable[[Request, Form], Awaitable[Response]]) -> None:
        async def with_form(request: Request) -> Response:
            return await endpoint(request, (await _fields(request, MAX_OPEN_FORM_BYTES))[0])

        super().__init__(path, with_form, methods=["POST"])


def visitor_of(scope: Scope) -> Visitor:
    """Return who makes the request; the guard has put it there."""
    found = scope.get("state", {}).get("visitor")
    if not isinstance(found, Visitor):
        raise Bug("a request reached a page without a visitor", "report it with the log of the web process")
    return found


def require(visitor: Visitor, needs: Permission) -> None:
    """Raise Forbidden unless ``visitor`` may."""
    if not visitor.may(needs):
        raise problems.Forbidden(
            f"{visitor.name} lacks the permission to {needs.value}", "ask an administrator for a role that has it"
        )


def refuse_open_routes(routes: Iterable[BaseRoute]) -> None:
    """Raise Bug for a route that would let everybody in without saying so."""
    for route in routes:
        if not isinstance(route, Open) and not isinstance(getattr(route, "needs", None), Permission):
            raise Bug(f"the route {getattr(route, 'path', route)!r} names no permission", "make it a Page or an Action")


def require_csrf(visitor: Visitor, given: str) -> None:
    """Raise Forbidden unless ``given`` is what forms of this visitor's session carry."""
    if visitor.csrf and not hmac.compare_digest(given.encode("utf-8", "replace"), visitor.csrf.encode()):
        raise problems.Forbidden("the form is not of this session", "load the page again and repeat")


async def _form(request: Request) -> Form:
    form, csrf = await _fields(request, MAX_FORM_BYTES)
    require_csrf(visitor_of(request.scope), csrf or request.headers.get(CSRF_HEADER, ""))
    return form


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _fields(request: Request, limit_bytes: int) -> tuple[Form, str]:
    """Return the fields of the form in the body, and apart from them its csrf."""
    kind = _kind(request)
    if kind != "application/x-www-form-urlencoded":
        raise problems.UnknownEncoding(f"a form of type {kind[:60]!r} cannot be read", "send it from the page itself")
    body = await bodies.read(request, limit_bytes)
    try:
        pairs = parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=MAX_FIELDS
        )
    except ValueError as exc:
        raise problems.UnknownEncoding("the form cannot be read", "send it from the page itself") from exc
    form = {name: value.replace("\0", "") for name, value in pairs}
    return form, form.pop(CSRF_FIELD, "")
