"""States of a technical workflow (numbers: the field's, spec/midsourcing 4.3). *Failed* is a flag beside the state.

Who moves each on: EDITED, PAUSED, FINISHED the operator · STARTED the leader at its tick · RUNNING the slice that ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import TypeAlias


class WorkflowState(IntEnum):
    """Where a technical workflow stands."""

    EDITED = 0
    RUNNING = 2
    STARTED = 11  # waiting for its tick
    PAUSED = 13
    FINISHED = 20  # what stop gives

    @property
    def label(self) -> str:
        """The word an operator reads."""
        return self.name.lower()


class WorkflowEvent(StrEnum):
    """What can happen to it."""

    START = "start"
    TICK = "tick"
    SETTLED = "settled"
    PAUSE = "pause"
    STOP = "stop"


S: TypeAlias = WorkflowState
E: TypeAlias = WorkflowEvent

TRANSITIONS: Mapping[S, Mapping[E, S]] = MappingProxyType(
    {
        S.EDITED: {E.START: S.STARTED},
        S.STARTED: {E.TICK: S.RUNNING, E.PAUSE: S.PAUSED, E.STOP: S.FINISHED, E.START: S.STARTED},
        S.RUNNING: {E.SETTLED: S.STARTED, E.PAUSE: S.PAUSED, E.STOP: S.FINISHED, E.START: S.RUNNING},
        S.PAUSED: {E.START: S.STARTED, E.STOP: S.FINISHED},
        S.FINISHED: {E.START: S.STARTED, E.STOP: S.FINISHED},
    }
)
"""(state, event) to the next state; what is absent is refused."""


def next_state(state: WorkflowState, event: WorkflowEvent) -> WorkflowState | None:
    """Return the state that ``event`` moves ``state`` to, or None where it is refused."""
    return TRANSITIONS[state].get(event)
