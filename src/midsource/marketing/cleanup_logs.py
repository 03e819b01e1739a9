"""The step of `cleanup` that drops delivery logs, a month of deliveries at a time.

A month goes when it ended longer ago than logs are kept, and every delivery of it that has a log is over for as long.
Before its partition is dropped each delivery is marked (`log_dropped_at`), in the same transaction: its totals stay, are
never compared with rows that are no longer there, and every page says where the log is. Drafts have no log and hold
nothing up; one of an old month that is prepared later gets a new partition (marketing/targeting.py).
"""

from __future__ import annotations

from datetime import UTC, datetime, time

from midsource.model.options import BROAD_LOG_DELAY
from midsource.store import partitions
from midsource.store.cleanup import Removable, Removed, Scene, Step
from midsource.store.database import Connection, scalar
from midsource.store.partitions import Partition

PARENT = "broad_log"
_HELD = """
select id, coalesce(finished_at, modified_at) as ended_at, state from delivery
where id >= %(low)s and id < %(high)s and targeted is not null and log_dropped_at is null
    and (state not in (85, 87, 95) or coalesce(finished_at, modified_at) >= %(before)s)
order by state in (85, 87, 95), coalesce(finished_at, modified_at) desc limit 1
"""
"""What holds a month up: a delivery that is not over, else the one that ended last."""


def count(scene: Scene) -> Removable:
    """Return what the months that may go hold; else when the oldest one may, or which delivery holds it up."""
    with scene.database.connection() as conn:
        months = partitions.listing(conn, PARENT)
        over = [month for month in months if _is_over(conn, month, scene)]
        if over or not months:
            return Removable(sum(month.rows for month in over), sum(month.bytes for month in over))
        oldest = next((month for month in months if _has_deliveries(conn, month)), months[0])
        held = conn.execute(_HELD, _span(oldest, scene)).fetchone()
    ends_at = _ended(oldest) + scene.kept
    if held is None:
        return Removable(next_at=ends_at)
    if held[2] in (85, 87, 95):
        return Removable(next_at=max(ends_at, held[1] + scene.kept))
    return Removable(note=f"delivery {held[0]} of {oldest.name.rpartition('_')[2]} is not over")


def page(scene: Scene) -> Removed:
    """Drop the oldest month that is over."""
    with scene.database.connection() as conn:
        over = [month for month in partitions.listing(conn, PARENT) if _is_over(conn, month, scene)]
    if not over:
        return Removed()
    month = over[0]

    def closed(conn: Connection) -> bool:
        if not _is_over(conn, month, scene):
            return False
        conn.execute(
            "update delivery set log_dropped_at = %(now)s, recounted_at = coalesce(recounted_at, %(now)s) "
            "where id >= %(low)s and id < %(high)s and log_dropped_at is null and targeted is not null",
            {**_span(month, scene), "now": scene.now},
        )
        return True

    if not partitions.drop(scene.database, month, closed):
        return Removed(said=(f"{month.name} came into use again while it was dropped: it stays",))
    return Removed(month.rows, month.bytes, more=len(over) > 1)


def _is_over(conn: Connection, month: Partition, scene: Scene) -> bool:
    """Whether nothing of a month is needed: it ended, and so did every delivery of it that has a log, long enough ago."""
    return _ended(month) <= scene.before and conn.execute(_HELD, _span(month, scene)).fetchone() is None


def _has_deliveries(conn: Connection, month: Partition) -> bool:
    return bool(
        scalar(
            conn,
            "select exists (select from delivery where id >= %s and id < %s and targeted is not null)",
            (month.low, month.high),
        )
    )


def _span(month: Partition, scene: Scene) -> dict[str, object]:
    return {"low": month.low, "high": month.high, "before": scene.before}


def _ended(month: Partition) -> datetime:
    return datetime.combine(month.ends_at, time(), UTC)


STEP = Step("delivery_logs", "delivery logs, by months whose deliveries are all over", count, page, BROAD_LOG_DELAY)
