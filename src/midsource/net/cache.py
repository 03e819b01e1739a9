"""Answers kept for as long as they say, and asked for once however many want them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from midsource.model.clock import Clock

V = TypeVar("V")


class ExpiringCache(Generic[V]):
    """At most ``limit`` values by name; the one unused longest goes first. One event loop only."""

    def __init__(self, limit: int, clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._kept: OrderedDict[str, tuple[V, float]] = OrderedDict()
        self._asking: dict[str, asyncio.Future[None]] = {}

    def __len__(self) -> int:
        """Return how many values are kept, expired ones among them."""
        return len(self._kept)

    async def get(self, name: str, ask: Callable[[str], Awaitable[tuple[V, float]]]) -> V:
        """Return the value of ``name``; where none lives, ``ask`` for it and the seconds to keep it."""
        while True:
            kept = self._kept.get(name)
            if kept is not None and kept[1] > self._clock.boot_seconds():
                self._kept.move_to_end(name)
                return kept[0]
            other = self._asking.get(name)
            if other is None:
                return await self._ask(name, ask)
            # Whoever asks may be cancelled or fail; then the value is still missing and one of the waiting asks.
            await asyncio.shield(other)

    async def _ask(self, name: str, ask: Callable[[str], Awaitable[tuple[V, float]]]) -> V:
        done = asyncio.get_running_loop().create_future()
        self._asking[name] = done
        try:
            value, seconds = await ask(name)
            self._kept[name] = (value, self._clock.boot_seconds() + seconds)
            self._kept.move_to_end(name)
            if len(self._kept) > self._limit:
                self._kept.popitem(last=False)
            return value
        finally:
            del self._asking[name]
            done.set_result(None)
