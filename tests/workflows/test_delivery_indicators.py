"""A mid's counters, recounted every hour."""

from __future__ import annotations

from dataclasses import replace

from midsource.marketing import handover, orders
from midsource.mid import counters
from midsource.store.database import scalar
from midsource.testing.link import LinkedHalves
from midsource.workflows import delivery_indicators


def test_wrong_counters_are_corrected_by_the_ledger_and_right_ones_left(halves: LinkedHalves) -> None:
    numbers = [halves.prepared(20, serial=serial) for serial in (1, 2)]
    for number in numbers:
        halves.run(handover.hand_over, number)
        with halves.marketing.transaction() as conn:
            orders.order(conn, number, "start", by="test", now=halves.clock.now())
        halves.run(orders.carry_order, number)
        halves.sent(number, range(1, 6))
    context = replace(halves.context(), database=halves.mid)
    assert delivery_indicators.run_once(context).rows_written == 0
    with halves.mid.transaction() as conn:
        conn.execute(
            "insert into message_total values (%s, %s, 'ghost.example', 1, 9)", (halves.mid_account, numbers[1])
        )
    assert delivery_indicators.run_once(context).rows_written == 1
    assert halves.lines(f"1 counters of delivery {numbers[1]} were not its ledger's and are corrected")
    with halves.mid.connection() as conn:
        assert counters.totals(conn, halves.mid_account, numbers[1]) == {1: 5, 6: 15}
        conn.execute("update delivery set ledger_dropped_at = now() where id = %s", (numbers[0],))
        conn.execute("delete from message where delivery_id = %s", (numbers[0],))
    assert delivery_indicators.run_once(context).rows_written == 0  # what cleanup dropped keeps its counters
    with halves.mid.connection() as conn:
        assert counters.totals(conn, halves.mid_account, numbers[0]) == {1: 5, 6: 15}


def test_messages_whose_validity_is_over_are_ended_where_no_mta_runs(halves: LinkedHalves) -> None:
    number = halves.prepared(20)
    halves.run(handover.hand_over, number)
    with halves.marketing.transaction() as conn:
        orders.order(conn, number, "start", by="test", now=halves.clock.now())
    halves.run(orders.carry_order, number)
    with halves.mid.transaction() as conn:
        conn.execute("update delivery set valid_until = now() - interval '1 second'")
    delivery_indicators.run_once(replace(halves.context(), database=halves.mid))
    with halves.mid.connection() as conn:
        assert counters.totals(conn, halves.mid_account, number) == {7: 20}
        assert scalar(conn, "select state from delivery") == 95
