"""The ``mta`` process of a mid: leases batches, sends their messages, settles the outcomes. As many as you like.

Order of events: claim a journal · recover what dead processes of this machine left (`mid.recovery`) · then, side by side:
*lease* (look, plan by `policy.paths`, lease, load; only while there is room), *connect* (open what the plan says),
*sync* (journal to disk every 50 ms), *settle* (outcomes to PostgreSQL every 200 ms or 2 000), *renew* (leases, at a third of
their time), *beat* (sign of life; sweep of deliveries), *recover* (every 10 s).

PostgreSQL down: nothing more is leased, messages in hand go on until their leases end, outcomes wait in the journal and in
memory (bounded by what was leased) and are settled when it is back. Journal not writable: nothing is begun. SIGTERM:
nothing more is leased, rendered or taken; connections finish within `connections.STOP_SECONDS`, outcomes are settled
within `loops.SETTLE_STOP_SECONDS`, leases given back: less in all than the supervisor waits before it kills.

Durable: see `mid.journal`. After kill -9 the next process on this machine says which messages are uncertain; all others
go on at once.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from midsource.config import Config, InstanceConfig
from midsource.mid.connections import Outfit
from midsource.mid.desk import Desk
from midsource.mid.journal import Journal
from midsource.mid.leasing import Leasing
from midsource.mid.loops import Identity, Loops
from midsource.mid.render import Deliveries, Tokens
from midsource.mid.transport import pipelining_of, resolver_of
from midsource.model.clock import Clock
from midsource.net.clock import SystemClock
from midsource.net.dialer import TcpDialer
from midsource.policy.classify import shipped_rules
from midsource.policy.paths import Limits
from midsource.security import keys
from midsource.store.database import Database

RENDER_THREADS = 2
"""One signs, without the interpreter, while the other composes: a third made nothing faster and cost 7 % more CPU. Where the
processes of a mid fill the cores already, one each: two sent 7 % less (`render_threads`)."""
SWITCH_SECONDS = 0.001
"""How long a rendering thread may keep the loop waiting: at Python's 5 ms sending was a tenth slower, at 0.3 ms it cost CPU."""

GARBAGE_THRESHOLD = 10_000
"""New objects between two looks for garbage in cycles: at Python's 700 looking through what is held took 4 % of sending."""

_log = structlog.get_logger("midsource.mta")


def run(config: Config, instance_name: str, *, process: str = "") -> None:
    """Run an mta process of ``instance_name`` until SIGTERM; its ``database_url`` must be filled in."""
    instance = config.instance(instance_name)
    run_with(outfit_of(config, instance, SystemClock()), config, instance, process)


def outfit_of(config: Config, instance: InstanceConfig, clock: Clock) -> Outfit:
    """Return how this instance sends. Raises Failed where it cannot (no DNS server)."""
    limits = Limits(connections_per_destination=instance.connections_per_destination)
    resolver = resolver_of(config, instance, clock)
    return Outfit(instance.helo, TcpDialer(), resolver, limits, pipelining_of(instance))


def run_with(outfit: Outfit, config: Config, instance: InstanceConfig, process: str = "") -> None:
    """Run an mta process that sends by ``outfit``."""
    identity = Identity.new(config.home, instance.name, process or f"mta@{instance.name}")
    threads = render_threads(instance.mtas, os.cpu_count() or 1)
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()  # modules and rules stay: not looked through again
    gc.set_threshold(GARBAGE_THRESHOLD)
    with (
        Database(instance.name, instance.database_url, application=identity.name, max_connections=4) as database,
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        runner.run(serve(database, identity, outfit, keys.load(config.home), SystemClock(), threads))


def render_threads(processes: int, cores: int) -> int:
    """Return how many threads of one of ``processes`` mta processes compose and sign, on a machine of ``cores``. Pure."""
    return RENDER_THREADS if processes < cores else 1


async def serve(
    database: Database, identity: Identity, outfit: Outfit, home_key: keys.HomeKey, clock: Clock, threads: int
) -> None:
    """Be the process, in the running loop, until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    boot_id = clock.boot_id()
    if not boot_id:
        _log.warning("boot.unknown", action="start", why="this system does not say which boot it is: should this process be killed, "
                     "every message it holds will be named uncertain")  # fmt: skip
    journal = Journal(identity.journals, identity.executor, boot_id)
    with ThreadPoolExecutor(threads, "render") as pool:
        desk = Desk(journal, pool, Tokens.of(home_key), shipped_rules(), clock)
        leasing = Leasing(
            database,
            identity.executor,
            Deliveries(home_key, clock),
            outfit.limits,
            clock,
            lease_seconds=outfit.lease_seconds,
        )
        loops = Loops(database, identity, leasing, desk, outfit, clock)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, loops.stop)
        _log.info("mta.started", action="start", executor=identity.executor, host=socket.gethostname())
        await loops.run()
    _log.info("mta.stopped", action="stop", executor=identity.executor)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - not there on every platform
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
