"""Opens what the plan says, and runs each connection from the MX answer to QUIT.

A connection is a task of the process's group that never raises: whatever happens, each message it took has its outcome
or is back on the desk. The hosts of a destination are tried in order until one can be spoken to; under opportunistic TLS one
whose TLS breaks is spoken to once more in plain text. When none can: a destination that has other connections is crowded
and keeps those; one that has none is down, every message that waits for it has had this try, and it rests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from midsource.mid.desk import Desk
from midsource.mid.dispatch import LEASE_SECONDS
from midsource.mid.held import Destination
from midsource.mid.journal import JournalFull
from midsource.mid.plain import PLAIN_SECONDS, PlainServers
from midsource.mid.recovery import LOST_SECONDS, STALLED_SECONDS
from midsource.mid.starts import Go
from midsource.model.outcome import Attempt, Lost, Reply, Stage
from midsource.net.dialer import Dialer, Endpoint
from midsource.net.resolver import MxAnswer, Resolver
from midsource.net.sender import ConnectionEnd, run_connection
from midsource.net.timeouts import Timeouts
from midsource.policy.paths import Limits, plan_connections
from midsource.smtp.events import BEGUN, Pipelining, TlsPolicy, Transaction
from midsource.smtp.session import ClientSession

MESSAGES_PER_CONNECTION = 100
"""Below what large providers take (20 is the least seen, 100 common); MX rules will say it per provider."""
IDLE_SECONDS = 5.0
STOP_SECONDS = 15.0
"""How long a process that ends waits for the replies to bodies under way; cut then, they are uncertain. With what comes
after (`loops.SETTLE_STOP_SECONDS`) it is less than the supervisor waits before it kills."""
OUR_FAULT_SECONDS = 1.0
"""Pause after a connection that a full disk ended, so that it is not tried in a tight loop."""
ROUND_SECONDS = 1800.0
"""After so long no further endpoint of a destination is dialled: twenty that say nothing for ten minutes each would hold a
connection for hours, and six hosts that hang at their banner for the RFC's five minutes are still passed."""
TLS_WANTED = 530
"""What a server answers to MAIL in plain text where it insists on TLS (RFC 3207 4)."""

FAULT = Attempt(Stage.RESOLVE, Lost("a fault of ours; the log of the mta process says which"))
"""What a message had that was in hand, or waited, when our own code failed: put off, and nobody is blamed."""
INSISTS = Lost("its TLS broke, and in plain text it takes no mail")

_log = structlog.get_logger("midsource.mta")


@dataclass(frozen=True, slots=True)
class Outfit:
    """How connections are made."""

    hello: str
    dialer: Dialer
    resolver: Resolver
    limits: Limits
    pipelining: Pipelining = Pipelining.GROUPED
    tls: TlsPolicy = TlsPolicy.OPPORTUNISTIC
    lease_seconds: float = LEASE_SECONDS
    stalled_seconds: float = STALLED_SECONDS
    lost_seconds: float = LOST_SECONDS
    stop_seconds: float = STOP_SECONDS
    timeouts: Timeouts = Timeouts(idle_seconds=IDLE_SECONDS)  # noqa: RUF009 - a frozen value


