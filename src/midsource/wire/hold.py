"""What a mid that was put back is told: ``GET hold``, ``POST deliveries/{id}/known``, ``POST hold/release``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from midsource.wire.schema import Struct

KNOWN_ROWS = 5_000
"""Messages told in one call: some 400 kB."""
HELD_DELIVERIES = 2_000
"""Deliveries under way named at once."""


class HoldAnswer(Struct, frozen=True, kw_only=True):
    """Whether the account's messages are held, since when, and the deliveries under way that wait to be told about.

    ``telling``: the one whose pages came in last, up to message ``told_to``; 0 where none did.
    """

    held: bool
    since: datetime | None = None
    deliveries: tuple[int, ...] = ()
    telling: int = 0
    told_to: int = 0


class KnownRow(Struct, frozen=True, kw_only=True, array_like=True):
    """What the delivery log knows of one message that the mid once reported."""

    id: Annotated[int, Meta(gt=0)]
    state: Annotated[int, Meta(ge=1, le=62)]
    reason: Annotated[int, Meta(ge=0, le=32_767)]
    attempts: Annotated[int, Meta(ge=0, le=32_767)]
    revision: Annotated[int, Meta(ge=2, le=2**31 - 1)]
    event_at: datetime
    message_id: Annotated[str, Meta(max_length=1_000)]


class Known(Struct, frozen=True, kw_only=True):
    """A page of what is known of a delivery; ``last``: there is no more."""

    rows: Annotated[tuple[KnownRow, ...], Meta(max_length=KNOWN_ROWS)]
    last: bool


class KnownAnswer(Struct, frozen=True, kw_only=True):
    """How many messages of the page were older on the mid, and are as told now."""

    taken: int


class ReleaseAnswer(Struct, frozen=True, kw_only=True):
    """``released``: the account's messages are dispatched again; else ask again. ``uncertain``: messages that this call named."""

    released: bool
    uncertain: int
