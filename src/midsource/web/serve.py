"""Run the web process of an instance until SIGTERM: one event loop, a bounded number of connections, no access log."""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from midsource.config import Config, InstanceConfig
from midsource.model.clock import Clock
from midsource.model.errors import Unhealthy
from midsource.net.clock import SystemClock
from midsource.store.database import Database
from midsource.web.app import THREADS, create_app
from midsource.web.console.face import Face
from midsource.web.console.routes import console_routes

MAX_CONNECTIONS = 256
"""Connections at once; the next one is answered 503. A marketing instance opens eight."""
KEEP_ALIVE_SECONDS = 65
"""Longer than the clients keep theirs (30 s), so that they never write into a connection that is being closed."""
STOP_SECONDS = 10
"""What is being answered when SIGTERM comes may take this long."""
DATABASE_WAIT_SECONDS = 4.0
"""Longest wait for a connection: an answer "database away" must come before the caller's own time-out of 10 s."""

log = structlog.get_logger()


def run(config: Config, instance_name: str, *, process: str = "", pages: Sequence[BaseRoute] = ()) -> None:
    """Serve ``instance_name`` at its address until SIGTERM. Raises Unhealthy where the address is taken."""
    # uvicorn raises the signal again when it has ended; by default that would end us before the rest is closed.
    signal.signal(signal.SIGTERM, lambda *_: None)
    instance = config.instance(instance_name)
    name = process or f"web@{instance.name}"
    with (
        listening(instance) as listener,
        Database(
            instance.name,
            instance.database_url,
            application=name,
            max_connections=THREADS + 2,
            wait_seconds=DATABASE_WAIT_SECONDS,
        ) as database,
    ):
        app = compose(config, instance, database, SystemClock(), pages=pages, process=name)
        log.info("serving", action="serving", host=instance.host, port=instance.port)
        server(app).run(sockets=[listener])


def compose(
    config: Config,
    instance: InstanceConfig,
    database: Database,
    clock: Clock,
    *,
    pages: Sequence[BaseRoute] = (),
    process: str = "",
) -> Starlette:
    """Return the whole web app of ``instance``: ``create_app`` with its console and its API."""
    console = console_routes(config, instance, database, clock)
    face = Middleware(Face, instance=instance)
    return create_app(config, instance, database, clock, pages=[*pages, *console], outer=[face], process=process)


def listening(instance: InstanceConfig) -> socket.socket:
    """Return the listening socket of ``instance``; raises Unhealthy naming what is in the way."""
    family = socket.AF_INET6 if ":" in instance.host else socket.AF_INET
    try:
        return socket.create_server((instance.host, instance.port), family=family, backlog=MAX_CONNECTIONS)
    except OSError as exc:
        raise Unhealthy(
            f"{instance.name} cannot listen at {instance.host}:{instance.port} ({exc.strerror or exc})",
            f"stop what listens there, or set instances.{instance.name}.port in midsource.toml",
        ) from exc


class _Server(uvicorn.Server):
    """Sends those who wait on feeds home before it waits for its connections."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.waiters.stop()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def server(app: Starlette) -> uvicorn.Server:
    """Return the server for ``app``; ``run(sockets=[…])`` blocks."""
    return _Server(
        uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
    )
