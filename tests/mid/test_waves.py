"""Batches of later waves become ready later; what waits at the end of validity is ended at that moment."""

from __future__ import annotations

from datetime import timedelta

from midsource.mid import counters, expiry, ledger, orders
from midsource.mid.ledger import OutcomeRecord
from midsource.model.message import MessageEvent
from midsource.store.database import scalar
from midsource.testing.mid import MidDatabase


def with_waves(mid: MidDatabase, delivery: int, messages: int, seconds: int) -> None:
    """Announce the delivery with waves, as its spec would have."""
    with mid.database.transaction() as conn:
        conn.execute(
            "update delivery set spec = spec || jsonb_build_object('wave_messages', %s::int, 'wave_period_seconds', %s::int) "
            "where id = %s",
            (messages, seconds, delivery),
        )


def start(mid: MidDatabase, delivery: int) -> None:
    orders.command(mid.database, mid.account_id, delivery, "start", mid.clock.now())


def waits(mid: MidDatabase, delivery: int) -> dict[int, list[int]]:
    """Return the messages by the hours until they are ready, rounded."""
    with mid.database.connection() as conn:
        rows = conn.execute(
            "select round(extract(epoch from ready_at - now()) / 3600)::int, array_agg(waiting order by waiting) "
            "from dispatch_batch, unnest(ids) waiting where delivery_id = %s group by 1 order by 1",
            (delivery,),
        ).fetchall()
    return dict(rows)


def test_each_wave_is_ready_a_period_after_the_one_before(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(state=45, messages=1_000, domains=3)
    with_waves(mid_db, delivery, 300, 7200)
    start(mid_db, delivery)
    found = waits(mid_db, delivery)
    assert {hours: (ids[0], ids[-1], len(ids)) for hours, ids in found.items()} == {
        0: (1, 300, 300),
        2: (301, 600, 300),
        4: (601, 900, 300),
        6: (901, 1000, 100),
    }


def test_batches_made_again_keep_the_waves_times(mid_db: MidDatabase) -> None:
    """Should batches ever be lost, what is made anew counts from the start, not from now."""
    delivery = mid_db.delivery(state=45, messages=40, domains=2)
    with_waves(mid_db, delivery, 10, 7200)
    start(mid_db, delivery)
    with mid_db.database.transaction() as conn:
        conn.execute("delete from dispatch_batch")
    mid_db.clock.advance(timedelta(hours=3))
    with mid_db.database.transaction() as conn:
        orders.advance(conn, mid_db.account_id, delivery, mid_db.clock.now())
    assert {hours: len(ids) for hours, ids in waits(mid_db, delivery).items()} == {-3: 10, -1: 10, 1: 10, 3: 10}


def test_a_delivery_with_waves_to_come_is_in_progress(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(state=45, messages=20, domains=1)
    with_waves(mid_db, delivery, 10, 7200)
    start(mid_db, delivery)
    now = mid_db.clock.now()
    with mid_db.database.transaction() as conn:
        sent = [OutcomeRecord(delivery, n, MessageEvent.ACCEPTED, now) for n in range(1, 11)]
        ledger.record_outcomes(conn, mid_db.account_id, sent, now)
        assert orders.advance(conn, mid_db.account_id, delivery, now) == 55


def test_the_end_of_validity_ends_what_waits_also_of_a_paused_delivery(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(state=45, messages=30, domains=1)
    start(mid_db, delivery)
    now = mid_db.clock.now()
    with mid_db.database.transaction() as conn:
        off = [OutcomeRecord(delivery, n, MessageEvent.PUT_OFF, now, reason=20, reply="451 later") for n in range(1, 6)]
        ledger.record_outcomes(conn, mid_db.account_id, off, now)
        valid_until = scalar(conn, "select valid_until from delivery where id = %s", (delivery,))
    orders.command(mid_db.database, mid_db.account_id, delivery, "pause", now)
    assert expiry.end_expired(mid_db.database, valid_until - timedelta(seconds=1)) == 0
    assert expiry.end_expired(mid_db.database, valid_until + timedelta(seconds=1)) == 30
    assert expiry.end_expired(mid_db.database, valid_until + timedelta(seconds=1)) == 0
    with mid_db.database.connection() as conn:
        assert counters.totals(conn, mid_db.account_id, delivery) == {7: 25, 2: 5}
        assert scalar(conn, "select state from delivery where id = %s", (delivery,)) == 95
        assert scalar(conn, "select count(*) from dispatch_batch") == 0
        row = conn.execute("select state, reason, reply from message where id = 3").fetchone()
    assert row == (2, 20, "451 later")
