"""The loops of an mta process, side by side in one event loop; see `mid.mta` for their order and promises."""

from __future__ import annotations

import asyncio
import secrets
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from midsource.mid import expiry, orders, recovery
from midsource.mid.connections import Connections, Outfit
from midsource.mid.desk import Desk
from midsource.mid.dispatch import DeliveryKey
from midsource.mid.held import Fate
from midsource.mid.journal import BATCH_OUTCOMES
from midsource.mid.leasing import Leasing
from midsource.mid.records import Sealed
from midsource.mid.settle import settle, try_set_aside
from midsource.model.clock import Clock
from midsource.model.errors import MidsourceError
from midsource.store import processes
from midsource.store.database import Database

SYNC_SECONDS = 0.05
SETTLE_SECONDS = 0.2
BUSY_LOOK_SECONDS, LOOK_SECONDS = 0.05, 0.25
"""Between two looks for work: after one that found some, and otherwise. A delivery begins at most a quarter of a second late."""
ADVANCE_SECONDS = 1.0
"""A delivery's state follows its counters at most this late."""
RECOVER_SECONDS = 10.0
SWEEP_SECONDS = 5.0
RETRY_SECONDS = 1.0
"""Between two tries at a PostgreSQL that does not answer."""
STRAY_SECONDS = 10.0
"""How often leases in our name that we do not know of are looked for."""
SETTLE_STOP_SECONDS = 3.0
"""How long an ending process tries to settle; what is left is in its journal, and recovery settles it."""

