"""Both sides compared: everything that was deleted, corrupted or skipped is found, mended and told; a busy pair is left alone."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from midsource.engine.work import Cancelled
from midsource.marketing import accounts, gaps, handover, options, orders, reconcile, reconcile_reports
from midsource.marketing.reconcile_reports import Report
from midsource.mid import feed
from midsource.mid import orders as mid_orders
from midsource.model.errors import RemoteUnavailable
from midsource.model.message import MessageEvent
from midsource.store.database import scalar
from midsource.testing.link import LinkedHalves
from midsource.workflows import delivery_counters, delivery_logs
from midsource.workflows import reconcile as workflow

LOGS = f"NmsMidSourcing_LastBroadLog_{accounts.DEFAULT_NAME}"
COMPARER = Path(__file__).parent / "compare_process.py"
PEOPLE = 2500


def sent_delivery(halves: LinkedHalves, people: int = PEOPLE, serial: int = 1, excluded: int = 0) -> int:
    """A delivery that was handed over and started, and of which everything was sent and pulled."""
    number = halves.prepared(people, part_rows=1000, serial=serial, excluded=excluded)
    halves.run(handover.hand_over, number)
    with halves.marketing.transaction() as conn:
        orders.order(conn, number, "start", by="test", now=halves.clock.now())
    halves.run(orders.carry_order, number)
    halves.sent(number, range(1, people + 1))
    with halves.mid.transaction() as conn:
        mid_orders.advance(conn, halves.mid_account, number, halves.clock.now())
    pull(halves)
    assert halves.same_on_both_sides(number)
    return number


def pull(halves: LinkedHalves) -> None:
    """Bring every result that is there now: a running delivery would be waited for."""
    with halves.marketing.connection() as conn:
        conn.execute("update delivery set state = 75 where state in (51, 55, 62)")
        delivery_counters.run_once(halves.context())
        running = conn.execute("update delivery set state = 75 where state in (51, 55, 62) returning id").fetchall()
        delivery_logs.run_once(halves.context())
        conn.execute("update delivery set state = 55 where id = any(%s) and state = 75", ([row[0] for row in running],))


def compared(halves: LinkedHalves, number: int, *, mend: bool = True) -> Report:
    """Compare one delivery as the command does."""
    context = halves.context()
    with halves.marketing.transaction() as conn:
        report = reconcile_reports.begin(
            conn, number, accounts.DEFAULT_NAME, "test", halves.clock.now(), dry_run=not mend
        )
    with accounts.open_client(halves.marketing, halves.home, accounts.DEFAULT_NAME, halves.clock) as client:
        assert reconcile.compare(context, client, report, halves.clock.boot_seconds() + 60, mend=mend)
    return report


def latest(halves: LinkedHalves, number: int) -> Report:
    with halves.marketing.connection() as conn:
        return reconcile_reports.latest(conn, number, 1)[0]


def corrupt(halves: LinkedHalves, number: int) -> None:
    """Delete, turn back, falsify and promote rows of the log, and bend its totals; each in its own block where it can be."""
    with halves.marketing.transaction() as conn:
        for statement in (
            "delete from broad_log where delivery_id = %s and id in (7, 8)",
            "update broad_log set state = 6, revision = 0, attempts = 0, reply = '' where delivery_id = %s and id = 1500",
            "update broad_log set state = 2, reason = 20 where delivery_id = %s and id between 2001 and 2003",
            "update broad_log set state = 2, reason = 1, revision = 9 where delivery_id = %s and id = 2400",
            "update broad_log_total set n = n + 5 where delivery_id = %s and state = 1",
        ):
            conn.execute(statement, (number,))


def test_a_quiet_healthy_pair_has_no_difference(halves: LinkedHalves) -> None:
    number = sent_delivery(halves, excluded=3)
    report = compared(halves, number)
    assert report.is_clean
    assert report.is_settled
    assert report.blocks == 3
    assert report.rows == 0  # hashes were enough
    assert "no difference" in report.sentence()


def test_what_was_deleted_and_corrupted_is_found_mended_and_told(halves: LinkedHalves) -> None:
    number = sent_delivery(halves)
    corrupt(halves, number)
    workflow.run_once(halves.context())
    report = latest(halves, number)
    assert (report.missing, report.behind, report.changed, report.ahead) == (2, 1, 3, 1)
    assert report.repaired == 7
    assert report.differing == 3
    assert report.totals_wrong > 0
    assert (report.unexplained, report.lost, report.unjudged) == (0, 0, 0)
    assert {example["id"] for example in report.examples} == {7, 8, 1500, 2001, 2002, 2003, 2400}
    assert halves.same_on_both_sides(number)
    assert halves.totals_agree(number)
    told = halves.lines(f"delivery {number}: 3 blocks compared")
    assert len(told) == 1
    assert "2 rows were missing" in told[0]
    assert "7 rows repaired" in told[0]
    assert compared(halves, number).is_clean


def test_a_dry_run_says_the_same_and_changes_nothing(halves: LinkedHalves) -> None:
    number = sent_delivery(halves)
    corrupt(halves, number)
    report = compared(halves, number, mend=False)
    assert report.differences == 7
    assert report.repaired == 0
    assert report.totals_wrong > 0
    assert "dry run" in report.sentence()
    assert not halves.same_on_both_sides(number)
    assert not halves.totals_agree(number)


def test_a_restored_row_is_that_persons_again_or_nobodys(halves: LinkedHalves) -> None:
    number = sent_delivery(halves)
    with halves.marketing.transaction() as conn:
        person = scalar(
            conn,
            "insert into recipient (id, key, email, email_key, domain) overriding system value "
            "select recipient_id, 'mail:' || email, email, email, domain from broad_log where delivery_id = %s and id = 7 returning id",
            (number,),
        )
        conn.execute("delete from broad_log where delivery_id = %s and id in (7, 8)", (number,))
    compared(halves, number)
    with halves.marketing.connection() as conn:
        rows = conn.execute(
            "select recipient_id, email, domain, state, reply from broad_log where delivery_id = %s and id in (7, 8) order by id",
            (number,),
        ).fetchall()
    assert rows[0] == (person, "person7@orange.example", "orange.example", 1, "250 2.0.0 ok")
    assert rows[1] == (0, "", "sapo.example", 1, "250 2.0.0 ok")  # nobody has that address (any more): it is not kept


def test_a_row_the_mid_does_not_know_is_reported_and_kept(halves: LinkedHalves) -> None:
    number = sent_delivery(halves)
    with halves.mid.transaction() as conn:
        conn.execute("delete from message where delivery_id = %s and id = 42", (number,))
    report = compared(halves, number)
    assert report.unexplained == 1
    assert report.mid_counters_wrong == 1
    assert report.repaired == 0
    assert report.examples == [{"id": 42, "what": "unknown", "ours": [1, 0, 2], "mid": None}]
    with halves.marketing.connection() as conn:
        assert scalar(conn, "select state from broad_log where delivery_id = %s and id = 42", (number,)) == 1


def test_an_excluded_persons_row_that_is_gone_is_lost_on_both_sides(halves: LinkedHalves) -> None:
    number = sent_delivery(halves, excluded=3)
    with halves.marketing.transaction() as conn:
        conn.execute("delete from broad_log where delivery_id = %s and id = %s", (number, PEOPLE + 2))
    report = compared(halves, number)
    assert report.lost == 1
    assert not report.is_clean


def test_the_mids_counters_are_held_against_its_ledger(halves: LinkedHalves) -> None:
    number = sent_delivery(halves)
    with halves.mid.transaction() as conn:
        conn.execute("insert into message_total values (%s, %s, 'ghost.example', 1, 4)", (halves.mid_account, number))
    report = compared(halves, number)
    assert report.mid_counters_wrong == 1
    assert report.differences == 0
    assert compared(halves, number).is_clean


def test_results_that_an_option_set_forward_skipped_come_in(halves: LinkedHalves) -> None:
    number = sent_delivery(halves, people=1200)
    halves.sent(number, range(1, 301), MessageEvent.ACCEPTED)  # evidence only
    other = halves.prepared(1200, part_rows=1000, serial=2)
    halves.run(handover.hand_over, other)
    halves.sent(other, range(1, 701))
    feed.take_turn(halves.mid, halves.clock.now())
    time.sleep(0.01)
    with halves.marketing.transaction() as conn:  # what an operator does by plain SQL
        conn.execute("update pointer set reached_at = reached_at - interval '1 day' where stream = 'logs'")
        later = halves.clock.now() - timedelta(milliseconds=1)
        conn.execute("update option set value = %s where name = %s", (later.isoformat(), LOGS))
    pull(halves)
    assert not halves.same_on_both_sides(other)
    with halves.marketing.connection() as conn:
        gap = gaps.unfilled(conn)[0]
    assert (gap.stream, gap.cause) == ("logs", "set by hand")
    workflow.run_once(halves.context())
    report = latest(halves, other)
    assert report.behind == 700
    assert halves.same_on_both_sides(other)
    assert halves.totals_agree(other)
    with halves.marketing.connection() as conn:
        assert gaps.unfilled(conn) == []
    assert halves.lines("is filled")


def test_setting_the_option_by_command_records_the_gap_too(halves: LinkedHalves) -> None:
    sent_delivery(halves, people=10)
    now = halves.clock.now()
    with halves.marketing.transaction() as conn:
        conn.execute("update pointer set reached_at = reached_at - interval '1 day' where stream = 'logs'")
        options.set_value(conn, LOGS, (now - timedelta(minutes=1)).isoformat(), by="ines", now=now, yes=True)
        assert [gap.cause for gap in gaps.unfilled(conn)] == ["set by hand"]


def test_state_and_figures_come_from_the_mid(halves: LinkedHalves) -> None:
    number = sent_delivery(halves, people=20)
    with halves.marketing.transaction() as conn:
        assert scalar(conn, "select state from delivery where id = %s", (number,)) == 95
        conn.execute("update delivery set state = 55, figures = '{}', figures_at = null where id = %s", (number,))
    report = compared(halves, number)
    assert report.delivery_wrong
    with halves.marketing.connection() as conn:
        row = conn.execute("select state, figures from delivery where id = %s", (number,)).fetchone()
    assert row == (95, {"sent": 20})


def test_a_busy_pair_has_no_difference(halves: LinkedHalves) -> None:
    """Outcomes come as fast as they can, retries change rows again, the log follows: comparing finds nothing at all."""
    people = 6000
    number = halves.prepared(people, part_rows=2000)
    halves.run(handover.hand_over, number)
    with halves.marketing.transaction() as conn:
        orders.order(conn, number, "start", by="test", now=halves.clock.now())
    halves.run(orders.carry_order, number)
    stop = threading.Event()
    problems: list[BaseException] = []

    def work(body: object) -> None:
        try:
            while not stop.is_set():
                body()  # type: ignore[operator]
        except BaseException as exc:  # noqa: BLE001 - the test fails by it
            problems.append(exc)

    at = [0]

    def send() -> None:
        ids = range(1 + at[0] % people, 1 + min(people, at[0] % people + 150))
        halves.sent(number, ids, MessageEvent.PUT_OFF if at[0] < 3 * people else MessageEvent.ACCEPTED)
        at[0] += 150
        time.sleep(0.005)

    threads = [threading.Thread(target=work, args=(body,)) for body in (send, lambda: pull(halves))]
    for thread in threads:
        thread.start()
    try:
        reports = [compared(halves, number) for _ in range(6)]
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert problems == []
    assert [report.differences for report in reports] == [0] * 6
    assert not any(report.totals_wrong or report.lost or report.mid_counters_wrong for report in reports)
    assert sum(report.rows for report in reports) > 0  # it did move: hashes were not enough
    pull(halves)
    last = compared(halves, number)
    assert last.differences == last.totals_wrong == 0
    assert last.is_settled
    assert halves.same_on_both_sides(number)


@pytest.mark.parametrize("signal_after", [0.35, 0.6, 0.9])
def test_killed_in_the_middle_the_next_run_does_the_rest(halves: LinkedHalves, signal_after: float) -> None:
    number = sent_delivery(halves, people=20_000)
    with halves.marketing.transaction() as conn:
        conn.execute("update broad_log set state = 2 where delivery_id = %s and id %% 7 = 0", (number,))
        conn.execute("delete from broad_log where delivery_id = %s and id %% 501 = 0", (number,))
    command = [sys.executable, str(COMPARER), halves.marketing.dsn, str(halves.home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(signal_after)
        process.kill()
    with halves.marketing.connection() as conn:
        begun = reconcile_reports.latest(conn, number, 1)
    while workflow.run_once(halves.context()).more_after_seconds is not None:
        pass
    assert halves.same_on_both_sides(number)
    assert halves.totals_agree(number)
    report = latest(halves, number)
    assert report.finished_at is not None
    assert not begun or begun[0].id == report.id  # the same report, carried on
    assert report.missing == 20_000 // 501
    assert report.missing + report.changed == report.repaired
    assert compared(halves, number).is_clean


def test_a_stopped_worker_leaves_the_report_to_the_next(halves: LinkedHalves) -> None:
    number = sent_delivery(halves)
    corrupt(halves, number)
    beats = [0]

    def beat() -> None:
        beats[0] += 1
        if beats[0] == 3:
            raise Cancelled

    halves.beat = beat
    with pytest.raises(Cancelled):
        workflow.run_once(halves.context())
    halves.beat = lambda: None
    workflow.run_once(halves.context())
    report = latest(halves, number)
    assert report.finished_at is not None
    assert report.repaired == 7
    assert halves.same_on_both_sides(number)


def test_what_is_due_and_when_again(halves: LinkedHalves) -> None:
    number = sent_delivery(halves, people=10)
    now = halves.clock.now()

    def due(at: datetime) -> list[int]:
        with halves.marketing.connection() as conn:
            return [delivery for delivery, _ in gaps.due(conn, at)]

    assert due(now) == [number]
    workflow.run_once(halves.context())
    assert due(now) == []
    assert due(now + timedelta(minutes=31)) == []  # settled after its end: looked at again tomorrow
    assert due(now + timedelta(days=1, minutes=1)) == [number]
    with halves.marketing.transaction() as conn:
        conn.execute("update delivery set state = 55, finished_at = null where id = %s", (number,))
    assert due(now + timedelta(minutes=31)) == [number]  # it is under way
    with halves.marketing.transaction() as conn:
        conn.execute("update delivery set state = 95, finished_at = %s where id = %s", (now + timedelta(1), number))
    assert due(now + timedelta(days=1, minutes=40)) == [number]  # not yet compared since its end
    assert due(now + timedelta(days=30)) == []
    with halves.marketing.transaction() as conn:
        gaps.record(conn, accounts.DEFAULT_NAME, "logs", "set by hand", now - timedelta(2), now + timedelta(2))
    assert due(now + timedelta(days=30)) == [number]


def test_what_was_gone_at_the_mid_is_mended_by_its_ledger(halves: LinkedHalves) -> None:
    number = sent_delivery(halves, people=10)
    with halves.marketing.transaction() as conn:
        conn.execute("update broad_log set state = 6, revision = 0 where delivery_id = %s and id = 3", (number,))
        conn.execute("update delivery set finished_at = now() - interval '20 days' where id = %s", (number,))
        conn.execute("insert into feed_loss values (%s, 'logs', %s, 1, now(), now())", (accounts.DEFAULT_NAME, number))
    workflow.run_once(halves.context())
    assert latest(halves, number).behind == 1
    with halves.marketing.connection() as conn:
        assert scalar(conn, "select mended_at is not null from feed_loss")
        conn.execute("update delivery set log_dropped_at = now() where id = %s", (number,))
    assert "was dropped" in compared(halves, number).problem


def test_one_delivery_that_cannot_be_compared_stops_no_other(halves: LinkedHalves) -> None:
    broken, fine = sent_delivery(halves, people=10), sent_delivery(halves, people=10, serial=2)
    corrupt(halves, fine)
    with halves.marketing.transaction() as conn:
        conn.execute("insert into external_account (name, label, url, key_id, secret) select 'other', label, "
                     "'http://127.0.0.1:1', key_id, secret from external_account")  # fmt: skip
        conn.execute("update delivery set account = 'other' where id = %s", (broken,))
    with pytest.raises(RemoteUnavailable, match="1 deliveries could not be compared"):
        workflow.run_once(halves.context())
    assert latest(halves, fine).repaired == 2
    assert halves.same_on_both_sides(fine)


def test_a_delivery_the_mid_does_not_know_is_said(halves: LinkedHalves) -> None:
    number = sent_delivery(halves, people=10)
    with halves.mid.transaction() as conn:
        for table in ("message", "dispatch_batch", "delivery_part"):
            conn.execute(f"delete from {table} where delivery_id = %s", (number,))
        conn.execute("delete from delivery where id = %s", (number,))
    report = compared(halves, number)
    assert report.problem == "the mid does not know this delivery (any more)"
    assert not report.is_clean
