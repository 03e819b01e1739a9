"""What the engine runs, as values and protocols: jobs and technical workflows, both in slices.

A *job* is work that somebody asked for about one delivery (prepare, hand over, order). A *technical workflow* is due by
its schedule. The body of either does one bounded slice and says what comes next; the truth lies in the tables it wrote,
not in the engine's checkpoint, so a slice that was cut by a crash is simply run again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from midsource.model.clock import Clock
from midsource.store.database import Database, scalar

SLICE_SECONDS = 60
"""A slice ends by itself after this long (design 3): cancelling and taking over never wait longer."""


class Cancelled(Exception):
    """The run was stopped or its lease was lost; raised by ``Context.beat``. Leave the database transaction and go."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a slice may use. ``subject`` is the delivery id of a job, 0 for a technical workflow."""

    database: Database
    clock: Clock
    home: Path
    instance: str
    subject: int
    say: Callable[[str, str], None]
    """``say(level, line)`` appends one line to the journal of the run; level info, warning or error. Never raises."""
    beat: Callable[[], None]
    """Call between bounded steps: renews the lease, and raises Cancelled when the run must end."""
    progress: Callable[[dict[str, Any]], None]
    """``progress({"done": 17, "of": 40, "unit": "parts", "phase": "hand-over"})``: what ``--wait`` shows. Never raises."""
    began_at: datetime | None = None
    """When the first slice of this run or job began, by the database's clock; None: no engine runs it."""


def run_began(context: Context) -> datetime:
    """Return when the run of this slice began, by the database's clock; where no engine runs it, now."""
    if context.began_at is not None:
        return context.began_at
    with context.database.connection() as conn:
        now: datetime = scalar(conn, "select clock_timestamp()")
    return now


@dataclass(frozen=True, slots=True)
class Report:
    """What one slice did. ``more_after_seconds``: None when there is nothing left, 0 to go on at once, else a pause."""

    rows_read: int = 0
    rows_written: int = 0
    rows_refused: int = 0
    window_from: str = ""
    window_to: str = ""
    more_after_seconds: float | None = None
    then: tuple[str, ...] = ()
    """Kinds of jobs to enqueue for the same subject when this one is finished: ('handover',)."""
    note: str = ""
    failing: str | None = None
    """Of a technical workflow that goes on: what fails meanwhile, so that it is marked failed; '' marks it sound again."""


JobBody: TypeAlias = Callable[[Context], Report]


@dataclass(frozen=True, slots=True)
class JobKind:
    """A kind of job: its name ('prepare', 'handover', 'order') and its body."""

    name: str
    body: JobBody


class TechnicalWorkflow(Protocol):
    """The one shape of modules in ``workflows/``; they also have a frozen ``Settings`` and a man-page docstring."""

    NAME: str
    LABEL: str
    SCHEDULE: str
    """Default schedule: a text of model/schedule.py, in UTC. Name, label, schedule and roles stand in model/technical.py."""
    ROLES: tuple[str, ...]

    def run_once(self, context: Context) -> Report:
        """Do one slice."""


@dataclass(frozen=True, slots=True)
class Works:
    """Everything a worker process can run: composed once, in ``cli/worker.py``."""

    jobs: tuple[JobKind, ...] = ()
    workflows: tuple[Any, ...] = field(default=())
    """Modules of the shape ``TechnicalWorkflow``."""
