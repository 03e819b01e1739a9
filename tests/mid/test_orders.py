"""Orders move a delivery once; what they begin is finished by advance and by the sweep."""

from __future__ import annotations

from datetime import timedelta

import pytest

from midsource.mid import counters, deliveries, ledger, orders
from midsource.mid.ledger import OutcomeRecord
from midsource.model.errors import Conflict, NotFound, UserError
from midsource.model.message import MessageEvent
from midsource.store.database import scalar
from midsource.testing.leases import batches
from midsource.testing.mid import MidDatabase

E = MessageEvent


def order(mid: MidDatabase, delivery: int, verb: str) -> int:
    return orders.command(mid.database, mid.account_id, delivery, verb, mid.clock.now()).state


def record(mid: MidDatabase, delivery: int, event: MessageEvent, *ids: int) -> int:
    now = mid.clock.now()
    with mid.database.transaction() as conn:
        ledger.record_outcomes(conn, mid.account_id, [OutcomeRecord(delivery, n, event, now) for n in ids], now)
        return orders.advance(conn, mid.account_id, delivery, now)


def lease(mid: MidDatabase, delivery: int) -> None:
    with mid.database.transaction() as conn:
        conn.execute(
            "update dispatch_batch set owner = 'mta', expires_at = now() + interval '1 minute' where delivery_id = %s",
            (delivery,),
        )


def release(mid: MidDatabase, delivery: int) -> None:
    with mid.database.transaction() as conn:
        conn.execute("update dispatch_batch set owner = null, expires_at = null where delivery_id = %s", (delivery,))


