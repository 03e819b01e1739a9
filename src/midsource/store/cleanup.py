"""What a step of `cleanup` is, as a value; each role lists its own (marketing/cleanup.py, mid/cleanup.py).

A step removes one kind of thing, a bounded page at a time, each page a transaction of its own; it knows nothing of the
others. ``count`` says what a page would find, without changing anything: the dry run and the forecast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from midsource.store.database import Connection, Database

STEP_SECONDS = 600.0
"""What a step may use of one run; the rest is the next run's."""
COUNTED_AT_MOST = 1_000_000
"""Rows counted for a forecast: more are said to be at least so many."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What a step works with. ``kept``: how long its things are kept, by its option; ``home``: of this machine."""

    database: Database
    home: Path
    instance: str
    now: datetime
    kept: timedelta

    @property
    def before(self) -> datetime:
        """What is older than this may go."""
        return self.now - self.kept


@dataclass(frozen=True, slots=True)
class Removable:
    """What a step would remove now. ``next_at``: when it next finds something, None: not known, or now; ``note``: what holds it up.

    ``rows`` stops at COUNTED_AT_MOST. ``bytes`` 0: the space is used again, not given back.
    """

    rows: int = 0
    bytes: int = 0
    next_at: datetime | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Removed:
    """What a page removed. ``more``: the next page may find something; ``said``: warnings for the journal."""

    rows: int = 0
    bytes: int = 0
    more: bool = False
    said: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One step. ``option``: names how long its things are kept; without one it is ``kept``.

    ``removes``: what goes, as a clause: "delivery logs of months that are over".
    """

    name: str
    removes: str
    count: Callable[[Scene], Removable]
    page: Callable[[Scene], Removed]
    option: str = ""
    kept: timedelta = timedelta(0)
    seconds: float = STEP_SECONDS


def next_time(oldest: datetime | None, scene: Scene) -> datetime | None:
    """Return when the oldest thing that is kept may go."""
    return None if oldest is None else oldest + scene.kept


def size_of(conn: Connection, table: str) -> int:
    """Return the bytes of a table with its indexes and its long texts."""
    row = conn.execute("select coalesce(pg_total_relation_size(to_regclass(%s)), 0)", (table,)).fetchone()
    return int(row[0]) if row else 0
