"""How many rows to ask for in the next page of a feed: halved by a failure, grown by success, never stuck.

A page that ran into a time-out is halved and asked again at once; each page that passes grows the next one by a quarter,
but not beyond three quarters of a size that failed, until enough pages have passed to try once more. So a mid that can
answer 700 rows in time settles a little below 700 instead of failing at every other page.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MIN_ROWS = 1
"""One row is the smallest page: a mid that cannot answer one row is down, not slow."""
FIRST_ROWS = 5_000
"""Half of the largest page: large enough to be quick at once, small enough for a loaded mid."""
MAX_ROWS = 10_000
"""Half of what the link takes (wire/schema.py): 20 000 were no faster and cost a worker 7 MiB, two pages being in its hands."""
FORGIVE = 1.03
"""Each good page raises the ceiling by 3 %: a failed size is tried again after about ten good pages."""
SLOW_SECONDS = 5.0
"""A page that took longer does not grow: time-outs begin at 10 to 30 s, and a slice must hold several pages."""
TOO_SLOW_SECONDS = 12.0
"""A page that took longer shrinks before it fails: a time-out costs all of its seconds and brings nothing."""


@dataclass(frozen=True, slots=True)
class Window:
    """The page size to ask for (``rows``), and the size it may grow to (``ceiling``)."""

    rows: int = FIRST_ROWS
    ceiling: int = MAX_ROWS

    def after_success(self, seconds: float = 0.0) -> Window:
        """Return the window after a page that came within ``seconds``."""
        if seconds > TOO_SLOW_SECONDS:
            return replace(self, rows=max(MIN_ROWS, self.rows * 3 // 4))
        if seconds > SLOW_SECONDS:
            return self
        ceiling = min(MAX_ROWS, max(int(self.ceiling * FORGIVE), self.ceiling + 1))
        return Window(rows=min(ceiling, max(self.rows + 1, self.rows * 5 // 4)), ceiling=ceiling)

    def after_failure(self) -> Window:
        """Return the window after a page that timed out or was cut."""
        return Window(rows=max(MIN_ROWS, self.rows // 2), ceiling=max(MIN_ROWS, self.rows * 3 // 4))

    @property
    def is_smallest(self) -> bool:
        """Whether halving does not help any more: wait instead."""
        return self.rows <= MIN_ROWS

    def at_most(self, limit: int) -> Window:
        """Return the window with a page of no more than ``limit`` rows."""
        return replace(self, rows=max(MIN_ROWS, min(self.rows, limit)))
