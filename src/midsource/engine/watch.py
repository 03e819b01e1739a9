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

from midsource.engine import admin
from midsource.engine.admin import RunRow, WorkflowRow
from midsource.engine.ticks import next_tick
from midsource.model.errors import UserError
from midsource.model.workflow import WorkflowState
from midsource.store.database import Connection

RUNS_SHOWN = 20
"""Runs whose durations a list draws."""
GRACE = timedelta(minutes=1)
"""A tick, its hand-over and a short run fit into this."""
LIVELY = timedelta(minutes=2)
"""A slice ends within 60 s and says so; twice that without a word is no sign of life."""
_ON_SCHEDULE = frozenset({WorkflowState.STARTED, WorkflowState.RUNNING})


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

    @property
    def last(self) -> RunRow | None:
        """The last run that ended."""
        return self.ended[0] if self.ended else None


def summaries(conn: Connection, now: datetime) -> list[Summary]:
    """Return every workflow of this instance, worst first."""
    latest = admin.latest_runs(conn, RUNS_SHOWN + 1)
    return sorted(
        (summary(row, latest.get(row.name, []), now) for row in admin.listing(conn)),
        key=lambda found: (list(Flag).index(found.flag), found.row.name),
    )


def summary(row: WorkflowRow, runs: Sequence[RunRow], now: datetime) -> Summary:
    """Judge one workflow by its row and its newest ``runs``, newest first."""
    unfinished = next((run for run in runs if run.outcome is None), None)
    ended = [run for run in runs if run.outcome is not None][:RUNS_SHOWN]
    return Summary(row, unfinished, ended, _flag(row, unfinished, now))


def is_late(row: WorkflowRow, unfinished: RunRow | None, now: datetime) -> bool:
    """Tell whether two ticks have passed without a success, and nothing is under way."""
    since = row.last_success_at or row.created_at
    if row.state not in _ON_SCHEDULE or since is None:
        return False
    if unfinished is not None and unfinished.beat_at is not None and now - unfinished.beat_at < LIVELY:
        return False
    try:
        second = next_tick(row.schedule, row.zone, next_tick(row.schedule, row.zone, since))
    except UserError:  # the leader says so on the workflow itself
        return False
    return now > second + GRACE


def _flag(row: WorkflowRow, unfinished: RunRow | None, now: datetime) -> Flag:
    if row.failed:
        return Flag.FAILED
    if row.state is WorkflowState.PAUSED:
        return Flag.PAUSED
    if row.state not in _ON_SCHEDULE:
        return Flag.STOPPED
    return Flag.LATE if is_late(row, unfinished, now) else Flag.FINE