def test_start_makes_batches_by_destination_of_at_most_500(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(state=45, messages=1_300, domains=2)
    assert order(mid_db, delivery, "start") == 51
    with mid_db.database.connection() as conn:
        made = conn.execute(
            "select destination, ids, owner, ready_at <= now() from dispatch_batch order by ids"
        ).fetchall()
    assert sorted(len(ids) for _, ids, _, _ in made) == [150, 150, 500, 500]
    assert sorted(id_ for _, ids, _, _ in made for id_ in ids) == list(range(1, 1_301))
    assert {destination for destination, *_ in made} == {"d0.test", "d1.test"}
    assert all(owner is None and is_due for *_, owner, is_due in made)


def test_what_is_due_at_once_is_so_by_the_database_whose_clock_decides(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(state=45, messages=1)
    mid_db.clock.advance(timedelta(days=3_650))  # this machine's clock is ten years ahead
    order(mid_db, delivery, "start")
    with mid_db.database.connection() as conn:
        assert scalar(conn, "select ready_at <= now() from dispatch_batch")


def test_a_repeated_start_starts_nothing_twice_and_keeps_the_validity(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(state=45, messages=10)
    first = orders.command(mid_db.database, mid_db.account_id, delivery, "start", mid_db.clock.now())
    until = mid_db.clock.now() + timedelta(days=5)
    mid_db.clock.advance(timedelta(hours=1))
    assert orders.command(mid_db.database, mid_db.account_id, delivery, "start", mid_db.clock.now()) == first
    with mid_db.database.connection() as conn:
        assert scalar(conn, "select count(*) from dispatch_batch") == 1
        assert deliveries.find(conn, mid_db.account_id, delivery).valid_until == until


def test_a_delivery_goes_its_way_by_its_counters(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(state=45, messages=4)
    order(mid_db, delivery, "start")
    assert record(mid_db, delivery, E.ACCEPTED, 1) == 55
    assert record(mid_db, delivery, E.PUT_OFF, 2, 3, 4) == 62
    assert record(mid_db, delivery, E.LOST, 2) == 62
    assert record(mid_db, delivery, E.ACCEPTED, 3) == 62
    assert record(mid_db, delivery, E.EXHAUSTED, 4) == 95  # the uncertain one does not hold it
    with mid_db.database.connection() as conn:
        assert deliveries.find(conn, mid_db.account_id, delivery).finished_at == mid_db.clock.now()


def test_an_uncertain_message_holds_no_delivery_open_whatever_its_policy(mid_db: MidDatabase) -> None:
    """Under *resend* what is sent again is pending; what has no retry left stays uncertain and must not wait for ever."""
    delivery = mid_db.delivery(state=55, messages=3)
    with mid_db.database.connection() as conn:
        conn.execute("""update delivery set spec = spec || '{"uncertain_policy": "resend"}'""")
    record(mid_db, delivery, E.ACCEPTED, 1)
    record(mid_db, delivery, E.LOST, 2)
    assert record(mid_db, delivery, E.RESEND, 2) == 55
    assert record(mid_db, delivery, E.ACCEPTED, 2) == 55
    assert record(mid_db, delivery, E.LOST, 3) == 95


def test_messages_that_are_in_no_batch_are_found_again(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(state=45, messages=4, domains=2)
    order(mid_db, delivery, "start")
    record(mid_db, delivery, E.ACCEPTED, 1)
    record(mid_db, delivery, E.PUT_OFF, 2)
    with mid_db.database.connection() as conn:
        conn.execute("delete from dispatch_batch where destination = 'd0.test'")
    orders.sweep(mid_db.database, mid_db.clock.now())
    assert len(batches(mid_db)) == 1, "while it has one, it is not certain that any is missing"
    with mid_db.database.connection() as conn:
        conn.execute("delete from dispatch_batch")
    orders.sweep(mid_db.database, mid_db.clock.now())
    assert sorted(id_ for ids in batches(mid_db) for id_ in ids) == [2, 3, 4]
    orders.sweep(mid_db.database, mid_db.clock.now())
    assert sorted(id_ for ids in batches(mid_db) for id_ in ids) == [2, 3, 4]


def test_a_delivery_whose_row_cannot_be_read_stops_no_other(mid_db: MidDatabase) -> None:
    poison, good = mid_db.delivery(1, state=55, messages=1), mid_db.delivery(2, state=55)
    with mid_db.database.connection() as conn:
        conn.execute("update delivery set spec = '{}' where id = %s", (poison,))
    problems = orders.sweep(mid_db.database, mid_db.clock.now())
    assert [problem.partition(":")[0] for problem in problems] == [f"delivery {poison}"]
    with mid_db.database.connection() as conn:
        assert deliveries.find(conn, mid_db.account_id, good).state == 95


def test_wrong_counters_are_corrected_before_a_delivery_may_finish(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(state=55, messages=2)
    with mid_db.database.transaction() as conn:  # a counter that says the second message is sent too
        counters.write_batch(conn, mid_db.account_id, [delivery], mid_db.clock.now(), [(delivery, "d0.test", 6, 1, 1)])
    assert record(mid_db, delivery, E.ACCEPTED, 1) == 55
    with mid_db.database.connection() as conn:
        assert counters.totals(conn, mid_db.account_id, delivery) == {1: 1, 6: 1}
    assert record(mid_db, delivery, E.ACCEPTED, 2) == 95


def test_an_empty_delivery_is_finished_when_it_starts(mid_db: MidDatabase) -> None:
    assert order(mid_db, mid_db.delivery(state=45), "start") == 95


def test_pause_waits_for_what_is_leased_and_resume_goes_on(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(state=45, messages=5)
    order(mid_db, delivery, "start")
    lease(mid_db, delivery)
    assert order(mid_db, delivery, "pause") == 71
    assert order(mid_db, delivery, "pause") == 71
    orders.sweep(mid_db.database, mid_db.clock.now())
    assert record(mid_db, delivery, E.ACCEPTED, 1) == 71
    release(mid_db, delivery)
    assert orders.sweep(mid_db.database, mid_db.clock.now()) == ()
    assert order(mid_db, delivery, "pause") == 75
    assert order(mid_db, delivery, "start") == 75  # a late repeat of the first start undoes no pause
    assert order(mid_db, delivery, "resume") == 55
    assert order(mid_db, delivery, "resume") == 55


def test_a_delivery_knows_since_when_it_has_its_state(mid_db: MidDatabase) -> None:
    """The doctor judges by it how long a pause may take; when the delivery was started says nothing of that."""
    delivery, changed_at = mid_db.delivery(state=45, messages=1), []
    for verb in ("start", "pause", "pause", "resume"):
        mid_db.clock.advance(timedelta(days=1))
        order(mid_db, delivery, verb)
        with mid_db.database.connection() as conn:
            changed_at.append(scalar(conn, "select state_at from delivery"))
    day = timedelta(days=1)
    start, pause, again, resume = (moment - mid_db.clock.now() for moment in changed_at)
    assert (start, pause, again, resume) == (-3 * day, -2 * day, -2 * day, 0 * day)


def test_stop_cancels_what_is_planned_and_keeps_the_rest(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(state=45, messages=12_000, domains=1)
    order(mid_db, delivery, "start")
    record(mid_db, delivery, E.ACCEPTED, 1)
    record(mid_db, delivery, E.LOST, 2)
    record(mid_db, delivery, E.PUT_OFF, 3)
    assert order(mid_db, delivery, "stop") == 85
    with mid_db.database.connection() as conn:
        assert counters.totals(conn, mid_db.account_id, delivery) == {1: 1, 62: 1, 7: 11_998}
        assert scalar(conn, "select count(*) from dispatch_batch") == 0
        assert deliveries.find(conn, mid_db.account_id, delivery).finished_at is not None
    assert order(mid_db, delivery, "stop") == 85
    with pytest.raises(Conflict, match="stopped"):
        order(mid_db, delivery, "start")


def test_stop_leaves_leased_messages_to_their_process_and_ends_after_it(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(state=45, messages=600)
    order(mid_db, delivery, "start")
    with mid_db.database.connection() as conn:
        conn.execute(
            "update dispatch_batch set owner = 'mta', expires_at = now() - interval '1 hour' where 1 = any(ids)"
        )
    assert order(mid_db, delivery, "stop") == 85
    with mid_db.database.connection() as conn:
        assert counters.totals(conn, mid_db.account_id, delivery) == {6: 500, 7: 100}
    assert record(mid_db, delivery, E.ACCEPTED, *range(1, 500)) == 85
    assert record(mid_db, delivery, E.PUT_OFF, 500) == 85
    release(mid_db, delivery)
    assert orders.sweep(mid_db.database, mid_db.clock.now()) == ()
    with mid_db.database.connection() as conn:
        assert counters.totals(conn, mid_db.account_id, delivery) == {1: 499, 7: 101}
        assert deliveries.find(conn, mid_db.account_id, delivery).finished_at is not None
        assert scalar(conn, "select count(*) from dispatch_batch") == 0


def test_a_delivery_not_yet_started_can_be_stopped(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(state=25, messages=3)
    assert order(mid_db, delivery, "stop") == 85
    with mid_db.database.connection() as conn:
        assert counters.totals(conn, mid_db.account_id, delivery) == {7: 3}


@pytest.mark.parametrize(
    ("state", "verb"),
    [(25, "start"), (45, "pause"), (45, "resume"), (95, "pause"), (95, "stop"), (87, "resume"), (85, "pause")],
)
def test_an_order_that_the_state_forbids_is_refused_and_changes_nothing(
    mid_db: MidDatabase, state: int, verb: str
) -> None:
    delivery = mid_db.delivery(state=state, messages=1)
    with pytest.raises(Conflict, match=f"cannot {verb}"):
        order(mid_db, delivery, verb)
    with mid_db.database.connection() as conn:
        found = deliveries.find(conn, mid_db.account_id, delivery)
    assert (found.state, found.revision) == (state, 1)


def test_nonsense_is_refused(mid_db: MidDatabase) -> None:
    with pytest.raises(UserError, match="no order"):
        order(mid_db, mid_db.delivery(), "explode")
    with pytest.raises(NotFound):
        order(mid_db, 99, "start")


def test_every_change_of_state_shows_in_the_feed(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(state=45, messages=1)
    with mid_db.database.connection() as conn:
        before = scalar(conn, "select max(id) from feed_batch")
    for verb in ("start", "pause", "resume", "stop"):
        order(mid_db, delivery, verb)
        with mid_db.database.connection() as conn:
            found = conn.execute("select deliveries from feed_batch where id > %s", (before,)).fetchall()
            assert found
            assert all(touched == [delivery] for (touched,) in found)
            before = scalar(conn, "select max(id) from feed_batch")
