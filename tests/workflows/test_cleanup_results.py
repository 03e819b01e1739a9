"""Cleanup of a mid: results and ledger go when they were pulled and their time is over, expired deliveries are closed."""

from __future__ import annotations

from datetime import UTC

import pytest
from tests.workflows.cleanup_scene import (
    NOW,
    acknowledge,
    ago,
    clean,
    days_kept,
    forecast,
    of_mid,
    old_ledger,
    results,
    tables,
)

from midsource.marketing import handover
from midsource.mid import orders
from midsource.store.database import scalar
from midsource.testing.link import LinkedHalves
from midsource.workflows import delivery_counters, delivery_logs


def test_results_go_when_both_streams_have_them_and_two_weeks_passed(halves: LinkedHalves) -> None:
    numbers = {days: results(halves, days) for days in (50, 30, 20, 15, 10)}
    clean(of_mid(halves))
    assert days_kept(halves) == [50, 30, 20, 15, 10], "nobody has them"
    acknowledge(halves, numbers[20], "logs")
    clean(of_mid(halves))
    assert days_kept(halves) == [50, 30, 20, 15, 10], "the counters are not read yet"
    acknowledge(halves, numbers[20])
    assert forecast(of_mid(halves), "mid")["outcome_days"] >= 3
    clean(of_mid(halves))
    assert days_kept(halves) == [15, 10]
    acknowledge(halves, numbers[10])
    clean(of_mid(halves))
    assert days_kept(halves) == [10], "two weeks have not passed"
    kept = f"outcome_{ago(10).astimezone(UTC):%Y%m%d}"
    assert tables(halves.mid, "outcome")[0] == kept
    with halves.mid.connection() as conn:
        gone = conn.execute("select account_id, seq from feed_gone").fetchall()
    assert gone == [(halves.mid_account, numbers[15])]


def test_results_that_nobody_pulls_are_kept_until_the_limit(halves: LinkedHalves) -> None:
    results(halves, 70)
    results(halves, 55)
    clean(of_mid(halves))
    assert days_kept(halves) == [55]


def test_a_month_of_the_ledger_goes_when_its_results_were_pulled(halves: LinkedHalves) -> None:
    number = old_ledger(halves, 120)
    seq = results(halves, 121)
    with halves.mid.connection() as conn:  # a batch of that time that the limit has not forgotten yet
        conn.execute("update option set value = value")
        conn.execute(
            "insert into option (name, value, modified_by) values ('NmsCleanup_UnpulledPurgeDelay', '365d', 'test')"
        )
    clean(of_mid(halves))
    assert f"message_{number >> 32}" in tables(halves.mid, "message")
    acknowledge(halves, seq)
    clean(of_mid(halves))
    assert f"message_{number >> 32}" not in tables(halves.mid, "message")
    with halves.mid.connection() as conn:
        assert scalar(conn, "select ledger_dropped_at is not null from delivery where id = %s", (number,))
        assert scalar(conn, "select sum(n) from message_total where delivery_id = %s", (number,)) == 50
        conn.execute("update delivery set finished_at = %s", (ago(200),))
    clean(of_mid(halves))
    with halves.mid.connection() as conn:
        assert scalar(conn, "select count(*) from message_total") == 0
        assert scalar(conn, "select count(*) from delivery") == 0


def test_a_delivery_that_is_not_over_keeps_its_ledger(halves: LinkedHalves) -> None:
    number = old_ledger(halves, 120, state=45)
    clean(of_mid(halves))
    assert f"message_{number >> 32}" in tables(halves.mid, "message")


@pytest.mark.parametrize("state", [51, 62, 75])
def test_an_expired_delivery_is_closed_on_the_mid_and_marketing_hears_of_it(halves: LinkedHalves, state: int) -> None:
    number = halves.prepared(300)
    halves.run(handover.hand_over, number)
    orders.command(halves.mid, halves.mid_account, number, "start", NOW)
    halves.sent(number, range(1, 101))
    with halves.mid.transaction() as conn:
        conn.execute(
            "update delivery set state = %s, valid_until = now() - interval '2 hours' where id = %s", (state, number)
        )
        conn.execute(
            "update dispatch_batch set owner = 'alive', expires_at = now() + interval '1 minute' "
            "where id = (select min(id) from dispatch_batch)"
        )
        held = scalar(conn, "select cardinality(ids) from dispatch_batch where owner is not null")
    clean(of_mid(halves))
    with halves.mid.connection() as conn:
        states = dict(conn.execute("select state, count(*) from message group by 1").fetchall())
        assert states[6] >= 1, "what a process holds is its own"
        assert states[7] == 200 - states[6]
        assert states[6] <= held
        assert scalar(conn, "select finished_at is null from delivery")
        conn.execute("update dispatch_batch set owner = null, expires_at = null")
    clean(of_mid(halves))
    with halves.mid.connection() as conn:
        assert dict(conn.execute("select state, count(*) from message group by 1").fetchall()) == {1: 100, 7: 200}
        assert scalar(conn, "select state from delivery") == 95
        assert scalar(conn, "select count(*) from dispatch_batch") == 0
    halves.run(delivery_logs.run_once)
    halves.run(delivery_counters.run_once)
    assert halves.same_on_both_sides(number)
    with halves.marketing.connection() as conn:
        assert scalar(conn, "select state from delivery where id = %s", (number,)) == 95
