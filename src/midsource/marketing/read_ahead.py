"""Asks a mid for the next page of a feed while the one in hand is being written: both halves work at the same time.

One page at most is ahead, so memory stays that of two pages. It is asked for with the cursor up to which everything is
durable here (``held``), since giving a cursor back otherwise tells the mid that all before it may be forgotten. A page
that turns out not to be wanted (a pointer moved by hand, another lane's turn, the end of a slice) is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TypeAlias

from midsource.model.clock import Clock
from midsource.wire.client import DeliveryPage, LogPage
from midsource.wire.schema import GoneBefore, Rewound

Answer: TypeAlias = LogPage | DeliveryPage | Rewound | GoneBefore


@dataclass(frozen=True, slots=True)
class Asked:
    """An answer, the seconds it took, and the boot time at which it was asked for: what came later is not in it."""

    answer: Answer
    seconds: float
    at: float


class ReadAhead:
    """One stream of one mid. ``feed`` is the client's call for it. Use as a context: nothing is under way afterwards."""

    def __init__(self, feed: Callable[..., Answer], clock: Clock) -> None:
        self._feed = feed
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._ahead: tuple[str, Future[Asked]] | None = None

    def __enter__(self) -> ReadAhead:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what is under way (the client bounds it) and throw it away."""
        self._pool.shutdown(cancel_futures=True)

    def begin(self, after: str, limit: int, held: str) -> None:
        """Ask for the page after a cursor, unless one is ahead already."""
        if self._ahead is None:
            self._ahead = (after, self._pool.submit(self._ask, after=after, since=None, limit=limit, held=held))

    def take(self, after: str) -> Asked | None:
        """Return the page that was asked for after this cursor, None where there is none. Raises what the call raised."""
        if self._ahead is None or not after:
            return None
        cursor, future = self._ahead
        if cursor != after:
            if future.done():  # of another lane, or of a pointer that was moved: a lane that still wants it comes soon
                self._ahead = None
            return None
        self._ahead = None
        return future.result()

    def ask(self, **wanted: object) -> Asked:
        """Ask for a page now."""
        return self._ask(**wanted)

    def _ask(self, **wanted: object) -> Asked:
        began = self._clock.boot_seconds()
        return Asked(self._feed(**wanted), self._clock.boot_seconds() - began, began)
