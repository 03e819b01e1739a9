"""Statistics by domain come from the mid's ledger, and equal the log's totals once everything was pulled."""

from __future__ import annotations

import pytest

from midsource.marketing import gaps, handover, orders, statistics
from midsource.mid import ledger
from midsource.mid import orders as mid_orders
from midsource.mid.ledger import OutcomeRecord
from midsource.model.errors import Failed, RemoteUnavailable
from midsource.model.message import MessageEvent
from midsource.store.database import Connection, StatementTimeout, scalar
from midsource.testing.link import LinkedHalves
from midsource.testing.proxy import Answer, Fault, FaultProxy, Pass, Seen
from midsource.wire import statistics as wire
from midsource.workflows import delivery_counters, delivery_logs, delivery_statistics

E = MessageEvent


def started(halves: LinkedHalves, people: int = 300, serial: int = 1) -> int:
    number = halves.prepared(people, excluded=7, serial=serial)
    halves.run(handover.hand_over, number)
    with halves.marketing.transaction() as conn:
        orders.order(conn, number, "start", by="test", now=halves.clock.now())
    halves.run(orders.carry_order, number)
    return number


def finish(halves: LinkedHalves, number: int, people: int = 300) -> None:
    halves.sent(number, range(1, people - 29))
    now = halves.clock.now()
    with halves.mid.transaction() as conn:
        failed = [OutcomeRecord(number, n, E.REFUSED, now, reason=1) for n in range(people - 29, people + 1)]
        ledger.record_outcomes(conn, halves.mid_account, failed, now)
        mid_orders.advance(conn, halves.mid_account, number, now)
    delivery_counters.run_once(halves.context())
    delivery_logs.run_once(halves.context())


def read(halves: LinkedHalves, number: int) -> statistics.Table:
    with halves.marketing.connection() as conn:
        return statistics.read(conn, number)


def test_by_domain_with_reasons_and_equal_to_the_log(halves: LinkedHalves) -> None:
    number = started(halves)
    finish(halves, number)
    delivery_statistics.run_once(halves.context())
    table = read(halves, number)
    assert table.agrees is True
    assert table.domains == 3
    assert {row.domain: row.messages for row in table.rows} == {
        "gmail.example": 100, "orange.example": 100, "sapo.example": 100,
    }  # fmt: skip
    told = statistics.as_dict(table)["rows"][0]
    assert (told["sent"], told["failed"], told["failed_because"]) == (90, 10, {"user unknown": 10})
    assert told["first_at"] is not None
    delivery_statistics.run_once(halves.context())  # nothing is due any more
    assert read(halves, number).read_at == table.read_at


def test_while_it_runs_nothing_is_claimed_about_agreement(halves: LinkedHalves) -> None:
    number = started(halves)
    halves.sent(number, range(1, 61))
    delivery_statistics.run_once(halves.context())
    table = read(halves, number)
    assert table.agrees is None
    assert sum(row.messages for row in table.rows) == 300


def test_a_difference_is_said_and_lets_the_delivery_be_compared(halves: LinkedHalves) -> None:
    number = started(halves)
    finish(halves, number)
    with halves.marketing.transaction() as conn:
        conn.execute("update broad_log_total set n = n - 1 where delivery_id = %s and state = 2", (number,))
        conn.execute(
            "insert into reconcile_report (delivery_id, account, asked_by, started_at, finished_at) "
            "select id, account, 'schedule', now(), now() from delivery where id = %s",
            (number,),
        )
        assert gaps.due(conn, halves.clock.now()) == []
    delivery_statistics.run_once(halves.context())
    assert halves.lines("the mid's statistics are not the log's totals")
    with halves.marketing.connection() as conn:
        assert [due for due, _ in gaps.due(conn, halves.clock.now())] == [number]


def test_only_the_largest_domains_have_names(halves: LinkedHalves, monkeypatch: pytest.MonkeyPatch) -> None:
    number = started(halves)
    with halves.mid.transaction() as conn:
        conn.execute("update message set domain = 'small' || id || '.example' where domain <> 'gmail.example'")
    monkeypatch.setattr("midsource.mid.statistics.MAX_DOMAINS", 11)
    delivery_statistics.run_once(halves.context())
    table = read(halves, number)
    assert table.domains == 201
    assert len(table.rows) == 12
    assert table.rows[0].domain == "gmail.example"
    assert (table.rows[-1].domain, table.rows[-1].messages) == (wire.OTHERS, 190)


def test_a_mid_that_does_not_answer_is_named(halves: LinkedHalves) -> None:
    number = started(halves)
    halves.link_to("http://127.0.0.1:1")
    with pytest.raises(RemoteUnavailable, match="1 external accounts could not be read"):
        delivery_statistics.run_once(halves.context())
    assert read(halves, number).read_at is None
    with halves.marketing.connection() as conn:
        assert scalar(conn, "select count(*) from delivery_stat") == 0


def test_statistics_that_cannot_be_kept_in_time_fail_the_run_with_its_time_limit(
    halves: LinkedHalves, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restarted, its statements have more time; as another class of error it would be tried again with as little."""
    numbers = [started(halves, 30, serial) for serial in (1, 2)]

    def keep(conn: Connection, _delivery_id: int, _told: wire.Statistics) -> bool | None:
        conn.execute("set local statement_timeout = 50")
        conn.execute("select pg_sleep(5)")
        return None

    monkeypatch.setattr(statistics, "keep", keep)
    with pytest.raises(StatementTimeout, match="2 deliveries could not be read") as caught:
        delivery_statistics.run_once(halves.context())
    assert all(str(number) in caught.value.cause for number in numbers)


def test_a_delivery_whose_statistics_come_too_late_stops_no_other_of_its_mid(
    halves: LinkedHalves, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was never marked as tried, so it was the first in every run, and all others of its account were left out."""
    slow, broken, fine = (started(halves, 30, serial) for serial in (1, 2, 3))
    unkept = statistics.keep

    def keep(conn: Connection, delivery_id: int, told: wire.Statistics) -> bool | None:
        if delivery_id == broken:
            raise ValueError("rows that nobody foresaw")
        return unkept(conn, delivery_id, told)

    monkeypatch.setattr(statistics, "keep", keep)
    asked: list[int] = []

    def fault(seen: Seen) -> Fault:
        asked.append(int(seen.path.split("/")[4]))
        return Answer(504) if asked[-1] == slow else Pass()

    with FaultProxy(halves.port, fault) as proxy:
        halves.link_to(proxy.url)
        with pytest.raises(Failed, match="2 deliveries could not be read") as caught:
            delivery_statistics.run_once(halves.context())
        assert "HTTP 504" in caught.value.cause
        assert "ValueError: rows that nobody foresaw" in caught.value.cause
        assert read(halves, fine).read_at is not None
        with halves.marketing.connection() as conn:
            conn.execute("update delivery_stat_read set read_at = read_at - interval '1 hour'")
            began = scalar(conn, "select clock_timestamp()")
        asked.clear()
        with pytest.raises(Failed, match="2 deliveries could not be read"):
            delivery_statistics.run_once(halves.context(began_at=began))
        assert asked == [fine, slow, broken], "what failed goes behind the others"
        with pytest.raises(Failed, match="2 deliveries could not be read"):
            delivery_statistics.run_once(halves.context(began_at=began))
        assert len(asked) == 3, "not again in the same run"
