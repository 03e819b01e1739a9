"""Waiting on feeds: one look at the database wakes everybody whose account has news.

Readers wait on the event loop, without a thread or a connection each. While anybody waits, ``run`` looks every LOOK_SECONDS;
while nobody does, it costs nothing. NOTIFY is not used: it takes one lock at every commit of every writer.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from anyio import CapacityLimiter, to_thread

from midsource.mid import feed
from midsource.model.errors import MidsourceError
from midsource.store.database import Database
from midsource.web.problems import TooManyPolls

LOOK_SECONDS = 0.25
"""How late news may be: four small statements a second while somebody waits."""
POLLS_PER_ACCOUNT = 2
"""Of one web process: a marketing instance has one for counters and one for logs."""
FAILED_SECONDS = 1.0
"""Pause after a look that failed: four lines a second of the same would bury the log."""

log = structlog.get_logger()


@dataclass(eq=False, slots=True)
class _Waiter:
    account_id: int
    seq: int
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class FeedWaiters:
    """Those who wait on feeds in this process. ``run`` must be running."""

    def __init__(self, database: Database, threads: CapacityLimiter) -> None:
        self._database = database
        self._threads = threads
        self._waiters: set[_Waiter] = set()
        self._somebody = asyncio.Event()
        self.stopping = False

    def stop(self) -> None:
        """Send everybody home: the server ends and must not wait for those who wait."""
        self.stopping = True
        for waiter in self._waiters:
            waiter.woken.set()

    def count(self) -> int:
        """Return how many wait."""
        return len(self._waiters)

    async def news(self, account_id: int, seq: int, seconds: float) -> None:
        """Return when the account may have batches after ``seq``, or when ``seconds`` are over. Raises TooManyPolls."""
        if Counter(waiter.account_id for waiter in self._waiters)[account_id] >= POLLS_PER_ACCOUNT:
            raise TooManyPolls(
                f"this account waits on the feed {POLLS_PER_ACCOUNT} times already",
                "ask without wait, or one after the other",
            )
        waiter = _Waiter(account_id, seq)
        self._waiters.add(waiter)
        self._somebody.set()
        try:
            async with asyncio.timeout(seconds):
                await waiter.woken.wait()
        except TimeoutError:
            return
        finally:
            self._waiters.discard(waiter)

    async def run(self) -> None:
        """Wake waiters, until cancelled; a look that fails is logged and the next one comes."""
        while True:
            await self._somebody.wait()
            if not self._waiters:
                self._somebody.clear()
                continue
            # Taken here: while the thread looks, readers come and go.
            accounts = sorted({waiter.account_id for waiter in self._waiters})
            pause = LOOK_SECONDS
            try:
                self._wake(await to_thread.run_sync(self._look, accounts, limiter=self._threads))
            except MidsourceError as exc:
                log.warning("feed_not_seen", action="feed_not_seen", cause=str(exc))
                pause = FAILED_SECONDS
            except Exception:  # a fault of ours in one look must not end the web process
                log.exception("bug", action="bug")
                pause = FAILED_SECONDS
            await asyncio.sleep(pause)

    def _look(self, accounts: Sequence[int]) -> dict[int, tuple[int, bool]]:
        with self._database.connection() as conn:
            return feed.heads(conn, accounts)

    def _wake(self, heads: Mapping[int, tuple[int, bool]]) -> None:
        for waiter in self._waiters:
            seq, unnumbered = heads.get(waiter.account_id, (0, False))
            if unnumbered or seq > waiter.seq:
                waiter.woken.set()
