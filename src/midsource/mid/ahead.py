"""Renders ahead of the connections: a few threads, a bounded stock of finished messages for each destination.

Bounds: RENDER_AHEAD messages a destination and RENDERED_BYTES in all (a destination with nothing ready gets a few all
the same, so that memory taken by others never stops it); MAX_RENDERING batches in the pool. Destinations take turns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor

from midsource.mid.dispatch import Message
from midsource.mid.held import Destination, Fate, Held
from midsource.mid.render import Result, Tokens, render
from midsource.mid.shelf import Shelf
from midsource.model.clock import Clock

RENDER_BATCH = 50
RENDER_AHEAD = 100
RENDERED_BYTES = 14 * 2**20
MAX_RENDERING = 4
"""Two threads, each with its next batch waiting."""
SCARCE_BATCH = 4
"""Rendered at a time for a destination with none, while the memory is taken."""


class RenderAhead:
    """Fills destinations. ``finished(destination, held, pairs)`` is called in the loop with what a batch came to."""

    def __init__(
        self,
        shelf: Shelf,
        pool: Executor,
        tokens: Tokens,
        clock: Clock,
        finished: Callable[[Destination, Held, list[tuple[Message, Result]]], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._shelf = shelf
        self._pool = pool
        self._tokens = tokens
        self._clock = clock
        self._finished = finished
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._hungry: deque[Destination] = deque()
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False

    def feed(self, dest: Destination) -> None:
        """Have more of ``dest`` rendered, as far as it wants and there is room."""
        if dest.fresh and len(dest.ready) + dest.rendering < RENDER_AHEAD and dest not in self._hungry:
            self._hungry.append(dest)
        while self._hungry and self._running < MAX_RENDERING and not self._stopping:
            self._next(self._hungry.popleft())

    def stop(self) -> None:
        """Render nothing more than is in the pool."""
        self._stopping = True

    async def at_rest(self) -> None:
        """Return when nothing is in the pool: its batches can be given back only then."""
        await self._idle.wait()

    def _next(self, dest: Destination) -> None:
        scarce = self._shelf.bytes > RENDERED_BYTES
        if not dest.fresh or (scarce and dest.ready):
            return
        held = dest.fresh[0][0]
        messages: list[Message] = []
        while dest.fresh and len(messages) < (SCARCE_BATCH if scarce else RENDER_BATCH) and dest.fresh[0][0] is held:
            messages.append(dest.fresh.popleft()[1])
        dest.rendering += len(messages)
        held.busy += len(messages)
        self._running += 1
        self._idle.clear()
        now = self._clock.now()
        future = self._loop.run_in_executor(self._pool, render, held.prepared, messages, self._tokens, now)
        future.add_done_callback(lambda done: self._done(dest, held, messages, done))

    def _done(self, dest: Destination, held: Held, messages: list[Message], done: asyncio.Future[list[Result]]) -> None:
        self._running -= 1
        dest.rendering -= len(messages)
        held.busy -= len(messages)
        if not self._running:
            self._idle.set()
        if done.cancelled():
            held.fate = Fate.LEAVE if held.fate is Fate.SEND else held.fate
            return
        if (error := done.exception()) is not None:
            self._failed(error)
            return
        self._finished(dest, held, list(zip(messages, done.result(), strict=True)))
        self.feed(dest)
