"""How technical workflows do, for lists: who failed, who is late, who is held, worst first. Pure but for ``summaries``.

*Late*: on its schedule, and two ticks have passed since the last success (or since it was made) without another. A run
that is under way and gives signs of life is not late, however long it takes: a catch-up of years, or the run that waits
at the mid while a delivery is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from midsource.engine import circuit, records
from midsource.engine.circuit import Breaker
from midsource.engine.records import RunRow, WorkflowRow
from midsource.engine.ticks import second_tick
from midsource.model.errors import UserError
from midsource.model.workflow import WorkflowState
from midsource.store.database import Connection

RUNS_SHOWN = 20
"""Runs whose durations a list draws."""
GRACE = timedelta(minutes=1)
"""A tick, its hand-over and a short run fit into this."""
LIVELY = timedelta(minutes=2)
"""A slice ends within 60 s and says so; twice that without a word is no sign of life."""


class Flag(StrEnum):
    """What a list says beside the state, worst first."""

    FAILED = "failed"
    LATE = "late"
    PAUSED = "paused"
    STOPPED = "stopped"
    FINE = "fine"


@dataclass(frozen=True, slots=True)
class Summary:
    """One workflow with its newest runs: ``open`` is the unfinished one, ``ended`` the others, newest first."""

    row: WorkflowRow
    open: RunRow | None
    ended: Sequence[RunRow]
    flag: Flag
    breaker: Breaker
    next_ticks: Sequence[datetime]
    """The next five; the end of the breaker's wait is not among them."""
    success_age: timedelta | None
    """Since its last success; None where it never succeeded."""

    @property
    def seconds(self) -> Sequence[float]:
        """Durations of the last runs that ended, oldest first."""
        return [run.seconds for run in reversed(self.ended) if run.seconds is not None]

    @property
    def last(self) -> RunRow | None:
        """The last run that ended."""
        return self.ended[0] if self.ended else None


def summaries(conn: Connection, now: datetime) -> list[Summary]:
    """Return every workflow of this instance, worst first."""
    latest = records.latest_runs(conn, RUNS_SHOWN + 1)
    return sorted(
        (summary(row, latest.get(row.name, []), now) for row in records.listing(conn)),
        key=lambda found: (list(Flag).index(found.flag), found.row.name),
    )


def summary(row: WorkflowRow, runs: Sequence[RunRow], now: datetime) -> Summary:
    """Judge one workflow by its row and its newest ``runs``, newest first."""
    unfinished = next((run for run in runs if run.outcome is None), None)
    ended = [run for run in runs if run.outcome is not None][:RUNS_SHOWN]
    age = None if row.last_success_at is None else now - row.last_success_at
    flag, breaker = _flag(row, unfinished, now), circuit.breaker(row, now)
    return Summary(row, unfinished, ended, flag, breaker, row.next_ticks(now), age)


def is_late(row: WorkflowRow, unfinished: RunRow | None, now: datetime) -> bool:
    """Tell whether two ticks have passed without a success, and nothing is under way."""
    since = row.last_success_at or row.created_at
    if not row.state.is_on_schedule or since is None:
        return False
    if unfinished is not None and unfinished.beat_at is not None and now - unfinished.beat_at < LIVELY:
        return False
    try:
        second = second_tick(row.plan, since)
    except UserError:  # the leader says so on the workflow itself
        return False
    return second is not None and now > second + GRACE


def _flag(row: WorkflowRow, unfinished: RunRow | None, now: datetime) -> Flag:
    if row.failed:
        return Flag.FAILED
    if row.state is WorkflowState.PAUSED:
        return Flag.PAUSED
    if not row.state.is_on_schedule:
        return Flag.STOPPED
    return Flag.LATE if is_late(row, unfinished, now) else Flag.FINE
