"""Orders: stored first, carried until the mid confirms, also over a link that is cut."""

from __future__ import annotations

from datetime import timedelta

import pytest

from midsource.engine.work import Report
from midsource.marketing import deliveries, handover, orders, sync
from midsource.marketing.deliveries import Delivery
from midsource.marketing.orders import Ordered
from midsource.model.errors import Conflict, RemoteRefused, UserError
from midsource.store.database import scalar
from midsource.testing.link import LinkedHalves
from midsource.testing.proxy import Answer, CutAnswer, FaultProxy, Pass


def order(halves: LinkedHalves, delivery: int, verb: str) -> Ordered:
    with halves.marketing.transaction() as conn:
        return orders.order(conn, delivery, verb, "alice", halves.clock.now())


def seen(halves: LinkedHalves, delivery: int) -> Delivery:
    with halves.marketing.connection() as conn:
        return deliveries.get(conn, delivery)


def jobs(halves: LinkedHalves) -> list[str]:
    with halves.marketing.connection() as conn:
        return [kind for (kind,) in conn.execute("select kind from job where finished_at is null order by asked_at")]


def mid_state(halves: LinkedHalves, delivery: int) -> int:
    with halves.mid.connection() as conn:
        return int(scalar(conn, "select state from delivery where id = %s", (delivery,)))


def carry(halves: LinkedHalves, delivery: int) -> Report:
    return orders.carry_order(halves.context(delivery))


def states(halves: LinkedHalves, delivery: int) -> dict[int, int]:
    """Count the log rows by state."""
    with halves.marketing.connection() as conn:
        found = conn.execute("select state, count(*) from broad_log where delivery_id = %s group by 1", (delivery,))
        return dict(found.fetchall())


@pytest.fixture
def ready(halves: LinkedHalves) -> int:
    delivery = halves.prepared(300, part_rows=100)
    halves.run(handover.hand_over, delivery)
    return delivery


def started(halves: LinkedHalves, delivery: int) -> int:
    order(halves, delivery, "start")
    halves.run(orders.carry_order, delivery)
    return delivery


def test_a_start_is_unconfirmed_until_the_mid_says_yes(halves: LinkedHalves, ready: int) -> None:
    assert order(halves, ready, "start").job == f"order-{ready}-1"
    assert seen(halves, ready).is_unconfirmed
    halves.run(orders.carry_order, ready)
    after = seen(halves, ready)
    assert (after.state, after.is_unconfirmed, mid_state(halves, ready)) == (51, False, 51)
    assert after.started_at is not None


def test_results_are_pulled_at_once_after_a_start(halves: LinkedHalves, ready: int) -> None:
    with halves.marketing.connection() as conn:
        conn.execute(
            "insert into workflow (name, schedule, next_at) select unnest(%s::text[]), '7 * * * *', now() + interval '1 hour'",
            (list(orders.FOLLOWERS),),
        )
    started(halves, ready)
    with halves.marketing.connection() as conn:
        assert scalar(conn, "select count(*) from workflow where next_at <= now()") == 2


def test_a_run_that_just_ends_does_not_absorb_the_wake(halves: LinkedHalves, ready: int) -> None:
    """It looked before the delivery started; the log stood still until the next hour."""
    with halves.marketing.connection() as conn:
        conn.execute(
            "insert into workflow (name, schedule, next_at) select unnest(%s::text[]), '7 * * * *', now() + interval '1 hour'",
            (list(orders.FOLLOWERS),),
        )
        conn.execute("insert into workflow_run (workflow) values ('defaultMidSourcingLog')")
    started(halves, ready)
    with halves.marketing.connection() as conn:
        due = "select extract(epoch from next_at - now())::float8 from workflow where name = %s"
        assert scalar(conn, due, ("defaultMidSourcingDlv",)) <= 0
        assert 0 < scalar(conn, due, ("defaultMidSourcingLog",)) <= orders.AFTER_RUN_SECONDS


def test_sending_an_unprepared_delivery_begins_with_its_preparation(halves: LinkedHalves, ready: int) -> None:
    with halves.marketing.connection() as conn:
        conn.execute("update delivery set state = 0")
    order(halves, ready, "start")
    assert jobs(halves) == ["prepare"]
    assert seen(halves, ready).confirmed_at is not None


def test_a_pause_ordered_while_the_link_is_cut_takes_effect_when_it_returns(halves: LinkedHalves, ready: int) -> None:
    with FaultProxy(halves.port) as proxy:
        halves.link_to(proxy.url)
        started(halves, ready)
        proxy.down()
        order(halves, ready, "pause")
        report = carry(halves, ready)
        assert report.more_after_seconds is not None
        assert report.more_after_seconds > 0.7
        halves.sent(ready, range(1, 101))  # the mid sends on alone
        assert seen(halves, ready).is_unconfirmed
        assert mid_state(halves, ready) == 51
        assert halves.lines("ExecCommand pause: no answer (connection refused), attempt 1, next in ")
        proxy.up()
        halves.run(orders.carry_order, ready)
    assert not seen(halves, ready).is_unconfirmed
    assert mid_state(halves, ready) == 75
    assert seen(halves, ready).state == 75


