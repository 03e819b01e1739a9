"""Which job a delivery needs that nobody has: asked for again, a bounded number of times. Pure.

A job ends for good where its worker met a bug, or where somebody removed its row; the delivery then stands still between two
steps although it was told to go on. What it needs follows from its state. What is asked for again in vain is the doctor's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

from midsource.model.delivery import DeliveryState

S = DeliveryState
TRIES = 5
"""Jobs of one kind about one delivery within a day, before nobody asks any more by itself."""


@dataclass(frozen=True, slots=True)
class Step:
    """The job that moves a delivery on from a state, and how long it may stand there without one."""

    job: str
    patience: timedelta


NEEDED: Mapping[DeliveryState, Step] = MappingProxyType(
    {
        S.EDITED: Step("prepare", timedelta(minutes=2)),
        S.TARGET_READY: Step("prepare", timedelta(minutes=2)),
        S.PERSONALISATION: Step("prepare", timedelta(minutes=2)),
        S.MESSAGE_FINALISED: Step("handover", timedelta(minutes=2)),
        S.READY: Step("order", timedelta(minutes=2)),
    }
)
"""Of a delivery that was confirmed (*send* was said)."""
ORDER = Step("order", timedelta(minutes=2))
"""Of any delivery with an order that the mid has not confirmed."""


def needed(state: DeliveryState, *, confirmed: bool, unconfirmed_order: bool) -> Step | None:
    """Return what a delivery needs to go on; None where it waits for a person, a mid, or nothing."""
    if unconfirmed_order:
        return ORDER
    return NEEDED.get(state) if confirmed and state is not S.READY else None
