"""The step of `cleanup` that drops the ledger of messages, a month of deliveries at a time, over all accounts.

A month goes when it ended longer ago than the ledger is kept, every delivery of it has been over for as long, and each account
has acknowledged the results of the days up to the end of its deliveries. Before the partition is dropped each delivery is
marked (`ledger_dropped_at`) in the same transaction: its counters stay and are never compared with rows that are gone.
A delivery that was handed over and never started holds its month up; stop it.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from midsource.mid.cleanup_feed import oldest_unpulled
from midsource.model.options import BROAD_LOG_DELAY
from midsource.store import partitions
from midsource.store.cleanup import Removable, Removed, Scene, Step
from midsource.store.database import Connection, scalar
from midsource.store.partitions import Partition

PARENT = "message"
DAY = timedelta(days=1)
_HELD = """
select id, finished_at, state from delivery
where id >= %(low)s and id < %(high)s and ledger_dropped_at is null
    and (finished_at is null or finished_at >= %(before)s)
order by finished_at is not null, finished_at desc limit 1
"""
"""What holds a month up: a delivery that is not over, else the one that ended last."""
_LAST_DAYS = """
select account_id, (max(finished_at) at time zone 'UTC')::date from delivery
where id >= %(low)s and id < %(high)s and ledger_dropped_at is null group by account_id
"""


def count(scene: Scene) -> Removable:
    """Return what the months that may go hold; else when the oldest one may, or what holds it up."""
    with scene.database.connection() as conn:
        months = partitions.listing(conn, PARENT)
        over = [month for month in months if _is_over(conn, month, scene)]
        if over or not months:
            return Removable(sum(month.rows for month in over), sum(month.bytes for month in over))
        oldest = next((month for month in months if _has_deliveries(conn, month)), months[0])
        held = conn.execute(_HELD, _span(oldest, scene)).fetchone()
        unpulled = _is_unpulled(conn, oldest, scene)
    ends_at, name = _ended(oldest) + scene.kept, oldest.name.rpartition("_")[2]
    if held is None:
        note = f"results of deliveries of {name} are not acknowledged" if unpulled and ends_at <= scene.now else ""
        return Removable(next_at=None if note else ends_at, note=note)
    if held[1] is not None:
        return Removable(next_at=max(ends_at, held[1] + scene.kept))
    return Removable(note=f"delivery {held[0]} of {name} is not over")


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
            "update delivery set ledger_dropped_at = %(now)s where id >= %(low)s and id < %(high)s "
            "and ledger_dropped_at is null",
            {**_span(month, scene), "now": scene.now},
        )
        return True

    if not partitions.drop(scene.database, month, closed):
        return Removed(said=(f"{month.name} came into use again while it was dropped: it stays",))
    return Removed(month.rows, month.bytes, more=len(over) > 1)


def _is_over(conn: Connection, month: Partition, scene: Scene) -> bool:
    span = _span(month, scene)
    return (
        _ended(month) <= scene.before
        and conn.execute(_HELD, span).fetchone() is None
        and not _is_unpulled(conn, month, scene)
    )


def _is_unpulled(conn: Connection, month: Partition, scene: Scene) -> bool:
    """Whether an account has not acknowledged the results up to the end of its deliveries of this month."""
    unpulled = oldest_unpulled(conn)
    ended = conn.execute(_LAST_DAYS, _span(month, scene)).fetchall()
    return any(
        last_day is not None and unpulled.get(account, last_day + DAY) <= last_day for account, last_day in ended
    )


def _has_deliveries(conn: Connection, month: Partition) -> bool:
    return bool(
        scalar(conn, "select exists (select from delivery where id >= %s and id < %s)", (month.low, month.high))
    )


def _span(month: Partition, scene: Scene) -> dict[str, object]:
    return {"low": month.low, "high": month.high, "before": scene.before}


def _ended(month: Partition) -> datetime:
    return datetime.combine(month.ends_at, time(), UTC)


STEP = Step(
    "ledger_months", "the ledger of messages, by months whose deliveries are all over and pulled", count, page, BROAD_LOG_DELAY
)  # fmt: skip
