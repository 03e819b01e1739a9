"""The ``sandbox`` process: SMTP sink and inbox pages in one event loop, on the loopback interface only.

Order of events: take the folder ``home/sandbox`` for ourselves, recall what it holds, open both ports, write
``ports.json``, call ``ready``, serve until SIGTERM or SIGINT. ``ports.json`` holds ``smtp``, ``http``, ``pid`` and
``mx`` (domain to MX host name, for a resolver of the demo) and goes when the process ends in order.

Durable: every message is with the operating system before it is answered (see ``inbox``); kill -9 loses nothing.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
import uvicorn
from starlette.applications import Starlette

from midsource.model.errors import Conflict, Failed
from midsource.net.clock import SystemClock
from midsource.sandbox.certificate import make_tls
from midsource.sandbox.inbox import Inbox
from midsource.sandbox.judge import Judge
from midsource.sandbox.personalities import MX_HOSTS
from midsource.sandbox.server import Sink
from midsource.sandbox.web import make_app
from midsource.store.files import write_whole

NAME = "sandbox.midsource.test"
"""What the sink calls itself."""
HOST = "127.0.0.1"
"""Loopback only: the sink takes anything from anybody, so nobody else may reach it."""
STOP_SECONDS = 3
"""Time running page requests get at the end."""

_log = structlog.get_logger("midsource.sandbox")


def run(
    home: Path,
    smtp_port: int = 0,
    http_port: int = 0,
    ready: Callable[[int, int], None] | None = None,
    *,
    offers_tls: bool = True,
) -> None:
    """Serve until SIGTERM. Port 0 takes any free one; ``ready(smtp_port, http_port)`` is called when both are open.

    Conflict: another sandbox serves this home. Failed: a port is taken.
    """
    folder = home / "sandbox"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _own(folder), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(folder, smtp_port, http_port, ready, offers_tls=offers_tls))


@contextmanager
def _own(folder: Path) -> Iterator[None]:
    """Hold the folder: two writers would number lines twice."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"another sandbox serves {folder}", "stop it first, or use another home") from None
        yield


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - not there on every platform
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


class _Pages(uvicorn.Server):
    """uvicorn without its own signal handlers: the sandbox has one stop for both ports."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def _serve(
    folder: Path, smtp_port: int, http_port: int, ready: Callable[[int, int], None] | None, *, offers_tls: bool
) -> None:
    clock = SystemClock()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with _listener(smtp_port) as mail_socket, _listener(http_port) as pages_socket:
        inbox = Inbox(folder, clock)
        judge = Judge(clock, inbox.holds)
        tls = make_tls(folder, NAME, clock.now()) if offers_tls else None
        pages = _Pages(_pages_config(make_app(inbox, judge)))
        async with asyncio.TaskGroup() as tasks:
            sink = Sink(NAME, inbox, judge, tasks, tls)
            listener = await sink.listen(mail_socket)
            serving = tasks.create_task(pages.serve(sockets=[pages_socket]))
            sweeping = tasks.create_task(sink.sweep())
            smtp, http = mail_socket.getsockname()[1], pages_socket.getsockname()[1]
            _announce(folder, smtp, http)
            _log.info("sandbox.started", action="start", smtp=smtp, http=http, held=inbox.tally.total.received)
            if ready:
                ready(smtp, http)
            await stop.wait()
            (folder / "ports.json").unlink(missing_ok=True)
            sweeping.cancel()
            listener.close()
            sink.hang_up_all()
            pages.should_exit = True
            await serving
        inbox.close()
    _log.info("sandbox.stopped", action="stop", held=inbox.tally.total.received)


def _pages_config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        limit_concurrency=100,
        timeout_graceful_shutdown=STOP_SECONDS,
    )


def _listener(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port), backlog=128)
    except OSError as problem:
        raise Failed(f"cannot listen on {HOST}:{port}: {problem.strerror}", "choose another port") from problem


def _announce(folder: Path, smtp: int, http: int) -> None:
    """Write ``ports.json`` in one step: a reader sees the old file or the new one, never half of it."""
    said = {"smtp": smtp, "http": http, "pid": os.getpid(), "mx": dict(MX_HOSTS)}
    write_whole(folder / "ports.json", json.dumps(said, indent=1))
