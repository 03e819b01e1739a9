"""Delivery logs that `cleanup` has dropped: whoever would read their rows hears so, instead of finding none."""

from __future__ import annotations

from midsource.model.errors import Conflict
from midsource.store.database import Connection, scalar


def refuse(conn: Connection, delivery_id: int) -> None:
    """Raise Conflict where the log of a delivery was kept for its time and dropped."""
    dropped = scalar(conn, "select log_dropped_at from delivery where id = %s", (delivery_id,))
    if dropped is not None:
        raise Conflict(
            f"the log of delivery {delivery_id} was dropped on {dropped:%Y-%m-%d}, after it was kept for its time",
            "its counters stay as they are; NmsCleanup_BroadLogPurgeDelay says how long logs are kept",
        )
