"""What a ``SinkSession`` asks its shell to do, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from midsource.sandbox.arrival import Arrival


@dataclass(frozen=True, slots=True)
class Send:
    """Write these bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Wait:
    """Perform nothing more for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Take:
    """Keep this message, then answer it unless its provider hangs up."""

    arrival: Arrival


@dataclass(frozen=True, slots=True)
class StartTls:
    """Everything before is written: upgrade the connection."""


@dataclass(frozen=True, slots=True)
class Close:
    """Hang up. ``lingers`` says whether the peer must still be able to read the last reply."""

    lingers: bool = True


Event: TypeAlias = Send | Wait | Take | StartTls | Close
