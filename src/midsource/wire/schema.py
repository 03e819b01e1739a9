"""The contract between the halves, protocol 1: every body that crosses the link, as frozen msgspec structs.

Unknown fields are ignored (a newer peer may say more), missing ones take their default (an older peer says less). A mid
serves protocol n and n-1. All times are aware and in UTC; all sizes have their unit in the name.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

PROTOCOL = 1
MAX_PART_ROWS = 5_000
"""Rows of one delivery part (design 5.2): large enough that a part is worth its commit, small enough to be repeated."""
MAX_PART_BYTES = 4_000_000
"""Compressed bytes of one part; below the smallest body limit seen at proxies in the field (F04: 50 MB; many allow 5)."""
MAX_PART_RAW_BYTES = 64_000_000
"""Uncompressed bytes of one part: what the mid agrees to inflate, so a small body cannot become a large one."""
MAX_PAGE_ROWS = 20_000
MAX_PAGE_BYTES = 16_000_000
"""One feed page, uncompressed."""
MAX_WAIT_SECONDS = 25
"""Longest long-poll: below the 30 s at which common proxies cut idle requests."""
MAX_BODY_BYTES = 2_000_000
"""Any other body: a delivery's content with room to spare."""

DeliveryNumber = Annotated[int, Meta(gt=0, le=(1 << 63) - 1)]
Verb = Annotated[str, Meta(pattern=r"^(start|pause|resume|stop)\Z")]
PartName = Annotated[str, Meta(pattern=r"^[0-9]{1,6}(\.[0-9]{1,4}){0,8}\Z")]


class Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Base of every body."""


class Limits(Struct, frozen=True, kw_only=True):
    """What the mid accepts in one call."""

    part_rows: int = MAX_PART_ROWS
    part_bytes: int = MAX_PART_BYTES
    page_rows: int = MAX_PAGE_ROWS
    wait_seconds: int = MAX_WAIT_SECONDS


class Hello(Struct, frozen=True, kw_only=True):
    """``GET hello``: who the mid is. ``product`` tells a mid from any other server that answers 200."""

    product: str
    version: str
    protocols: tuple[int, ...]
    instance: str
    account: str
    generation: str
    now: datetime
    transport: str
    dispatch: bool
    limits: Limits = Limits()
    features: tuple[str, ...] = ()


class DeliverySpec(Struct, frozen=True, kw_only=True):
    """``PUT deliveries/{id}``: what a delivery says and how it is to be sent. Templates are Jinja2 sources."""

    id: DeliveryNumber
    label: Annotated[str, Meta(max_length=200)]
    subject: Annotated[str, Meta(max_length=2_000)]
    html: Annotated[str, Meta(max_length=800_000)]
    text: Annotated[str, Meta(max_length=400_000)]
    from_name: Annotated[str, Meta(max_length=200)]
    from_address: Annotated[str, Meta(max_length=320)]
    brand: str
    reply_to: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    unsubscribe_url: str = ""  # may hold {token}
    mirror_url: str = ""
    validity_seconds: Annotated[int, Meta(ge=60, le=31_536_000)] = 432_000
    retry_count: Annotated[int, Meta(ge=0, le=100)] = 5
    retry_period_seconds: Annotated[int, Meta(ge=1, le=604_800)] = 3_600
    uncertain_policy: Annotated[str, Meta(pattern=r"^(hold|resend)\Z")] = "hold"
    message_key: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")] = (
        ""  # hex; "": the mid makes Message-IDs of its own
    )
    wave_messages: Annotated[int, Meta(ge=0)] = 0  # 0: all at once
    wave_period_seconds: Annotated[int, Meta(ge=0, le=2_592_000)] = 0


class DeliveryAnswer(Struct, frozen=True, kw_only=True):
    """The state of a delivery on the mid, by number, and its revision."""

    state: int
    revision: int
    created: bool = False


class PartRow(Struct, frozen=True, kw_only=True):
    """One line of a part: broad-log id, address, personalisation values by field name."""

    id: Annotated[int, Meta(gt=0)]
    to: str
    d: dict[str, Any]


class RefusedRow(Struct, frozen=True, kw_only=True):
    """A row refused by itself, with its reason; the rest of the part is taken."""

    id: int
    why: str


class PartAnswer(Struct, frozen=True, kw_only=True):
    """``PUT|GET parts/{n}``: what was taken. A repeat of the same content gets the first answer."""

    part: str
    rows: int
    accepted: int
    row_hash: str
    refused: tuple[RefusedRow, ...] = ()
    repeated: bool = False


class Finalise(Struct, frozen=True, kw_only=True):
    """``POST finalize``: what the marketing instance believes it handed over. Hashes are decimal strings below 2^64."""

    messages: int
    row_hash: str
    parts: int


class FinaliseAnswer(Struct, frozen=True, kw_only=True):
    """What the mid holds; ``agreed`` only when count and hash are the same, and then the state is *ready* (45)."""

    agreed: bool
    messages: int
    row_hash: str
    parts: int
    state: int
    missing: tuple[str, ...] = ()


class Command(Struct, frozen=True, kw_only=True):
    """``POST commands``: an order. Repeating an order that already holds is answered like the first."""

    verb: Verb


class CommandAnswer(Struct, frozen=True, kw_only=True):
    """The state after the order."""

    state: int
    revision: int


class LogRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One outcome in ``feed/logs``; rows only ever go forward by ``revision``.

    ``event_at``: microseconds since 1970 UTC, which both databases take as they are. ``message_id``: "" for none, "*" for
    the one that both halves compute (wire/identity.py), or the ID itself.
    """

    delivery: int
    id: int
    state: int
    reason: int
    attempts: int
    revision: int
    event_at: int
    reply: str
    message_id: str


class DeliveryRow(Struct, frozen=True, kw_only=True):
    """One delivery in ``feed/deliveries``: its state and counters as they are now."""

    id: int
    state: int
    revision: int
    figures: dict[str, int]  # message state number, as a string, to count
    started_at: datetime | None = None
    finished_at: datetime | None = None


class FeedHead(Struct, frozen=True, kw_only=True):
    """First line of a feed answer; the rows follow one a line. ``cursor`` is opaque: give it back as ``after``.

    ``reached_at`` is the time the option shows: of the last batch in the page or, with ``more`` false, of the numbering
    turn that found nothing more. ``head_seq`` and ``seq`` tell the lag in batches.
    """

    generation: str
    cursor: str
    rows: int
    more: bool
    reached_at: datetime
    now: datetime
    seq: int
    head_seq: int


class Rewound(Struct, frozen=True, kw_only=True):
    """409 on a feed: the cursor is of another generation or beyond the end (restore, clone)."""

    generation: str
    head_seq: int
    oldest_seq: int


class GoneBefore(Struct, frozen=True, kw_only=True):
    """410 on a feed: results up to ``gone_before`` are not kept any more, and the reader had not come so far.

    ``cursor`` is where the oldest kept begin: the pointer moves there, to the time ``gone_before``. ``seq`` is its number.
    """

    generation: str
    gone_before: datetime
    cursor: str
    seq: int


class Problem(Struct, frozen=True, kw_only=True):
    """Every refusal: a stable code, the cause, the remedy."""

    code: str
    cause: str
    remedy: str = ""
