"""Where connections take their messages from: a bounded queue shared by the connections to one destination.

Taking never waits, so that a connection can look for the next message between two bytes; a connection that found none
leaves a callback and is called once when there may be one. Putting waits while the queue is full. One event loop only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from midsource.smtp.events import Transaction

QUEUE_MESSAGES = 500
"""As many as a dispatch batch has: at 20 kB a message this is 10 MB."""


class Source(Protocol):
    """What a connection asks for work."""

    @property
    def ended(self) -> bool:
        """Whether nothing is left and nothing more will come."""

    def take(self) -> Transaction | None:
        """Return the next message, None when there is none at the moment."""

    def when_more(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, later and from the loop, when `take` or `ended` may say something else."""


class TransactionQueue:
    """The `Source` that is filled from outside."""

    def __init__(self, transactions: Iterable[Transaction] = (), *, limit: int = QUEUE_MESSAGES) -> None:
        self._waiting = deque(transactions)
        self._limit = limit
        self._closed = False
        self._callbacks: list[Callable[[], None]] = []
        self._room = asyncio.Event()

    def __repr__(self) -> str:
        """Show how much waits."""
        return f"<TransactionQueue {len(self._waiting)} of {self._limit}{', closed' if self._closed else ''}>"

    @property
    def ended(self) -> bool:
        """Whether it is closed and empty."""
        return self._closed and not self._waiting

    def take(self) -> Transaction | None:
        """Return the oldest message, None when empty."""
        if not self._waiting:
            return None
        self._room.set()
        return self._waiting.popleft()

    def when_more(self, callback: Callable[[], None]) -> None:
        """Remember ``callback`` until the next put or close."""
        self._callbacks.append(callback)

    async def put(self, transaction: Transaction) -> None:
        """Add a message at the end; waits while the queue is full. Raises ValueError when it is closed."""
        while len(self._waiting) >= self._limit and not self._closed:
            self._room.clear()
            await self._room.wait()
        if self._closed:
            raise ValueError("the queue is closed")
        self._waiting.append(transaction)
        self._wake()

    def put_back(self, transactions: Iterable[Transaction]) -> None:
        """Add at the front what a connection returned untouched; allowed on a closed queue, not bounded by the limit."""
        self._waiting.extendleft(reversed(tuple(transactions)))
        self._wake()

    def close(self) -> None:
        """Say that nothing more is put; what waits is still taken."""
        self._closed = True
        self._room.set()
        self._wake()

    def drain(self) -> tuple[Transaction, ...]:
        """Close, and return what nobody took."""
        left = tuple(self._waiting)
        self._waiting.clear()
        self.close()
        return left

    def _wake(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        if callbacks:
            loop = asyncio.get_running_loop()
            for callback in callbacks:
                loop.call_soon(callback)
