"""A mid's counters, recounted every hour."""

from __future__ import annotations

import threading
from dataclasses import replace

import psycopg
import pytest

from midsource.engine.work import Report
from midsource.marketing import handover, orders
from midsource.mid import counters, indicators
from midsource.net.clock import SystemClock
from midsource.store.database import Database, StatementTimeout, scalar
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


class Ticking(SystemClock):
    """A clock on which each look takes a second, however fast the machine is."""

    def __init__(self) -> None:
        self._looks = 0

    def boot_seconds(self) -> float:
        self._looks += 1
        return float(self._looks)


def test_the_end_of_the_list_is_counted_however_short_the_slices(
    halves: LinkedHalves, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run began again at the lowest number, and what no longer fitted into it was never counted."""
    numbers = [halves.prepared(20, serial=serial) for serial in (1, 2, 3)]
    for number in numbers:
        halves.run(handover.hand_over, number)
    with halves.mid.transaction() as conn:
        conn.execute("update delivery set started_at = now()")
        began = scalar(conn, "select clock_timestamp()")
        conn.execute(
            "insert into message_total values (%s, %s, 'ghost.example', 1, 9)", (halves.mid_account, numbers[2])
        )
    monkeypatch.setattr(delivery_indicators, "SLICE_SECONDS", 0.5)
    drift, asked = indicators.drift, []

    def counting(database: Database, account: int, number: int) -> int:
        asked.append(number)
        if number == numbers[0]:
            raise StatementTimeout("too slow", "")
        return drift(database, account, number)

    monkeypatch.setattr(indicators, "drift", counting)

    def a_slice() -> Report:
        return delivery_indicators.run_once(
            replace(halves.context(began_at=began), database=halves.mid, clock=Ticking())
        )

    assert [a_slice().more_after_seconds for _ in range(2)] == [0.0, 0.0]
    with pytest.raises(StatementTimeout, match=f"1 deliveries could not be counted in time: {numbers[0]}"):
        a_slice()
    assert asked == numbers
    assert halves.lines(f"1 counters of delivery {numbers[2]} were not its ledger's and are corrected")
    asked.clear()
    with halves.mid.connection() as conn:
        began = scalar(conn, "select clock_timestamp()")
        conn.execute(
            "update delivery_count set counted_at = counted_at - interval '1 hour' where delivery_id = %s",
            (numbers[1],),
        )
    a_slice()
    assert asked == [numbers[1]], "the next run begins with what waited longest"


def test_a_delivery_that_cannot_be_counted_in_time_is_named_and_the_next_run_has_more_time(
    halves: LinkedHalves, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indicators, "COUNT_SECONDS", 0.2)
    number = halves.prepared(20)
    halves.run(handover.hand_over, number)
    with halves.marketing.transaction() as conn:
        orders.order(conn, number, "start", by="test", now=halves.clock.now())
    halves.run(orders.carry_order, number)
    context = replace(halves.context(), database=halves.mid)
    with psycopg.connect(halves.mid.dsn) as other:
        other.execute("lock table message_total in access exclusive mode")
        with pytest.raises(StatementTimeout, match=f"1 deliveries could not be counted in time: {number}"):
            delivery_indicators.run_once(context)
        longer = halves.mid.on_behalf_of("run", statement_seconds=30)
        threading.Timer(1.0, other.rollback).start()
        assert delivery_indicators.run_once(replace(context, database=longer)).rows_read == 1
