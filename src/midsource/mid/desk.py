"""The desk of an mta process: every message it has leased, until its outcome is settled. One event loop only.

Order of events for a message: `add` (its batch is leased) → rendered ahead → taken by a connection → `started` in the
journal → body → `finished`: judged and journalled → `settled` in PostgreSQL → its batch, when empty, is forgotten.
Where nobody answers at a destination, everything that waits for it is put off together and it rests; no other
destination notices.

A message is not taken when its lease ends within LEASE_MARGIN_SECONDS: it is parked until the lease is renewed or lost.
`may_send_body` asks again right before the final dot. How much is held at all is bounded by `policy.paths`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor

import structlog

from midsource.mid import verdicts
from midsource.mid.ahead import RENDER_AHEAD, RENDER_BATCH, RenderAhead
from midsource.mid.dispatch import DeliveryKey, Lease, Message
from midsource.mid.held import Destination, Fate, Held
from midsource.mid.journal import Journal
from midsource.mid.records import Outcome, Sealed
from midsource.mid.render import Prepared, Rendered, Result, Tokens
from midsource.mid.shelf import Shelf
from midsource.mid.starts import Go, Starts
from midsource.model.clock import Clock
from midsource.model.outcome import Attempt, Lost, Stage
from midsource.net.sender import WITHHELD
from midsource.policy.classify import BounceRules
from midsource.policy.paths import Queue
from midsource.smtp.events import Transaction

LEASE_MARGIN_SECONDS = 5.0  # no final dot later than this before the lease ends (design 7)
_log = structlog.get_logger("midsource.mta")


class Desk:
    """Everything held; the process's loops and its connections meet here."""

    def __init__(
        self, journal: Journal, pool: Executor, tokens: Tokens, rules: BounceRules, clock: Clock,
        chance: Callable[[], float] = random.random,
    ) -> None:  # fmt: skip
        self.journal = journal
        self._rules = rules
        self._clock = clock
        self._chance = chance
        self._loop = asyncio.get_running_loop()
        self._held: dict[int, Held] = {}
        self._shelf = Shelf()
        self._starts = Starts(journal)
        self._destinations: dict[str, Destination] = {}
        self._rated_at = self._loop.time()
        self._ahead = RenderAhead(self._shelf, pool, tokens, clock, self._stock, self._note_failure)
        self.stopping = False
        self.failure: BaseException | None = None
        """What a rendering thread raised: a bug of ours, no recipient's problem. The process ends with it."""
        self.changed = asyncio.Event()
        """Set when connections may be wanted."""

    # -- what the process asks

    @property
    def messages_held(self) -> int:
        """Leased messages without an outcome, and outcomes not settled yet: both are memory."""
        return sum(held.open + held.unsettled for held in self._held.values())

    @property
    def deliveries(self) -> set[DeliveryKey]:
        """The deliveries of which something is held to be sent."""
        return {held.lease.delivery for held in self._held.values() if held.fate is Fate.SEND}

    def destination(self, name: str) -> Destination:
        """Return the destination, made where it is new."""
        return self._destinations.get(name) or self._destinations.setdefault(name, Destination(name))

    def queues(self) -> dict[str, Queue]:
        """Return each destination as `policy.paths` plans it; forget those with nothing left."""
        now = self._loop.time()
        seconds, self._rated_at = now - self._rated_at, now
        for dest in list(self._destinations.values()):
            dest.measure(now, seconds)
            if dest.is_idle:
                del self._destinations[dest.name]
        return {name: dest.queue(now) for name, dest in self._destinations.items()}

    def leases(self) -> dict[int, int]:
        """Return batch id to token of everything held."""
        return {batch: held.lease.token for batch, held in self._held.items()}

    # -- leases come, last, and go

    def add(self, lease: Lease, prepared: Prepared, messages: Sequence[Message], ends: float) -> None:
        """Take a leased batch in hand; ``ends`` is the boot time at which the lease is over."""
        if not messages:
            return
        held = self._held[lease.batch_id] = Held(lease, prepared, ends, len(messages))
        now = self._clock.now()
        if prepared.valid_until is not None and prepared.valid_until <= now:
            for message in messages:
                self._conclude(held, verdicts.expired(lease, message, now))
        else:
            self._queue(held, messages)

    def extend(self, batches: Iterable[int], ends: float) -> None:
        """Note that these leases last until boot time ``ends``; parked messages go on."""
        for batch in batches:
            held = self._held.get(batch)
            if held is not None:
                held.ends = ends
                if held.parked and held.fate is Fate.SEND:
                    parked, held.parked = held.parked, []
                    self._queue(held, parked)

    def lose(self, batches: Iterable[int]) -> None:
        """Note that these leases are not ours any more: nothing of them is begun; what is under way is late evidence."""
        for batch in batches:
            if (held := self._held.get(batch)) is not None:
                self._drop(held, Fate.LEAVE)
                _log.warning("lease.lost", action="lose", batch=batch, delivery=held.lease.delivery_id)

    def give_up(self, delivery: DeliveryKey, fate: Fate) -> None:
        """Begin nothing more of a delivery that was paused (LEAVE) or stopped (CANCEL)."""
        for held in [h for h in self._held.values() if h.lease.delivery == delivery and h.fate is Fate.SEND]:
            self._drop(held, fate)

    def settled(self, sealed: Sealed) -> None:
        """Note that these outcomes are in PostgreSQL."""
        for outcome in sealed.outcomes:
            held = self._held.get(outcome.batch_id)
            if held is not None and held.lease.token == outcome.token:
                held.unsettled -= 1
                if held.is_quiet and not held.open:
                    del self._held[outcome.batch_id]

    def take_returnable(self, *, everything: bool = False) -> dict[int, int]:
        """Forget and return (batch id to token) what can be given back: nothing of it is under way or unsettled."""
        back = [h for h in self._held.values() if h.is_quiet and (everything or h.fate is not Fate.SEND)]
        for held in back:
            self._drop(held, Fate.LEAVE)
            del self._held[held.lease.batch_id]
        return {held.lease.batch_id: held.lease.token for held in back}

    async def at_rest(self) -> None:
        """Return when nothing is rendered any more, for one that stops: no batch is busy then but by a connection."""
        await self._ahead.at_rest()

    # -- what connections ask

    def take(self, dest: Destination) -> Transaction | None:
        """Return the next message for ``dest`` whose lease lasts, None when there is none now."""
        if self.stopping or self.journal.trouble:
            return None
        limit = self._clock.boot_seconds() + LEASE_MARGIN_SECONDS
        taken = None
        while taken is None and dest.ready:
            transaction, item = self._shelf.take(dest)
            held, until = item.held, item.held.prepared.valid_until
            if held.ends <= limit:
                self._shelf.forget(transaction.token)
                held.parked.append(item.message)
            elif until is not None and until <= (
                now := self._clock.now()
            ):  # it may have waited here for hours, behind a slow server
                self._shelf.forget(transaction.token)
                self._conclude(held, verdicts.expired(held.lease, item.message, now))
            else:
                held.busy += 1
                taken = transaction
        if len(dest.ready) <= RENDER_AHEAD - RENDER_BATCH:
            self._ahead.feed(dest)
        return taken

    def put_back(self, dest: Destination, taken: Mapping[int, Transaction], fault: Attempt | None = None) -> None:
        """Take back, at the front, what a connection has no outcome for; ``fault``: why it must not be tried at once.

        One whose body may be under way all the same (a fault of ours ended the connection) is in doubt like any other.
        """
        for token, transaction in reversed(list(taken.items())):
            item = self._shelf.find(token)
            if item is None:
                continue
            self._starts.forget(token)
            held = item.held
            held.busy -= 1
            begun = self.journal.has_begun(item.start.key)
            attempt = Attempt(Stage.BODY, Lost("a fault of ours ended the connection")) if begun else fault
            if attempt is None and held.fate is Fate.SEND:
                self._shelf.put_back(dest, transaction)
                continue
            self._shelf.forget(token)
            if attempt is not None:
                self._conclude(held, self._judge(held, item.message, item.message_id, attempt))
            else:
                self._abandon(held, item.message)
        self._wake(dest)
        self.changed.set()

    def may_send_body(self, token: int) -> bool:
        """Whether this message may still leave."""
        held = self._shelf.item(token).held
        return held.fate is Fate.SEND and self._clock.boot_seconds() < held.ends - LEASE_MARGIN_SECONDS

    def started(self, token: int, go: Go) -> None:
        """Write it into the journal and call ``go``; the starts of one turn of the loop are one write."""
        self._starts.add(token, self._shelf.item(token).start, go)

    def finished(self, dest: Destination, token: int, attempt: Attempt) -> None:
        """Judge and note what came of a try."""
        item = self._shelf.forget(token)
        self._starts.forget(token)
        held, message = item.held, item.message
        held.busy -= 1
        if isinstance(attempt.answer, Lost) and attempt.answer.why == WITHHELD:
            self.journal.withdrawn(item.start.key)
            self._abandon(held, message)
        else:
            dest.finished += 1
            self._conclude(held, self._judge(held, message, item.message_id, attempt))

    # -- a destination as a whole

    def refuse_all(self, dest: Destination, attempt: Attempt) -> None:
        """Nobody could be reached there: every message that waits has had this try, and the destination rests."""
        rest = dest.rest(self._loop.time(), attempt)
        waiting = self._shelf.empty(dest, lambda _: True)
        for held, message in waiting:
            self._conclude(held, self._judge(held, message, "", attempt))
        told = {"seconds": rest, "messages": len(waiting), "why": f"{attempt.stage}: {attempt.answer}"}
        _log.warning("destination.down", action="rest", destination=dest.name, **told)

    def stop(self) -> None:
        """Begin nothing more: nothing is taken or rendered, and every connection that waits hears of the end."""
        self.stopping = True
        self._ahead.stop()
        self.changed.set()
        for dest in self._destinations.values():
            self._wake(dest)

    # -- inside

    def _queue(self, held: Held, messages: Iterable[Message]) -> None:
        dest = self.destination(held.lease.destination)
        dest.fresh.extend((held, message) for message in messages)
        self._ahead.feed(dest)
        self.changed.set()

    def _judge(self, held: Held, message: Message, message_id: str, attempt: Attempt) -> Outcome:
        now, chance = self._clock.now(), self._chance()
        return verdicts.judge(held.lease, held.prepared, message, message_id, attempt, self._rules, now, chance)

    def _conclude(self, held: Held, outcome: Outcome) -> None:
        held.open -= 1
        held.unsettled += 1
        self.journal.outcome(outcome)

    def _drop(self, held: Held, fate: Fate) -> None:
        held.fate = fate
        waiting = self._shelf.empty(self.destination(held.lease.destination), lambda other: other is held)
        parked, held.parked = held.parked, []
        for message in [*parked, *(message for _, message in waiting)]:
            self._abandon(held, message)

    def _abandon(self, held: Held, message: Message) -> None:
        """Do with a message that was not begun what the fate of its batch says."""
        match held.fate:
            case Fate.SEND:
                held.parked.append(message)
            case Fate.CANCEL:
                self._conclude(held, verdicts.cancelled(held.lease, message, self._clock.now()))
            case Fate.LEAVE:
                pass  # it waits in its batch for whoever leases that next

    def _stock(self, dest: Destination, held: Held, pairs: list[tuple[Message, Result]]) -> None:
        refusal = dest.refusal_now(self._loop.time())
        for message, result in pairs:
            if held.fate is not Fate.SEND:
                self._abandon(held, message)
            elif refusal is not None:  # it was in the pool when the others had this try
                self._conclude(held, self._judge(held, message, "", refusal))
            elif isinstance(result, Rendered):
                self._shelf.put(dest, held, message, result)
            elif result.is_bug:  # put off: the next version may be able to
                self._conclude(held, self._judge(held, message, "", Attempt(Stage.RESOLVE, Lost(result.why))))
            else:
                self._conclude(held, verdicts.unrenderable(held.lease, message, result.why, self._clock.now()))
        self._wake(dest)
        self.changed.set()

    def _note_failure(self, error: BaseException) -> None:
        self.failure = error
        self.changed.set()

    def _wake(self, dest: Destination) -> None:
        for callback in dest.take_callbacks():
            self._loop.call_soon(callback)