def test_the_back_off_of_an_order_stays_below_a_minute(halves: LinkedHalves, ready: int) -> None:
    with FaultProxy(halves.port) as proxy:
        halves.link_to(proxy.url)
        proxy.down()
        order(halves, ready, "start")
        pauses = [carry(halves, ready).more_after_seconds or 0 for _ in range(9)]
    assert pauses[0] <= 1
    assert pauses[3] > 4
    assert max(pauses) <= 60


def test_an_order_whose_answer_was_lost_is_repeated_and_holds(halves: LinkedHalves, ready: int) -> None:
    with FaultProxy(halves.port, lambda seen: CutAnswer(0) if seen.number == 1 else Pass()) as proxy:
        halves.link_to(proxy.url)
        order(halves, ready, "start")
        halves.run(orders.carry_order, ready)
        assert len(proxy.seen) == 2
    with halves.mid.connection() as conn:
        assert scalar(conn, "select sum(cardinality(ids)) from dispatch_batch") == 300


def test_only_the_last_order_counts(halves: LinkedHalves, ready: int) -> None:
    started(halves, ready)
    order(halves, ready, "pause")
    order(halves, ready, "resume")
    halves.run(orders.carry_order, ready)
    assert mid_state(halves, ready) == 51
    assert carry(halves, ready).note == "nothing is left to confirm"


def test_a_start_waits_for_its_contact_date(halves: LinkedHalves, ready: int) -> None:
    with halves.marketing.connection() as conn:
        conn.execute("update delivery set contact_at = %s", (halves.clock.now() + timedelta(seconds=20),))
    order(halves, ready, "start")
    report = carry(halves, ready)
    assert report.more_after_seconds is not None
    assert 15 < report.more_after_seconds <= 20
    assert mid_state(halves, ready) == 45
    with halves.marketing.connection() as conn:
        conn.execute("update delivery set contact_at = %s", (halves.clock.now(),))
    halves.run(orders.carry_order, ready)
    assert mid_state(halves, ready) == 51


def test_a_pause_before_the_start_arrived_takes_the_start_back(halves: LinkedHalves, ready: int) -> None:
    order(halves, ready, "start")
    order(halves, ready, "pause")
    halves.run(orders.carry_order, ready)
    after = seen(halves, ready)
    assert (after.state, after.ordered, after.confirmed_at) == (45, None, None)


def test_a_stop_before_the_start_holds_on_both_sides(halves: LinkedHalves, ready: int) -> None:
    assert order(halves, ready, "stop").state == 85
    halves.run(orders.carry_order, ready)
    assert mid_state(halves, ready) == 85
    halves.run(lambda context: sync.pull(context, "logs"))
    assert halves.same_on_both_sides(ready)


def test_a_stop_of_a_running_delivery_cancels_what_is_pending(halves: LinkedHalves, ready: int) -> None:
    started(halves, ready)
    halves.sent(ready, range(1, 51))
    order(halves, ready, "stop")
    halves.run(orders.carry_order, ready)
    halves.run(lambda context: sync.pull(context, "deliveries"))
    halves.run(lambda context: sync.pull(context, "logs"))
    assert seen(halves, ready).figures == {"sent": 50, "cancelled": 250}
    assert halves.same_on_both_sides(ready)
    assert halves.totals_agree(ready)


def test_a_stop_of_a_delivery_the_mid_never_heard_of_is_confirmed(halves: LinkedHalves) -> None:
    delivery = halves.prepared(10)
    order(halves, delivery, "stop")
    halves.run(orders.carry_order, delivery)
    assert not seen(halves, delivery).is_unconfirmed
    assert states(halves, delivery) == {7: 10}
    assert halves.totals_agree(delivery)


def test_a_stop_in_the_middle_of_the_hand_over_leaves_nobody_pending(halves: LinkedHalves) -> None:
    delivery = halves.prepared(600, part_rows=100, excluded=4)
    with FaultProxy(halves.port, lambda seen: CutAnswer(0) if seen.path.endswith("/parts/5") else Pass()) as proxy:
        halves.link_to(proxy.url)
        handover.hand_over(halves.context(delivery))
        with halves.marketing.connection() as conn:
            assert scalar(conn, "select count(*) from upload_part where state <> 'acknowledged'") > 0
        order(halves, delivery, "stop")
        halves.run(orders.carry_order, delivery)
        assert halves.run(handover.hand_over, delivery).note.endswith("is stopped already")
        halves.run(lambda context: sync.pull(context, "logs"))
    assert states(halves, delivery) == {0: 4, 7: 600}
    assert halves.totals_agree(delivery)


