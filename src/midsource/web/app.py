"""The web process of an instance: guard, link API of a mid, health, metrics, and whatever pages are handed in.

Order of events: ``create_app`` composes; while the app lives (its lifespan), a heartbeat row says so every 5 s, a mid
sweeps its open deliveries every 5 s, and one task wakes those who wait on feeds. Each of these fails alone: an error is
logged and the next turn comes.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import structlog
from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute

from midsource.config import Config, InstanceConfig
from midsource.mid import orders
from midsource.model.clock import Clock
from midsource.model.errors import MidsourceError
from midsource.security.access import ConsoleAccess
from midsource.store import processes
from midsource.store.database import Database
from midsource.web import problems
from midsource.web.door import Door
from midsource.web.guard import Guard
from midsource.web.health import health_routes
from midsource.web.link import Link
from midsource.web.metrics import Counting, Metrics, Requests
from midsource.web.routing import Open, refuse_open_routes
from midsource.web.waiting import FeedWaiters

THREADS = 8
"""Requests that work in the database at once; the pool must have as many connections, and two for the tasks."""
SWEEP_SECONDS = 5.0
"""What an mta process left behind when it died is seen after this."""

_HANDLERS = {
    MidsourceError: problems.on_expected,
    HTTPException: problems.on_http,
    ClientDisconnect: problems.on_disconnect,
    Exception: problems.on_bug,
}

log = structlog.get_logger()


def create_app(
    config: Config,
    instance: InstanceConfig,
    database: Database,
    clock: Clock,
    *,
    pages: Sequence[BaseRoute] = (),
    outer: Sequence[Middleware] = (),
    process: str = "",
) -> Starlette:
    """Compose the web app of ``instance``.

    ``pages`` are further routes (the console), each with the permission it needs (web/routing.py). They find ``config``,
    ``instance``, ``database``, ``clock`` and ``door`` in ``request.app.state``. ``outer`` stands before the guard and sees every
    request and answer; it must not let anybody in. ``process`` names the heartbeat row; none without.
    Raises Unhealthy where the keys of the home folder cannot be read, Bug for a route without a permission.
    """
    refuse_open_routes(pages)
    threads = CapacityLimiter(THREADS)
    waiters = FeedWaiters(database, threads)
    requests = Requests()
    door = Door(ConsoleAccess.load(config.home, instance.name), database, clock, instance.public_url)
    executor = uuid.uuid4().hex
    turns = [partial(_beat, database, process, executor)] if process else []
    routes: list[BaseRoute] = [
        *health_routes(instance, database, clock, threads),
        Metrics(config, instance, database, clock, requests, waiters).route(),
    ]
    if instance.role == "mid":
        routes += Link(instance, database, clock, waiters, threads).routes()
        turns.append(partial(_sweep, database, clock))
    app = Starlette(
        routes=[*routes, *pages],
        middleware=[
            Middleware(Counting, requests=requests),
            *outer,
            Middleware(
                Guard,
                role=instance.role,
                database=database,
                clock=clock,
                door=door,
                open_paths=frozenset(route.path for route in pages if isinstance(route, Open)),
                threads=threads,
            ),
        ],
        exception_handlers=_HANDLERS,
        lifespan=_lifespan(waiters, turns, partial(_leave, door, database, process, executor)),
    )
    app.state.config, app.state.instance, app.state.database, app.state.clock = config, instance, database, clock
    app.state.waiters, app.state.door = waiters, door
    return app


def _lifespan(
    waiters: FeedWaiters, turns: Sequence[Callable[[], None]], leave: Callable[[], None]
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(waiters.run()), *(group.create_task(_repeat(turn)) for turn in turns)]
            yield
            for task in tasks:
                task.cancel()
        await to_thread.run_sync(leave)

    return lifespan


async def _repeat(turn: Callable[[], None]) -> None:
    """Take a turn now and every few seconds, until cancelled; a turn that fails is logged and the next one comes."""
    limiter = CapacityLimiter(1)
    while True:
        try:
            await to_thread.run_sync(turn, limiter=limiter)
        except MidsourceError as exc:
            log.warning("turn_failed", action="turn_failed", cause=str(exc))
        except Exception:  # a fault of ours in one turn must not end the web process
            log.exception("bug", action="bug")
        await asyncio.sleep(SWEEP_SECONDS)


def _beat(database: Database, process: str, executor: str) -> None:
    with database.connection() as conn:
        processes.beat(conn, process, "web", executor)


def _leave(door: Door, database: Database, process: str, executor: str) -> None:
    door.close()
    if not process:
        return
    try:
        with database.connection() as conn:
            processes.leave(conn, process, executor)
    except MidsourceError as exc:
        log.warning("goodbye_unsaid", action="goodbye_unsaid", cause=str(exc))


def _sweep(database: Database, clock: Clock) -> None:
    for sentence in orders.sweep(database, clock.now()):
        log.warning("delivery_not_advanced", action="delivery_not_advanced", cause=sentence)
