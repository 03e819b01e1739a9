"""Identifiers that carry what the database needs to know.

A delivery id carries its month of creation (``yyyymm << 32 | n``), so that the delivery log and the ledger, partitioned
by delivery id, find the partition from the key alone, and a part repeated after midnight is still the same row.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

SERIAL_BITS = 32
"""Deliveries a month: 4 294 967 296; the month fits in 18 bits until the year 2621."""


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """A calendar month, the partition of deliveries created in it."""

    year: int
    month: int

    def __post_init__(self) -> None:
        if not (2000 <= self.year <= 2600 and 1 <= self.month <= 12):
            raise ValueError(f"not a month: {self.year}-{self.month}")

    @classmethod
    def of(cls, moment: datetime) -> Month:
        """Return the month of ``moment`` as its own zone counts it."""
        return cls(moment.year, moment.month)

    @classmethod
    def of_delivery(cls, delivery_id: int) -> Month:
        """Return the month in which the delivery was created; raises ValueError for a number that is no delivery id."""
        return cls(*divmod(delivery_id >> SERIAL_BITS, 100))

    def next(self) -> Month:
        """Return the following month."""
        return Month(self.year + 1, 1) if self.month == 12 else Month(self.year, self.month + 1)

    @property
    def first_delivery_id(self) -> int:
        """The smallest delivery id of this month: the lower bound of its partition."""
        return (self.year * 100 + self.month) << SERIAL_BITS

    def __str__(self) -> str:
        """Return ``yyyymm``, the suffix of partitions."""
        return f"{self.year:04d}{self.month:02d}"


def delivery_id(created: datetime, serial: int) -> int:
    """Compose the id of delivery number ``serial`` (1 to 2^32-1, from the database's sequence) created at ``created``."""
    if not 0 < serial < 1 << SERIAL_BITS:
        raise ValueError(f"delivery serial out of range: {serial}")
    return Month.of(created).first_delivery_id | serial


def first_of_last_month(now: datetime) -> int:
    """Return the smallest delivery id of the month before ``now``'s: what is counted of deliveries begins there."""
    month = Month.of(now)
    before = Month(month.year - 1, 12) if month.month == 1 else Month(month.year, month.month - 1)
    return before.first_delivery_id
