"""The step of `cleanup` that forgets results, a day at a time: feed batches, then the day's partition of outcomes.

A day goes when every account that has batches of it has acknowledged them on both streams and OUTCOME_DELAY has passed, or
when UNPULLED_DELAY has passed whoever still lacks them (policy/retention.py). Order of events: number and fold what is
left · delete batches, PAGE_ROWS a transaction, and in the same transaction note up to where each account's results are
forgotten (``feed_gone``), which is what a cursor from before is answered with · when the day has no batch any more, drop
its partition. A reader holds the parent of the partitions while it reads a page (mid/feed.py), so it never finds a batch
without its rows.

Results of an account that is switched off hold a day up like any other's, until the limit.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from midsource.mid import counters, feed
from midsource.mid.options import TABLE
from midsource.model.options import OUTCOME_DELAY, UNPULLED_DELAY
from midsource.policy.retention import first_day_kept
from midsource.store import partitions
from midsource.store.cleanup import Removable, Removed, Scene, Step
from midsource.store.database import Connection, scalar
from midsource.store.partitions import Partition

PARENT = "outcome"
PAGE_ROWS = 10_000
TURNS = 100
"""Numbering and folding turns of one page: 50 000 batches that nobody asked for."""
_UNPULLED = """
select a.id, least(
    (select min(day) from (
        select day from feed_batch b where b.account_id = a.id and b.seq > k.seq order by b.seq limit 1000) numbered),
    (select min(day) from (
        select day from feed_batch b where b.account_id = a.id and b.seq is null order by b.id limit 1000) unnumbered))
from account a cross join lateral (
    select least(coalesce(min(seq) filter (where stream = 'logs'), 0), coalesce(min(seq) filter (where stream = 'deliveries'), 0)) as seq
    from feed_ack where account_id = a.id) k
"""
"""The first batches that are not acknowledged tell the oldest day: numbers follow days but for transactions over midnight."""
_FORGET = """
with gone as (
    delete from feed_batch where id in (
        select id from feed_batch where day < %(kept)s and folded and seq is not null order by day limit %(limit)s)
    returning account_id, seq, sequenced_at, rows
), noted as (
    insert into feed_gone as g (account_id, seq, gone_before)
    select account_id, max(seq), max(sequenced_at) from gone group by account_id
    on conflict (account_id) do update set
        seq = greatest(g.seq, excluded.seq), gone_before = greatest(g.gone_before, excluded.gone_before)
)
select count(*), coalesce(sum(rows), 0)::bigint from gone
"""


def kept_from(conn: Connection, scene: Scene) -> date:
    """Return the first day whose results are kept."""
    unpulled_seconds = TABLE.seconds(conn, UNPULLED_DELAY)
    today = scene.now.astimezone(UTC).date()
    oldest = min(oldest_unpulled(conn).values(), default=None)
    return first_day_kept(today, scene.kept, timedelta(seconds=unpulled_seconds), oldest)


def oldest_unpulled(conn: Connection) -> dict[int, date]:
    """Return the oldest day with results that an account has not acknowledged on both streams; accounts with none are left out."""
    return {account: day for account, day in conn.execute(_UNPULLED).fetchall() if day is not None}


def count(scene: Scene) -> Removable:
    """Return what the days that may go hold; else when the oldest may, or who holds it up."""
    with scene.database.connection() as conn:
        kept = kept_from(conn, scene)
        days = partitions.listing(conn, PARENT)
        old = [day for day in days if day.low < kept]  # type: ignore[operator]
        batches = scalar(conn, "select count(*) from (select from feed_batch where day < %s limit 1000000) b", (kept,))
        if batches or old:
            return Removable(int(batches) + sum(day.rows for day in old), sum(day.bytes for day in old))
        oldest = scalar(conn, "select min(day) from feed_batch") or (days[0].low if days else None)
    if not isinstance(oldest, date):
        return Removable()
    ordinary = datetime.combine(oldest, time(), UTC) + timedelta(days=1) + scene.kept
    if ordinary > scene.now:
        return Removable(next_at=ordinary)
    return Removable(note=f"results since {oldest} are not acknowledged by every account")


def page(scene: Scene) -> Removed:
    """Forget some batches of the days that may go; with none left, drop the oldest of their partitions."""
    with scene.database.connection() as conn:
        kept = kept_from(conn, scene)
        waiting = _is_waiting(conn, kept)
    for _ in range(TURNS if waiting else 0):
        numbered = feed.take_turn(scene.database, scene.now)
        with scene.database.transaction() as conn:
            folded = counters.fold(conn)
        if not numbered and not folded:
            break
    with scene.database.transaction() as conn:
        row = conn.execute(_FORGET, {"kept": kept, "limit": PAGE_ROWS}).fetchone()
    assert row is not None
    batches, _rows = row
    if batches:
        return Removed(batches, more=True)
    return partitions.drop_next(scene, PARENT, lambda conn, day: _is_over(conn, day, kept))


def _is_over(conn: Connection, day: Partition, kept: date) -> bool:
    if not isinstance(day.low, date) or day.low >= kept:
        return False
    return not scalar(conn, "select exists (select from feed_batch where day = %s and rows > 0)", (day.low,))


def _is_waiting(conn: Connection, kept: date) -> bool:
    """Whether batches of the days that may go have no number yet, or are not counted in the totals."""
    return bool(
        scalar(
            conn,
            "select exists (select from feed_batch where day < %(kept)s and seq is null) "
            "or exists (select from feed_batch where day < %(kept)s and not folded)",
            {"kept": kept},
        )
    )


STEP = Step(
    "outcome_days", "results of days that every account has pulled, and of days past the limit", count, page, OUTCOME_DELAY
)  # fmt: skip
