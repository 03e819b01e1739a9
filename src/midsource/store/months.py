"""Dropping a table that is kept by months of deliveries: one way for delivery logs and for the ledger.

A month goes when it ended longer ago than it is kept, and nothing holds it up: every delivery of it has been over for as
long, and the role agrees. Before its partition is dropped its deliveries are marked, in the same transaction, so that
their totals are never compared with rows that are no longer there. What holds a month up is looked at once more in that
transaction: a delivery may have come between the first look and the detaching (store/partitions.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time

from midsource.store import partitions
from midsource.store.cleanup import Removable, Removed, Scene
from midsource.store.database import Connection, scalar
from midsource.store.partitions import Partition


def _nothing(_conn: Connection, _span: dict[str, object]) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Months:
    """A partitioned table and what its role knows of its deliveries. Statements take ``low``, ``high``, ``before``, ``now``.

    ``held``: what holds a month up, as (id, when it was over or null): one that is not over, else the one that ended last.
    ``any``: whether a delivery has rows in it; ``mark``: notes on its deliveries that the rows are gone.
    ``waits``: what else holds it up, as a clause about the month, or ''.
    """

    parent: str
    held: str
    any: str
    mark: str
    waits: Callable[[Connection, dict[str, object]], str] = _nothing

    def count(self, scene: Scene) -> Removable:
        """Return what the months that may go hold; else when the oldest one may, or what holds it up."""
        with scene.database.connection() as conn:
            months = partitions.listing(conn, self.parent)
            over = [month for month in months if self._is_over(conn, month, scene)]
            if over or not months:
                return Removable(sum(month.rows for month in over), sum(month.bytes for month in over))
            oldest = next((one for one in months if scalar(conn, self.any, _span(one, scene))), months[0])
            held = conn.execute(self.held, _span(oldest, scene)).fetchone()
            waits = self.waits(conn, _span(oldest, scene))
        ends_at, name = _ended(oldest) + scene.kept, oldest.name.rpartition("_")[2]
        if held is None:
            note = f"{name}: {waits}" if waits and ends_at <= scene.now else ""
            return Removable(next_at=None if note else ends_at, note=note)
        if held[1] is not None:
            return Removable(next_at=max(ends_at, held[1] + scene.kept))
        return Removable(note=f"delivery {held[0]} of {name} is not over")

    def page(self, scene: Scene) -> Removed:
        """Drop the oldest month that is over."""

        def mark(conn: Connection, month: Partition) -> None:
            conn.execute(self.mark, _span(month, scene))

        return partitions.drop_next(scene, self.parent, lambda conn, month: self._is_over(conn, month, scene), mark)

    def _is_over(self, conn: Connection, month: Partition, scene: Scene) -> bool:
        span = _span(month, scene)
        return (
            _ended(month) <= scene.before
            and conn.execute(self.held, span).fetchone() is None
            and not self.waits(conn, span)
        )


def _span(month: Partition, scene: Scene) -> dict[str, object]:
    return {"low": month.low, "high": month.high, "before": scene.before, "now": scene.now}


def _ended(month: Partition) -> datetime:
    return datetime.combine(month.ends_at, time(), UTC)
