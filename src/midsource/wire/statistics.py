"""Statistics of a delivery by recipient domain, as the mid's ledger has them: ``GET deliveries/{id}/statistics``."""

from __future__ import annotations

from datetime import datetime

from midsource.wire.schema import Struct

MAX_DOMAINS = 1_000
"""Domains told by name, those with most messages; the rest is summed under ``OTHERS``."""
OTHERS = ""


class DomainRow(Struct, frozen=True, kw_only=True, array_like=True):
    """Messages of one domain in one state for one reason; first try and last change of any of them."""

    domain: str
    state: int
    reason: int
    n: int
    first_at: datetime | None
    last_at: datetime | None


class Statistics(Struct, frozen=True, kw_only=True):
    """One moment's statistics, covered by number ``seq`` of the feed (wire/blocks.py). ``domains``: how many there are."""

    generation: str
    seq: int | None
    now: datetime
    domains: int
    rows: tuple[DomainRow, ...]
