"""Starts of one turn of the event loop, noted together: one write into the journal instead of one a message.

Order of events: connections that may send a body `add` its start during a turn; at the end of the turn all starts are
written; then each is told to go, or, where the journal takes no write, why not. A connection that ends in between is
`forgotten`: no byte of its body left, so there is nothing to note. At most one start a connection waits. One event
loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from midsource.mid.journal import Journal, JournalFull
from midsource.mid.records import Start

Go: TypeAlias = Callable[[BaseException | None], None]


class Starts:
    """What begins in this turn, by token."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, tuple[Start, Go]] = {}

    def add(self, token: int, start: Start, go: Go) -> None:
        """Have ``start`` noted and call ``go`` then: with None, or with JournalFull: then the body must not leave."""
        if not self._waiting:
            self._loop.call_soon(self._note)
        self._waiting[token] = start, go

    def forget(self, token: int) -> None:
        """Note nothing about a message that ended before this turn did."""
        self._waiting.pop(token, None)

    def _note(self) -> None:
        waiting, self._waiting = self._waiting, {}
        error: JournalFull | None = None
        try:
            self._journal.started(*[start for start, _ in waiting.values()])
        except JournalFull as full:
            error = full
        for _, go in waiting.values():
            go(error)
