"""Lengths of time as operators write them: a number and its unit, ``5d``, ``36h``, ``90min``, ``3600s``."""

from __future__ import annotations

import re

from midsource.model.errors import UserError

UNITS = {"s": 1, "min": 60, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
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
    """Say the bounds of a length of time: ``60s to 365d``, ``1d to 3650d``."""
    return f"{_shown(low)} to {_shown(high)}"


def _shown(seconds: int) -> str:
    return f"{seconds // UNITS['d']}d" if seconds and seconds % UNITS["d"] == 0 else f"{seconds}s"
