"""Numbers as an operator reads them in a sentence."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def size(count: float) -> str:
    """Say a number of bytes with three digits: ``812 B``, ``8.4 MB``, ``1.2 GB``; a unit is 1 000 of the one before."""
    value, unit = float(count), 0
    while abs(value) >= 999.5 and unit < len(_UNITS) - 1:
        value /= 1_000
        unit += 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 or abs(value) >= 99.95 else f"{value:.1f} {_UNITS[unit]}"


def count(number: float) -> str:
    """Say a whole number with its thousands apart: ``1 200 000``."""
    return f"{round(number):,}".replace(",", " ")


def percent(share: float) -> str:
    """Say a share without decimals: ``63 %``."""
    return f"{share * 100:.0f} %"