def test_a_wrong_key_ends_the_order_with_its_sentence(halves: LinkedHalves, ready: int) -> None:
    halves.link_to(f"http://127.0.0.1:{halves.port}", key="wrong." + "x" * 43)
    order(halves, ready, "start")
    with pytest.raises(RemoteRefused):
        carry(halves, ready)
    assert "does not know the key" in seen(halves, ready).error
    assert seen(halves, ready).is_unconfirmed


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_an_order_that_makes_no_sense_is_refused(halves: LinkedHalves, ready: int, verb: str) -> None:
    with pytest.raises(Conflict, match="is ready"):
        order(halves, ready, verb)


def test_an_unknown_verb_is_refused(halves: LinkedHalves, ready: int) -> None:
    with pytest.raises(UserError, match="start, pause, resume, stop"):
        order(halves, ready, "play")


def test_a_running_delivery_is_not_started_twice(halves: LinkedHalves, ready: int) -> None:
    started(halves, ready)
    with pytest.raises(Conflict, match="already"):
        order(halves, ready, "start")


def test_a_stop_refused_for_a_wrong_key_is_given_again_and_leaves_nobody_pending(halves: LinkedHalves) -> None:
    delivery = halves.prepared(30, part_rows=10)
    halves.link_to(f"http://127.0.0.1:{halves.port}", key="wrong." + "x" * 43)
    assert order(halves, delivery, "stop").state == 85
    with pytest.raises(RemoteRefused):
        carry(halves, delivery)
    assert states(halves, delivery) == {6: 30}
    halves.link_to(f"http://127.0.0.1:{halves.port}")
    assert order(halves, delivery, "stop").job
    halves.run(orders.carry_order, delivery)
    assert states(halves, delivery) == {7: 30}
    with pytest.raises(Conflict, match="is stopped"):
        order(halves, delivery, "stop")


def test_a_stop_is_not_confirmed_by_a_server_that_is_no_mid(halves: LinkedHalves, ready: int) -> None:
    """A proxy's own 404 while the mid is away: the mid sends on, so nothing may say that it was stopped."""
    started(halves, ready)
    page = Answer(404, body=b"<html>nothing here</html>", content_type="text/html")
    with FaultProxy(halves.port, lambda _seen: page) as proxy:
        halves.link_to(proxy.url)
        order(halves, ready, "stop")
        with pytest.raises(RemoteRefused, match="is not a mid-sourcing server"):
            carry(halves, ready)
    after = seen(halves, ready)
    assert (after.is_unconfirmed, after.state, states(halves, ready)) == (True, 51, {6: 300})


def test_to_resume_what_has_not_started_never_replaces_the_start(halves: LinkedHalves, ready: int) -> None:
    order(halves, ready, "start")
    with pytest.raises(Conflict, match="is ready: resume is not possible"):
        order(halves, ready, "resume")
    halves.run(orders.carry_order, ready)
    assert mid_state(halves, ready) == 51


def test_an_order_that_the_mids_state_forbids_is_over_and_says_why(halves: LinkedHalves, ready: int) -> None:
    """The delivery ended on the mid before the pause arrived: it must not show as not confirmed for ever."""
    started(halves, ready)
    with halves.mid.connection() as conn:
        conn.execute("update delivery set state = 95, finished_at = now()")
    order(halves, ready, "pause")
    with pytest.raises(RemoteRefused):
        carry(halves, ready)
    after = seen(halves, ready)
    assert (after.is_unconfirmed, after.ordered) == (False, None)
    assert "finished" in after.error


@pytest.mark.parametrize(("was_started", "state"), [(False, 7), (True, 62)])
def test_a_stop_of_what_a_restored_mid_no_longer_knows_leaves_nobody_pending(
    halves: LinkedHalves, ready: int, was_started: bool, state: int
) -> None:
    """Never started: cancelled. Started: it may have been sent before the mid forgot it, so it is uncertain."""
    if was_started:
        started(halves, ready)
    with halves.mid.connection() as conn:
        conn.execute("truncate delivery, message, dispatch_batch, delivery_part cascade")
    order(halves, ready, "stop")
    halves.run(orders.carry_order, ready)
    assert (seen(halves, ready).state, states(halves, ready)) == (85, {state: 300})
    assert halves.totals_agree(ready)


def test_a_confirmed_stop_forgets_the_stored_addresses(halves: LinkedHalves) -> None:
    delivery = halves.prepared(30, part_rows=10)
    order(halves, delivery, "stop")
    halves.run(orders.carry_order, delivery)
    with halves.marketing.connection() as conn:
        assert scalar(conn, "select count(*) from upload_part where body is not null") == 0