class Connections:
    """Every connection of one process."""

    def __init__(self, desk: Desk, outfit: Outfit, tasks: asyncio.TaskGroup) -> None:
        self._desk = desk
        self._outfit = outfit
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._plain = PlainServers()
        self._running: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        """How many are open or being opened."""
        return len(self._running)

    def open_planned(self) -> None:
        """Open what `policy.paths` says."""
        for name, count in plan_connections(self._desk.queues(), self._outfit.limits).items():
            dest = self._desk.destination(name)
            for _ in range(count):
                dest.connections += 1
                task = self._tasks.create_task(self._run(dest))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    async def finish(self, seconds: float) -> None:
        """Wait for every connection to end (the desk gives nothing more), at most ``seconds``; then cut them."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        cut = list(self._running)
        for task in cut:
            task.cancel()
        if cut:
            _log.warning("connections.cut", action="stop", count=len(cut))
            await asyncio.wait(cut)

    async def _run(self, dest: Destination) -> None:
        try:
            await self._reach(dest)
        except JournalFull as full:
            _log.error("journal.full", action="stop", why=str(full))
            await asyncio.sleep(OUR_FAULT_SECONDS)
        finally:
            dest.connections -= 1
            self._desk.changed.set()

    async def _reach(self, dest: Destination) -> None:
        """Speak to the first host that can be spoken to."""
        try:
            answer = await self._outfit.resolver.mx(dest.name)
        except Exception:  # noqa: BLE001 - a name that breaks the resolver must not end the process, nor be asked for ever
            _log.exception("resolver.failed", action="resolve", destination=dest.name)
            answer = MxAnswer(failure=FAULT)
        failure = answer.failure or Attempt(Stage.RESOLVE, Lost(f"no usable mail host for {dest.name}"))
        until = self._loop.time() + ROUND_SECONDS
        for endpoint in answer.endpoints:
            if self._loop.time() > until:
                break
            end = await self._try(dest, endpoint)
            if not end.never_opened or self._desk.stopping:
                return
            assert end.stage is not None
            assert end.answer is not None
            failure = Attempt(end.stage, end.answer)
        if dest.connections > 1:
            dest.crowd(self._loop.time())
        else:
            self._desk.refuse_all(dest, failure)

    async def _try(self, dest: Destination, endpoint: Endpoint) -> ConnectionEnd:
        """Speak to one endpoint; where nothing but its TLS is broken, and the policy allows it, in plain text."""
        policy = self._outfit.tls
        if policy is not TlsPolicy.OPPORTUNISTIC:
            return await self._speak(_Visit(self._desk, dest), endpoint, policy)
        if not self._plain.has(endpoint, self._loop.time()):
            end = await self._speak(_Visit(self._desk, dest), endpoint, policy)
            if end.stage is not Stage.TLS or self._desk.stopping:
                return end
            if self._plain.add(endpoint, self._loop.time()):
                told = {"host": str(endpoint), "why": str(end.answer), "seconds": PLAIN_SECONDS}
                _log.warning("tls.broken", action="stay_plain", destination=dest.name, **told)
        visit = _Visit(self._desk, dest, fallen_back=True)
        end = await self._speak(visit, endpoint, TlsPolicy.NEVER)
        if end.never_opened or visit.tls_wanted:
            self._plain.forget(endpoint)
        return ConnectionEnd(Stage.TLS, INSISTS) if visit.tls_wanted else end

    async def _speak(self, visit: _Visit, endpoint: Endpoint, tls: TlsPolicy) -> ConnectionEnd:
        dest = visit.dest
        session = ClientSession(self._outfit.hello, tls=tls, pipelining=self._outfit.pipelining)
        fault: Attempt | None = None
        try:
            return await run_connection(
                self._outfit.dialer, endpoint, session, visit, visit, self._outfit.timeouts,
                messages_per_connection=MESSAGES_PER_CONNECTION,
            )  # fmt: skip
        except JournalFull:
            raise
        except Exception:  # noqa: BLE001 - a bug on one connection must not end the process and all others
            _log.exception("connection.failed", action="close", destination=dest.name)
            fault = FAULT
            # With nothing in hand the path itself is at fault: everything that waits for it has had this try.
            return ConnectionEnd(None if visit.taken else FAULT.stage, FAULT.answer)
        finally:
            self._desk.put_back(dest, visit.taken, fault)


class _Visit:
    """One connection's view of the desk: `net.source.Source` and `net.sender.Recorder` in one."""

    __slots__ = ("_desk", "_fallen_back", "dest", "taken", "tls_wanted")

    def __init__(self, desk: Desk, dest: Destination, *, fallen_back: bool = False) -> None:
        self._desk = desk
        self._fallen_back = fallen_back
        self.dest = dest
        self.taken: dict[int, Transaction] = {}
        """What it has in hand: taken, and without an outcome."""
        self.tls_wanted = False
        """Whether a server whose TLS broke refused a message because this is plain text: no other is offered to it."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._desk.stopping or self.tls_wanted

    def take(self) -> Transaction | None:
        """Return the next message for this destination."""
        if not self.taken and self.dest.failures:
            self.dest.reached()
        transaction = self._desk.take(self.dest)
        if transaction is not None:
            self.taken[transaction.token] = transaction
        return transaction

    def when_more(self, callback: Callable[[], None]) -> None:
        """Call back when there may be more."""
        self.dest.callbacks.append(callback)

    def may_send_body(self, token: int) -> bool:
        """Ask the desk."""
        return self._desk.may_send_body(token)

    def started(self, token: int, go: Go) -> None:
        """Tell the desk; a body that begins is offered to nobody again, and is not kept here."""

        def noted(error: BaseException | None) -> None:
            if error is None:
                self.taken[token] = BEGUN
            go(error)

        self._desk.started(token, noted)

    def finished(self, token: int, attempt: Attempt) -> None:
        """Tell the desk."""
        del self.taken[token]
        if self._fallen_back and isinstance(attempt.answer, Reply) and attempt.answer.code == TLS_WANTED:
            self.tls_wanted = True
        self._desk.finished(self.dest, token, attempt)