_log = structlog.get_logger("midsource.mta")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a process is: its name (``mta@mid1``), and the executor, unique per start, that owns leases and journal."""

    name: str
    executor: str
    journals: Path

    @classmethod
    def new(cls, home: Path, instance: str, name: str) -> Identity:
        """Draw a fresh executor."""
        executor = f"{name.replace('@', '-')}-{secrets.token_hex(6)}"
        return cls(name, executor, home / "journal" / instance)


class Loops:
    """One process's work, in one event loop."""

    def __init__(
        self, database: Database, identity: Identity, leasing: Leasing, desk: Desk, outfit: Outfit, clock: Clock
    ) -> None:
        self._database = database
        self._identity = identity
        self._leasing = leasing
        self._desk = desk
        self._journal = desk.journal
        self._outfit = outfit
        self._clock = clock
        self._touched: dict[DeliveryKey, float] = {}
        self._stopping = asyncio.Event()
        self._at_work = asyncio.Event()
        self._quiet = False
        self._watch = recovery.Watch(clock, outfit.lease_seconds)
        self._strays_at = clock.boot_seconds()
        # A thread for each thing that must not wait for another: a renewal behind a long recovery would lose leases. Four
        # of them use a connection, which is the pool's size; the disk needs none.
        self._settle_pool = ThreadPoolExecutor(1, "settle")
        self._lease_pool = ThreadPoolExecutor(1, "lease")
        self._life_pool = ThreadPoolExecutor(1, "life")
        self._care_pool = ThreadPoolExecutor(1, "care")
        self._disk_pool = ThreadPoolExecutor(1, "disk")

    def stop(self) -> None:
        """Begin to end."""
        self._stopping.set()
        self._desk.stop()

    async def run(self) -> None:
        """Send until stopped."""
        async with asyncio.TaskGroup() as tasks:
            connections = Connections(self._desk, self._outfit, tasks)
            steps = (self._recover_once, self._sweep_once, self._sync_once, self._renew_once, self._beat_once)
            loops = [tasks.create_task(self._forever(step)) for step in steps]
            settling = tasks.create_task(self._settle_until_quiet())
            connecting = tasks.create_task(self._connect(connections))
            await self._lease_until_stopped()
            connecting.cancel()
            await connections.finish(self._outfit.stop_seconds)
            await self._desk.at_rest()
            self._quiet = True
            await asyncio.wait([settling], timeout=SETTLE_STOP_SECONDS)
            settling.cancel()
            for loop in loops:
                loop.cancel()
        await self._leave()

    # -- loops

    async def _forever(self, step: Callable[[], Awaitable[None]]) -> None:
        """Repeat ``step``; what fails is tried again after a pause, and ends neither the process nor another step."""
        while True:
            try:
                await step()
            except Exception as error:  # noqa: BLE001 - whatever it was, sending and the other steps go on
                _failed(step.__name__.strip("_"), error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _lease_until_stopped(self) -> None:
        while not self._stopping.is_set():
            if self._desk.failure is not None:
                raise self._desk.failure
            try:
                pause = await self._lease_once()
            except Exception as error:  # noqa: BLE001 - what is held goes on whatever leasing meets
                _failed("lease", error)
                pause = RETRY_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    async def _lease_once(self) -> float:
        """Look for work and take what there is room for; return the seconds until the next look."""
        if not self._journal.has_room:
            _log.error("journal.full", action="lease", why=self._journal.trouble or "the journal is at its bound")
            return RETRY_SECONDS
        if self._clock.boot_seconds() - self._strays_at > STRAY_SECONDS:
            await self._release_strays()
        queues, held, mine = self._desk.queues(), self._desk.messages_held, self._desk.deliveries
        found = await self._in(self._lease_pool, lambda: self._leasing.take(queues, held, mine))
        for delivery in mine - found.sending:
            self._desk.give_up(delivery, Fate.CANCEL if delivery in found.stopped else Fate.LEAVE)
        if found.taken:
            self._at_work.set()
        for taken in found.taken:
            self._desk.add(taken.lease, taken.prepared, taken.messages, found.ends)
        if queues:
            self._desk.changed.set()  # a rest may be over
        return BUSY_LOOK_SECONDS if found.taken else LOOK_SECONDS

    async def _release_strays(self) -> None:
        known = self._desk.leases()  # all of them: what is being leased is leased by this task alone
        if strays := await self._in(self._lease_pool, lambda: self._leasing.release_strays(known)):
            _log.warning("leases.strayed", action="release", batches=strays)
        self._strays_at = self._clock.boot_seconds()

    async def _connect(self, connections: Connections) -> None:
        while True:
            await self._desk.changed.wait()
            self._desk.changed.clear()
            connections.open_planned()
            await asyncio.sleep(0.01)  # changes come in hundreds; one plan serves them all

    async def _sync_once(self) -> None:
        # Who has nothing in hand writes nothing: an idle process had woken twenty times a second.
        await self._at_work.wait()
        await asyncio.sleep(SYNC_SECONDS)
        if self._journal.is_dirty:
            self._journal.flush()
            await self._in(self._disk_pool, self._journal.sync)
        elif not self._desk.messages_held:
            self._at_work.clear()

    async def _settle_until_quiet(self) -> None:
        while not self._quiet or self._journal.collected:
            if self._journal.collected < BATCH_OUTCOMES and not self._quiet:
                await asyncio.sleep(SETTLE_SECONDS)
            try:
                await self._settle_once()
            except Exception as error:  # noqa: BLE001 - outcomes wait in the journal, and sending goes on
                _failed("settle", error, waiting=self._journal.collected)
                await asyncio.sleep(RETRY_SECONDS)

    async def _settle_once(self) -> None:
        """Settle one batch, advance the deliveries that are due, give back what is done with."""
        if (sealed := self._journal.seal()) is not None:
            await self._in(self._settle_pool, lambda: self._settle(sealed))
            self._journal.applied(sealed)
            self._at_work.set()  # this is to be written, too
            self._desk.settled(sealed)
            for key in {(outcome.account_id, outcome.delivery_id) for outcome in sealed.outcomes}:
                self._touched.setdefault(key, self._clock.boot_seconds())
        now, open_ = self._clock.boot_seconds(), self._desk.deliveries
        due = [key for key, since in self._touched.items() if now - since >= ADVANCE_SECONDS or key not in open_]
        if due:
            await self._in(self._settle_pool, lambda: self._advance(due))
            for key in due:
                del self._touched[key]
        if back := self._desk.take_returnable():
            await self._in(self._lease_pool, lambda: self._leasing.release(back))

    def _settle(self, sealed: Sealed) -> None:
        with self._database.transaction() as conn:
            settle(conn, self._identity.executor, sealed, self._clock.now())

    def _advance(self, due: list[DeliveryKey]) -> None:
        for key in due:
            try:
                with self._database.transaction() as conn:
                    orders.advance(conn, *key, self._clock.now())
            except Exception as error:  # noqa: BLE001 - one delivery must not hold up the others; the sweep comes again
                _failed("advance", error, delivery=key[1])

    async def _renew_once(self) -> None:
        if tokens := self._desk.leases():
            ours, ends = await self._in(self._life_pool, lambda: self._leasing.renew(tokens))
            self._desk.extend(ours, ends)
            self._desk.lose(tokens.keys() & self._desk.leases().keys() - ours)
        await asyncio.sleep(self._outfit.lease_seconds / 3)

    async def _beat_once(self) -> None:
        await self._in(self._life_pool, self._beat)
        await asyncio.sleep(processes.BEAT_SECONDS)

    def _beat(self) -> None:
        with self._database.connection() as conn:
            processes.beat(conn, self._identity.name, "mta", self._identity.executor)

    async def _sweep_once(self) -> None:
        await self._in(self._care_pool, lambda: orders.sweep(self._database, self._clock.now()))
        await self._in(self._care_pool, lambda: expiry.end_expired(self._database, self._clock.now()))
        await self._in(self._care_pool, lambda: try_set_aside(self._database, self._clock.now()))
        await asyncio.sleep(SWEEP_SECONDS)

    async def _recover_once(self) -> None:
        await self._in(self._care_pool, self._recover)
        await asyncio.sleep(RECOVER_SECONDS)

    def _recover(self) -> None:
        mine = self._identity
        recovery.recover(
            self._database, mine.journals, mine.executor, self._clock, self._watch,
            stalled_seconds=self._outfit.stalled_seconds, lost_seconds=self._outfit.lost_seconds,
        )  # fmt: skip

    # -- the end

    async def _leave(self) -> None:
        """Give everything back. What cannot be is found by recovery: the journal stays then."""
        back = self._desk.take_returnable(everything=True)
        # A journal that goes while batches stay leased would make each of their messages uncertain, begun or not.
        settled = not self._journal.collected and not self._desk.leases()
        try:
            await self._in(self._lease_pool, lambda: self._leasing.release(back))
            await self._in(self._lease_pool, self._say_goodbye)
        except MidsourceError as error:
            settled = False
            _log.error("release.failed", action="stop", batches=len(back), why=str(error))
        self._disk_pool.shutdown()  # a sync under way ends before its files are closed
        self._journal.close(settled=settled)
        for pool in (self._settle_pool, self._lease_pool, self._life_pool, self._care_pool):
            pool.shutdown()

    def _say_goodbye(self) -> None:
        with self._database.connection() as conn:
            processes.leave(conn, self._identity.name, self._identity.executor)

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)


def _failed(action: str, error: Exception, **about: int) -> None:
    """Log what failed. Only our own errors are sentences for an operator; others may quote a row, so their kind must do."""
    if isinstance(error, MidsourceError):
        _log.warning(f"{action}.failed", action=action, why=str(error), **about)
    else:
        at = traceback.extract_tb(error.__traceback__)[-1]
        _log.error(
            f"{action}.failed", action=action, why=type(error).__name__, where=f"{at.filename}:{at.lineno}", **about
        )
