"""What machines ask without signing in: whether the process serves, whether it can work, whether a balancer may send people.

    /healthz   200 as long as the process serves; nothing else is asked
    /readyz    200 when everything the process needs is there, else 503; with ``Accept: application/json`` each by name
    /r/test    the field's test page for load balancers: 200 with ``<redir status='OK' …/>``, at any rate up to many a second

None of them says more than a stranger may know: no version, no addresses, no counts. The database is looked at once in
LATEST_LOOK_SECONDS at most, however many ask.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from xml.sax.saxutils import quoteattr

import msgspec
from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from midsource.config import InstanceConfig
from midsource.model.clock import Clock
from midsource.model.errors import MidsourceError
from midsource.store import migrate
from midsource.store.database import Database
from midsource.web import problems

LATEST_LOOK_SECONDS = 1.0
"""/readyz asks the database at most this often: it is open to everybody."""


def health_routes(
    instance: InstanceConfig, database: Database, clock: Clock, threads: CapacityLimiter
) -> list[BaseRoute]:
    """Return the routes; each must also be named as open in the guard."""
    return [
        Route("/healthz", _healthz),
        Route("/readyz", _Readiness(instance, database, clock, threads)),
        Route("/r/test", _Test(instance, clock)),
    ]


async def _healthz(_request: Request) -> Response:
    """Say that the process serves."""
    return PlainTextResponse("ok\n")


class _Test:
    """Endpoint: the page that load balancers of the field look for the word OK in."""

    def __init__(self, instance: InstanceConfig, clock: Clock) -> None:
        self._instance = instance
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        now = self._clock.now().strftime("%Y-%m-%d %H:%M:%SZ")
        host = quoteattr(Headers(scope=scope).get("host", "")[:255])
        text = f"<redir status='OK' date='{now}' host={host} localHost={quoteattr(self._instance.name)}/>\n"
        await Response(text, media_type="text/xml", headers={"Cache-Control": "no-store"})(scope, receive, send)


@dataclass(frozen=True, slots=True)
class _Look:
    """What was there at one look, by name; ``problem`` is the first that is not."""

    answers: dict[str, str]
    problem: MidsourceError | None = None


class _Readiness:
    """Endpoint: whether the process can work. An ASGI app, so that it keeps what it saw for a moment."""

    def __init__(self, instance: InstanceConfig, database: Database, clock: Clock, threads: CapacityLimiter) -> None:
        self._instance = instance
        self._database = database
        self._clock = clock
        self._threads = threads
        self._lock = asyncio.Lock()
        self._seen_at = float("-inf")
        self._last = _Look({})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer from the last look, or look again."""
        async with self._lock:
            if self._clock.boot_seconds() - self._seen_at >= LATEST_LOOK_SECONDS:
                self._last = await to_thread.run_sync(self._look, limiter=self._threads)
                self._seen_at = self._clock.boot_seconds()
        await self._answer(Headers(scope=scope))(scope, receive, send)

    def _answer(self, headers: Headers) -> Response:
        problem = self._last.problem
        if "application/json" not in headers.get("accept", ""):
            return PlainTextResponse("ready\n") if problem is None else problems.answer(problem)
        body = {"ready": problem is None, "needs": self._last.answers}
        response = Response(msgspec.json.encode(body), media_type="application/json")
        if problem is not None:
            response.status_code = 503
            response.headers["Retry-After"] = str(problems.RETRY_AFTER_SECONDS)
        return response

    def _look(self) -> _Look:
        """Look at what this process needs, in the order in which one needs the other."""
        found: dict[str, str] = {}
        try:
            with self._database.connection() as conn:
                conn.execute("select 1")
            found["database"] = "ok"
            migrate.check(self._database, self._instance.role, self._instance.name)
            found["schema"] = "ok"
        except MidsourceError as exc:
            missing = "schema" if "database" in found else "database"
            return _Look({**found, missing: exc.code}, exc)
        return _Look(found)
