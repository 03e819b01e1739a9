"""Delivery states and their transitions (numbers: the field's, spec/delivery 1.7).

Theory of operation. Marketing owns the state until the hand-over is finalised; from *start pending* on, the mid's state
is the truth and marketing's copy follows through the counters feed. ``TRANSITIONS`` is the only place that says which
event moves which state; the database CHECK and docs/reference/states.md are generated from it.

Who moves each state on: EDITED the operator (prepare) · TARGET_READY, PERSONALISATION the preparation job ·
MESSAGE_FINALISED the hand-over job · READY the operator (send) or the schedule · START_PENDING the mid's dispatch ·
IN_PROGRESS, RETRY the mid when nothing is pending · PAUSE_REQUESTED, PAUSING the mid · PAUSED the operator ·
STOPPED, FAILED, FINISHED nobody: final.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import TypeAlias


class DeliveryState(IntEnum):
    """States of a delivery, with the field's numbers."""

    EDITED = 0
    TARGET_READY = 15
    PERSONALISATION = 22
    MESSAGE_FINALISED = 25
    PREPARATION_FAILED = 37
    READY = 45
    START_PENDING = 51
    IN_PROGRESS = 55
    RETRY = 62
    PAUSE_REQUESTED = 71
    PAUSING = 72
    PAUSED = 75
    STOPPED = 85
    FAILED = 87
    FINISHED = 95

    @property
    def label(self) -> str:
        """The word an operator reads."""
        return self.name.replace("_", " ").lower()

    @property
    def is_final(self) -> bool:
        """Whether no event moves it any more."""
        return self in FINAL

    @property
    def sends(self) -> bool:
        """Whether a mid may send messages of a delivery in this state."""
        return self in SENDING


class DeliveryEvent(StrEnum):
    """What can happen to a delivery."""

    PREPARE = "prepare"  # an operator asks for (another) preparation
    TARGETED = "targeted"  # every targeted person has its log row
    PERSONALISE = "personalise"  # reading personalisation data, building parts
    FINALISED = "finalised"  # all parts stored, nothing sent to the mid yet or not all
    HANDED_OVER = "handed_over"  # the mid confirmed count and hash
    PREPARATION_ERROR = "preparation_error"
    START = "start"
    FIRST_MESSAGE = "first_message"
    ONLY_RETRIES_LEFT = "only_retries_left"
    MESSAGES_READY = "messages_ready"
    NOTHING_PENDING = "nothing_pending"
    PAUSE = "pause"
    PAUSED = "paused"
    RESUME = "resume"
    STOP = "stop"
    BREAK = "break"  # infrastructure failure that ends the delivery


S: TypeAlias = DeliveryState
E: TypeAlias = DeliveryEvent

_PREPARABLE = {S.EDITED, S.TARGET_READY, S.PERSONALISATION, S.MESSAGE_FINALISED, S.PREPARATION_FAILED}
FINAL = frozenset({S.STOPPED, S.FAILED, S.FINISHED})
SENDING = frozenset({S.START_PENDING, S.IN_PROGRESS, S.RETRY})

_PREPARATION: Mapping[S, Mapping[E, S]] = {
    S.EDITED: {E.TARGETED: S.TARGET_READY},
    S.TARGET_READY: {E.PERSONALISE: S.PERSONALISATION},
    S.PERSONALISATION: {E.FINALISED: S.MESSAGE_FINALISED},
    S.MESSAGE_FINALISED: {E.HANDED_OVER: S.READY},
    S.PREPARATION_FAILED: {E.PREPARE: S.EDITED, E.STOP: S.STOPPED},
    S.READY: {E.START: S.START_PENDING, E.STOP: S.STOPPED},
}
_EXECUTION: Mapping[S, Mapping[E, S]] = {
    S.START_PENDING: {E.FIRST_MESSAGE: S.IN_PROGRESS, E.NOTHING_PENDING: S.FINISHED},
    S.IN_PROGRESS: {E.ONLY_RETRIES_LEFT: S.RETRY, E.NOTHING_PENDING: S.FINISHED},
    S.RETRY: {E.MESSAGES_READY: S.IN_PROGRESS, E.NOTHING_PENDING: S.FINISHED},
    # Paused until its validity was over: what waited is cancelled, and it ends (mid/expiry.py).
    S.PAUSE_REQUESTED: {E.PAUSED: S.PAUSED, E.RESUME: S.IN_PROGRESS, E.NOTHING_PENDING: S.FINISHED},
    S.PAUSING: {E.PAUSED: S.PAUSED, E.RESUME: S.IN_PROGRESS, E.NOTHING_PENDING: S.FINISHED},
    S.PAUSED: {E.RESUME: S.IN_PROGRESS, E.NOTHING_PENDING: S.FINISHED},
    S.STOPPED: {},
    S.FAILED: {},
    S.FINISHED: {},
}


def _table() -> Mapping[S, Mapping[E, S]]:
    table = {state: dict(moves) for part in (_PREPARATION, _EXECUTION) for state, moves in part.items()}
    for state in _PREPARABLE - {S.PREPARATION_FAILED}:
        table[state][E.PREPARATION_ERROR] = S.PREPARATION_FAILED
        table[state][E.PREPARE] = S.EDITED
        table[state][E.STOP] = S.STOPPED
    for state in SENDING:
        table[state][E.PAUSE] = S.PAUSE_REQUESTED
    for state in SENDING | {S.PAUSE_REQUESTED, S.PAUSING, S.PAUSED}:
        table[state][E.STOP] = S.STOPPED
        table[state][E.BREAK] = S.FAILED
    return MappingProxyType({state: MappingProxyType(moves) for state, moves in table.items()})


TRANSITIONS: Mapping[S, Mapping[E, S]] = _table()
"""(state, event) to the next state; what is absent is refused."""


def next_state(state: DeliveryState, event: DeliveryEvent) -> DeliveryState | None:
    """Return the state that ``event`` moves ``state`` to, or None where the event is refused in that state."""
    return TRANSITIONS[state].get(event)


def states_accepting(event: DeliveryEvent) -> tuple[DeliveryState, ...]:
    """Return the states in which ``event`` is allowed: the guard of a compare-and-set."""
    return tuple(state for state, moves in TRANSITIONS.items() if event in moves)
