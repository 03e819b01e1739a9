"""The circuit breaker of a technical workflow: what it waits for, until when, and the command that ends the wait. Pure.

Closed: nothing failed last. Open: it failed, and its next try waits (ticks.back_off): no tick comes meanwhile. Trying: the run
that decides is under way or due. One success closes it; so does a restart by an operator.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from midsource.engine.records import RunRow, WorkflowRow
from midsource.model.errors import Bug, Conflict, Failed, MidsourceError, RemoteUnavailable, Unhealthy
from midsource.store.database import STATEMENT_SECONDS, StatementTimeout, StorageFull


class Circuit(StrEnum):
    """How the breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    TRYING = "trying"


class WaitsFor(StrEnum):
    """What must change before the next try can succeed; the console has a text for each."""

    REMOTE = "remote"
    DATABASE = "database"
    TIME_LIMIT = "time_limit"
    SPACE = "space"
    WRITER = "writer"
    CAUSE = "cause"
    FAULT = "fault"


SAID: Mapping[WaitsFor, str] = MappingProxyType(
    {
        WaitsFor.REMOTE: "the other side to answer",
        WaitsFor.DATABASE: "the database to answer",
        WaitsFor.TIME_LIMIT: "a smaller step to pass within the time limit",
        WaitsFor.SPACE: "free space on the disk of the database",
        WaitsFor.WRITER: "another writer to give up the same rows",
        WaitsFor.CAUSE: "the cause in its last error to be mended",
        WaitsFor.FAULT: "a fault of midsource to be corrected",
    }
)
_FIGURES = re.compile(r"\d+")
RUNS_LOOKED_AT = 10
"""For whether the last ones failed alike."""
MAX_STATEMENT_SECONDS = 480
"""What no statement of a workflow needs; a slice that says nothing for 900 s counts as lost."""
ALIKE = 2
"""Failures of one shape in a row from which a restart says what it will do differently."""
_CLASSES: Mapping[WaitsFor, type[MidsourceError]] = MappingProxyType(
    {
        WaitsFor.REMOTE: RemoteUnavailable,
        WaitsFor.DATABASE: Unhealthy,
        WaitsFor.TIME_LIMIT: StatementTimeout,
        WaitsFor.SPACE: StorageFull,
        WaitsFor.WRITER: Conflict,
        WaitsFor.FAULT: Bug,
    }
)
_BY_CLASS: Mapping[str, WaitsFor] = MappingProxyType(
    {kind.__name__: waits for waits, kind in _CLASSES.items()} | {"LinkFailure": WaitsFor.REMOTE}
)
_OURS = frozenset({"Failed", "RemoteRefused", "NotAMid", "UserError", "ConfigError", "NotFound", ""})


@dataclass(frozen=True, slots=True)
class Breaker:
    """How it stands. ``until`` None: nothing is waited for by the clock. ``command`` ends the wait."""

    circuit: Circuit
    failures: int
    waits_for: WaitsFor | None = None
    until: datetime | None = None
    command: str = ""

    def __str__(self) -> str:
        """Return the sentence an operator reads; '' where it is closed."""
        if self.circuit is Circuit.CLOSED or self.waits_for is None:
            return ""
        times = "once" if self.failures == 1 else f"{self.failures} times in a row"
        wait = f"until {self.until:%Y-%m-%d %H:%M:%S} UTC" if self.until else "and is being tried now"
        return f"failed {times}; waits for {SAID[self.waits_for]} {wait}; `{self.command}` ends the wait"


def breaker(row: WorkflowRow, now: datetime) -> Breaker:
    """Say how the breaker of a workflow stands at ``now``."""
    if not row.failed:
        return Breaker(Circuit.CLOSED, 0)
    waiting = row.not_before is not None and row.not_before > now and row.state.is_on_schedule
    return Breaker(
        Circuit.OPEN if waiting else Circuit.TRYING,
        row.consecutive_failures,
        waits_for(row.error_class),
        row.not_before if waiting else None,
        f"midsource workflow restart {row.name}",
    )


def waits_for(error_class: str) -> WaitsFor:
    """Say what a failure of that class waits for; a class we did not foresee is a fault of ours."""
    return _BY_CLASS.get(error_class) or (WaitsFor.CAUSE if error_class in _OURS else WaitsFor.FAULT)


def common(error_classes: Iterable[str]) -> type[MidsourceError]:
    """Return the class that a run is to fail with whose parts failed with these: one that waits for what all of them wait for. Pure.

    Where they wait for different things, or for causes to be mended, it is Failed: what helps one would not help the run.
    """
    found = {waits_for(name) for name in error_classes}
    return _CLASSES.get(found.pop(), Failed) if len(found) == 1 else Failed


def failures_alike(runs: list[RunRow]) -> int:
    """Return how many of the newest ``runs`` (newest first) failed in a row with the same error, figures apart.

    Those that go on and those that were aborted say nothing about it.
    """
    ended = [run for run in runs if run.outcome in ("finished", "failed")]
    count = 0
    for run in ended:
        if run.outcome != "failed" or _shape(run) != _shape(ended[0]):
            break
        count += 1
    return count


def different(row: WorkflowRow, runs: list[RunRow]) -> str:
    """Say what a restart does differently from the last runs, where those failed alike; '' otherwise. Pure."""
    alike = failures_alike(runs)
    if alike < ALIKE:
        return ""
    what = {
        WaitsFor.TIME_LIMIT: f"each statement has {statement_seconds(runs)} s instead of {STATEMENT_SECONDS}",
        WaitsFor.REMOTE: "it is tried at once and then 2 s to 1 h apart, until the other side answers",
        WaitsFor.DATABASE: "it is tried at once and then 2 s to 1 h apart, until the database answers",
        WaitsFor.SPACE: "nothing, until there is space: free some first",
        WaitsFor.WRITER: "it begins when no other restarted workflow does",
        WaitsFor.CAUSE: "nothing, until the cause is mended",
        WaitsFor.FAULT: "nothing: report the fault with the journal",
    }[waits_for(row.error_class)]
    return f"the last {alike} runs failed alike ({row.error_class or 'no class'}: {row.cause[:200]}); this time {what}"


def statement_seconds(runs: list[RunRow]) -> int:
    """Return the time limit of the next run's statements: doubled for each of the newest ``runs`` that ran into it. Pure."""
    last = next((run for run in runs if run.outcome in ("finished", "failed")), None)
    if last is None or waits_for(last.error_class) is not WaitsFor.TIME_LIMIT:
        return STATEMENT_SECONDS
    return min(MAX_STATEMENT_SECONDS, STATEMENT_SECONDS << failures_alike(runs))


def _shape(run: RunRow) -> tuple[str, str]:
    return run.error_class, _FIGURES.sub("#", run.error[:200])
