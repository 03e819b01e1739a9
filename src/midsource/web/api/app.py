"""The API as one route of the web app: ``/api/v1`` with its operations, and ``/api/v1/openapi.json`` that describes them.

Order of events: the guard found out who asks (bearer key or session); ``Api`` reads the body, bounded in bytes and seconds,
before any of it is looked at; the router finds the operation; ``Needs`` admits the visitor; the operation runs in a thread
and answers. Every refusal is a Problem, those of the router and of validation as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.types import Message, Receive, Scope, Send

from midsource import __version__
from midsource.config import Config, InstanceConfig
from midsource.model.clock import Clock
from midsource.model.errors import Bug, MidsourceError
from midsource.security.roles import Permission
from midsource.store.database import Database
from midsource.web import bodies, problems
from midsource.web.api import accounts, cleanup, deliveries, doctor, maintenance, options, people, workflows
from midsource.web.api import instance as about
from midsource.web.api.operations import Api, Needs
from midsource.web.api.shapes import ProblemShape
from midsource.web.routing import require, visitor_of
from midsource.wire.schema import Problem

PATH = "/api/v1"
MAX_BODY_BYTES = 4_000_000
"""A delivery with a megabyte each of HTML and text, written in JSON."""
MAX_COMPLAINTS = 5
"""Faults of a request that are named at once."""
DESCRIPTION = """\
The verbs of the `midsource` command line, over HTTP.

Send an API key: `Authorization: Bearer <key>`. Each operation says which scope it needs. Work that takes longer than a
request is asked for (202) and carried out by a worker; `GET /jobs/{id}` tells how far it is. Lists are read in pages, by the
id that ended the page before. Every refusal is a `Problem` with a code that has a page in the documentation.
"""
REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": ProblemShape, "description": "No key, or not one of ours."},
    403: {"model": ProblemShape, "description": "The key lacks the scope."},
    422: {"model": ProblemShape, "description": "The request is not what this operation takes."},
    503: {"model": ProblemShape, "description": "The database or the workers are away; try again."},
}


class InvalidRequest(MidsourceError):
    """The request is not what the operation takes; nothing of it was done."""

    code = "MS-137"
    http_status = 422


class ApiMount(Mount):
    """Where the web app hands over to the API: visitors that may see, bodies that are bounded."""

    def __init__(self, app: FastAPI, operations: Sequence[APIRoute]) -> None:
        super().__init__(PATH, app=app)
        self.needs = Permission.SEE
        self.api = app
        self.operations = operations

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is admitted, its body read whole."""
        require(visitor_of(scope), self.needs)
        known = self._methods(scope["path"].removeprefix(scope.get("root_path", "")))
        if known and scope["method"] not in known:  # the router would name the methods of one operation only
            refused = HTTPException(405, headers={"Allow": ", ".join(known)})
            await problems.on_http(Request(scope), refused)(scope, receive, send)
            return
        if scope["method"] in ("GET", "HEAD"):
            await super().handle(scope, receive, send)
            return
        body = await bodies.read(Request(scope, receive), MAX_BODY_BYTES)
        if not _is_text(body):
            raise InvalidRequest("the body is not UTF-8", "send JSON as UTF-8")
        unread = [body]

        async def read() -> Message:
            return {"type": "http.request", "body": unread.pop(), "more_body": False} if unread else await receive()

        await super().handle(scope, read, send)

    def _methods(self, path: str) -> list[str]:
        """Return the methods that an address takes; none: there is no such address."""
        matching = [route for route in self.operations if route.path_regex.match(path)]
        return sorted(method for route in matching for method in route.methods or ())


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def api_routes(config: Config, instance: InstanceConfig, database: Database, clock: Clock) -> list[BaseRoute]:
    """Return the API of ``instance`` as one route. Raises Bug for an operation that names no permission."""
    api = Api(config, instance, database, clock)
    families = [
        about.router(api),
        workflows.router(api),
        cleanup.router(api),
        maintenance.router(api),
        doctor.router(api),
        options.router(api),
    ]
    if instance.role == "marketing":
        families += [deliveries.router(api), people.router(api), accounts.router(api)]
    app = FastAPI(
        title=f"midsource {instance.role} instance",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        responses=copy.deepcopy(REFUSALS),
        servers=[{"url": PATH}],
        root_path_in_servers=False,
    )
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    described: list[APIRoute] = []
    for family in families:
        described += [_described(route) for route in family.routes if isinstance(route, APIRoute)]
        app.include_router(family)
    app.openapi_schema = _document(app)
    return [ApiMount(app, described)]


def _on_invalid(_request: Request, exc: Exception) -> Response:
    """Answer a request that the operation's types refuse: where, and why, without repeating what was sent."""
    assert isinstance(exc, RequestValidationError)
    faults = [
        f"{'.'.join(str(step) for step in fault['loc'])}: {fault['msg']}" for fault in exc.errors()[:MAX_COMPLAINTS]
    ]
    return problems.problem(
        InvalidRequest.http_status,
        Problem(
            code=InvalidRequest.code, cause="; ".join(faults)[:2_000], remedy="see the description of the operation"
        ),
    )


_HANDLERS: Mapping[type[Exception], Callable[[Request, Exception], Response]] = {
    MidsourceError: problems.on_expected,
    RequestValidationError: _on_invalid,
    HTTPException: problems.on_http,
    Exception: problems.on_bug,
}


def operations(mount: ApiMount) -> list[tuple[APIRoute, Permission]]:
    """Return the operations of the API with what each needs."""
    return [(route, _permission(route)) for route in mount.operations]


def _permission(route: APIRoute) -> Permission:
    """Return what ``route`` needs. Raises Bug for one that says nothing."""
    admitted = [d.dependency.permission for d in route.dependencies if isinstance(d.dependency, Needs)]
    if len(admitted) != 1:
        raise Bug(f"the operation {route.path} names {len(admitted)} permissions", "give it one `needs`")
    return admitted[0]


def _described(route: APIRoute) -> APIRoute:
    route.operation_id = route.name
    route.description = f"{route.description}\n\nScope: `{_permission(route).value}`."
    return route


def _document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document: FastAPI's, with the key as its security and no validation shape of its own."""
    document = app.openapi()
    parts = document.setdefault("components", {})
    parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "An API key."}}
    document["security"] = [{"key": []}]
    for name in ("HTTPValidationError", "ValidationError"):
        parts.get("schemas", {}).pop(name, None)
    return document
