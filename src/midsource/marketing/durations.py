"""Lengths of time as operators write them: a number and its unit, ``5d``, ``36h``, ``90min``, ``3600s``; and their bounds."""

from __future__ import annotations

import re

from midsource.model.errors import UserError
from midsource.policy.retry import MAX_PERIOD_SECONDS, MIN_PERIOD_SECONDS

UNITS = {"s": 1, "min": 60, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
VALIDITY_SECONDS = (60, 31_536_000)
"""A minute to a year: the bounds of the link and of the table."""
RETRY_PERIOD_SECONDS = (MIN_PERIOD_SECONDS, MAX_PERIOD_SECONDS)
_DURATION = re.compile(r"([0-9]{1,9})\s*([a-z]*)")


def parse_duration(text: str | int) -> int:
    """Return seconds; raises UserError. A bare number is refused: the field's lists hold seconds in one place and days in another."""
    match = _DURATION.fullmatch(str(text).strip().lower())
    if match is None or (match[2] and match[2] not in UNITS):
        raise UserError(
            f"expected a length of time such as '5d' or '36h', got {str(text)[:40]!r}", "write it with its unit"
        )
    if not match[2]:
        raise UserError(
            f"{match[1]} of what?", f"say the unit: '{match[1]}s', '{match[1]}min', '{match[1]}h' or '{match[1]}d'"
        )
    return int(match[1]) * UNITS[match[2]]


def show_bounds(low: int, high: int) -> str:
    """Say the bounds of a length of time: ``60s to 365d``."""
    return f"{low}s to {high // UNITS['d']}d"
