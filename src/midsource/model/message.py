"""Message states, events and failure reasons (numbers: the field's, spec/delivery 1.8 and 2.7).

A message is one person's copy of one delivery. On the marketing side it is a broad-log row, on the mid a ledger row;
both read this table. DEFERRED and UNCERTAIN are ours and lie inside the field's *pending* (6).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import TypeAlias


class MessageState(IntEnum):
    """Where one message stands."""

    IGNORED = 0  # excluded at preparation, never attempted; the reason says why
    SENT = 1  # accepted by the remote server
    FAILED = 2  # refused for good, retries exhausted, or not renderable
    PENDING = 6  # handed over or about to be; not tried, or tried and due again
    CANCELLED = 7  # stopped by an operator or expired
    DEFERRED = 61  # refused for now; a retry is planned
    UNCERTAIN = 62  # the body went out and no reply was recorded: it may have arrived

    @property
    def status(self) -> int:
        """The field's status number."""
        return 6 if self in (MessageState.DEFERRED, MessageState.UNCERTAIN) else int(self)

    @property
    def label(self) -> str:
        """The word an operator reads."""
        return self.name.lower()

    @property
    def is_final(self) -> bool:
        """Whether nothing is planned for it (later evidence may still correct it)."""
        return self in (MessageState.IGNORED, MessageState.SENT, MessageState.FAILED, MessageState.CANCELLED)


class MessageEvent(StrEnum):
    """What can happen to a message on the mid."""

    ACCEPTED = "accepted"  # 2xx after the final dot
    REFUSED = "refused"  # a permanent refusal
    PUT_OFF = "put_off"  # a transient refusal or no connection, retries left
    EXHAUSTED = "exhausted"  # a transient refusal and no retry left, or validity over
    LOST = "lost"  # the body started and no reply was recorded
    CANCEL = "cancel"  # stop ordered, or validity over before any try
    RESEND = "resend"  # the delivery's policy for uncertain messages is to send again
    UNRENDERABLE = "unrenderable"  # the template fails for this recipient's data; a fault of ours, never theirs


S: TypeAlias = MessageState
E: TypeAlias = MessageEvent

_OPEN: Mapping[E, S] = {
    E.ACCEPTED: S.SENT,
    E.REFUSED: S.FAILED,
    E.PUT_OFF: S.DEFERRED,
    E.EXHAUSTED: S.FAILED,
    E.LOST: S.UNCERTAIN,
    E.CANCEL: S.CANCELLED,
    E.UNRENDERABLE: S.FAILED,
}

TRANSITIONS: Mapping[S, Mapping[E, S]] = MappingProxyType(
    {
        S.IGNORED: {},
        S.PENDING: _OPEN,
        S.DEFERRED: _OPEN,
        # Late evidence: the reply of a fenced process, or the decision of the operator.
        S.UNCERTAIN: {E.ACCEPTED: S.SENT, E.REFUSED: S.FAILED, E.RESEND: S.PENDING, E.CANCEL: S.CANCELLED},
        S.SENT: {},
        S.FAILED: {E.ACCEPTED: S.SENT},  # a 250 recorded late proves that a copy arrived
        S.CANCELLED: {E.ACCEPTED: S.SENT},
    }
)
"""(state, event) to the next state; what is absent is recorded as an attempt and changes nothing."""


class Reason(IntEnum):
    """Why a message was excluded or failed: one enumeration for both, as in the field."""

    NONE = 0
    USER_UNKNOWN = 1
    INVALID_DOMAIN = 2
    UNREACHABLE = 3
    ACCOUNT_DISABLED = 4
    MAILBOX_FULL = 5
    NO_ADDRESS = 7
    DENYLISTED = 8
    QUARANTINED = 9
    DUPLICATE = 10
    BAD_ADDRESS = 14
    REFUSED = 20
    OURS = 200  # template, data or infrastructure of ours: never counts towards a person's quarantine
    REFUSED_BY_MID = 201  # the mid refused this row alone; the text says why

    @property
    def label(self) -> str:
        """The words an operator reads."""
        return {
            Reason.NONE: "",
            Reason.NO_ADDRESS: "address not specified",
            Reason.OURS: "fault of ours",
        }.get(self, self.name.replace("_", " ").lower())
