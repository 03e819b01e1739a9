"""Every refusal over HTTP as one JSON body (``wire.schema.Problem``) with the status of its error class.

What may pass by itself (database away, rows held by another writer, a statement that ran into its limit) is 503 with
Retry-After, so that the other side comes again instead of giving up; a conflict of content is 409.
"""

from __future__ import annotations

import msgspec
import psycopg
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from midsource.model.errors import Conflict, MidsourceError, Unhealthy, UserError
from midsource.store.database import StatementTimeout
from midsource.wire.schema import Problem

RETRY_AFTER_SECONDS = 2
"""What we ask for when the database is away or busy: about the time that the embedded server needs to come back."""

log = structlog.get_logger()


class TooSlow(UserError):
    """The body did not come in time; nothing of it was used."""

    code = "MS-132"
    http_status = 408


class UnknownEncoding(UserError):
    """The body is encoded in a way that we do not read."""

    code = "MS-133"
    http_status = 415


class TooManyPolls(MidsourceError):
    """The account waits on the feed in enough places already."""

    code = "MS-420"
    http_status = 429


class Unauthorised(MidsourceError):
    """No key, or not one of ours."""

    code = "MS-430"
    http_status = 401


class Forbidden(MidsourceError):
    """The caller is known, the request is not admitted."""

    code = "MS-431"
    http_status = 403


class OtherProtocol(MidsourceError):
    """The caller speaks a protocol that this version does not."""

    code = "MS-440"
    http_status = 426


def answer(error: MidsourceError) -> Response:
    """Return the answer for an expected failure."""
    status = error.http_status
    headers = {}
    if passes_by_itself(error):
        status = 503
    if status in (429, 503):
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="midsource"'
    if status == 426:
        headers["Upgrade"] = "midsource"
    return problem(status, Problem(code=error.code, cause=error.cause, remedy=error.remedy), headers)


def passes_by_itself(error: MidsourceError) -> bool:
    """Tell whether the same request may pass later: the cause lies in the database's moment, not in the request."""
    return isinstance(error, Unhealthy | StatementTimeout) or (
        isinstance(error, Conflict) and isinstance(error.__cause__, psycopg.OperationalError)
    )


def problem(status: int, body: Problem, headers: dict[str, str] | None = None) -> Response:
    """Return ``body`` as JSON."""
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


def on_expected(request: Request, exc: Exception) -> Response:
    """Answer a MidsourceError that left an endpoint."""
    assert isinstance(exc, MidsourceError)
    response = answer(exc)
    log.warning(
        "refused",
        action="refused",
        **about(request),
        status=response.status_code,
        cause=str(exc),
    )
    return response


def about(request: Request) -> dict[str, str]:
    """Return what a log line says of a request: its route and the numbers in its path, never the path itself, which may name a person."""
    numbers = {name: str(value) for name, value in request.path_params.items() if str(value).isdecimal()}
    return {"method": request.method, "route": route_of(request.scope), **numbers}


def route_of(scope: Scope) -> str:
    """Return the route that answered, as it was declared; "none" where there is none. Known when the answer has begun."""
    path = str(getattr(scope.get("route"), "path", "none"))
    mounted = str(scope.get("root_path", ""))
    return path if path == "none" or path.startswith(mounted) else mounted + path


def on_http(_request: Request, exc: Exception) -> Response:
    """Answer what the router refuses: no such path, no such method."""
    assert isinstance(exc, HTTPException)
    known = {
        404: ("MS-120", "there is nothing at this address"),
        405: ("MS-121", "this address does not take that method"),
    }
    code, cause = known.get(exc.status_code, ("MS-100", str(exc.detail)))
    return problem(exc.status_code, Problem(code=code, cause=cause), dict(exc.headers or {}))


def on_disconnect(_request: Request, _exc: Exception) -> Response:
    """Answer a caller who left in mid-body: nobody reads it, nothing was done."""
    return Response(status_code=400)


def on_bug(request: Request, exc: Exception) -> Response:
    """Answer an error of ours; the traceback goes to the log only."""
    log.error("bug", action="bug", **about(request), exc_info=exc)
    return problem(500, Problem(code="MS-900", cause="an error of midsource", remedy="see the log of the web process"))
