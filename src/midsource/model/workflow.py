"""States of a technical workflow (numbers: the field's, spec/midsourcing 4.3). *Failed* is a flag beside the state.

Who moves each on: EDITED, PAUSED, FINISHED the operator · STARTED the leader at its tick · RUNNING the slice that ends. Code
moves a workflow by this table alone (engine/moves.py), the database checks the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import TypeAlias


class WorkflowState(IntEnum):
    """Where a technical workflow stands."""

    EDITED = 0  # not started yet
    RUNNING = 2  # a run is under way
    STARTED = 11  # waiting for its tick
    PAUSED = 13  # an operator holds it
    FINISHED = 20  # what stop gives, and the end of its validity

    @property
    def label(self) -> str:
        """The word an operator reads."""
        return self.name.lower()

    @property
    def is_on_schedule(self) -> bool:
        """Whether ticks come, and slices are handed out."""
        return self in ON_SCHEDULE


class WorkflowEvent(StrEnum):
    """What can happen to it."""

    START = "start"
    TICK = "tick"
    """The first slice of a run begins."""
    SETTLED = "settled"
    """A run ends."""
    PAUSE = "pause"
    STOP = "stop"
    RESTART = "restart"
    EXPIRE = "expire"
    """Its validity is over, or its number of runs is used up."""


class RunOutcome(StrEnum):
    """How a run ended: aborted by an operator, a kill, or a worker that lost it."""

    FINISHED = "finished"
    FAILED = "failed"
    ABORTED = "aborted"


S: TypeAlias = WorkflowState
E: TypeAlias = WorkflowEvent

ON_SCHEDULE = frozenset({S.STARTED, S.RUNNING})

TRANSITIONS: Mapping[S, Mapping[E, S]] = MappingProxyType(
    {
        S.EDITED: {E.START: S.STARTED, E.STOP: S.FINISHED, E.RESTART: S.STARTED},
        S.STARTED: {
            E.TICK: S.RUNNING,
            E.SETTLED: S.STARTED,  # run now while it is held, started again before the end of that run
            E.PAUSE: S.PAUSED,
            E.STOP: S.FINISHED,
            E.START: S.STARTED,
            E.RESTART: S.STARTED,
            E.EXPIRE: S.FINISHED,
        },
        S.RUNNING: {
            E.TICK: S.RUNNING,  # the next slice of the same run
            E.SETTLED: S.STARTED,
            E.PAUSE: S.PAUSED,
            E.STOP: S.FINISHED,
            E.START: S.RUNNING,
            E.RESTART: S.STARTED,
        },
        S.PAUSED: {E.SETTLED: S.PAUSED, E.START: S.STARTED, E.STOP: S.FINISHED, E.RESTART: S.STARTED},
        S.FINISHED: {E.SETTLED: S.FINISHED, E.START: S.STARTED, E.STOP: S.FINISHED, E.RESTART: S.STARTED},
    }
)
"""(state, event) to the next state; what is absent is refused."""


def next_state(state: WorkflowState, event: WorkflowEvent) -> WorkflowState | None:
    """Return the state that ``event`` moves ``state`` to, or None where it is refused."""
    return TRANSITIONS[state].get(event)
