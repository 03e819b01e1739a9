"""Cleanup on both roles: what is over goes, what lives stays, a step that fails stops no other."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from datetime import UTC, timedelta

import psycopg
import pytest
from tests.workflows.cleanup_scene import (
    NOW,
    acknowledge,
    ago,
    begin,
    clean,
    done,
    end,
    forecast,
    of_mid,
    old_delivery,
    old_ledger,
    results,
    tables,
)

from midsource.config import InstanceConfig
from midsource.engine.work import Context
from midsource.marketing import delivery_log, handover, totals
from midsource.marketing.options import TABLE as MARKETING
from midsource.mid import feed, orders
from midsource.model.errors import Conflict, Failed, Unhealthy
from midsource.model.message import MessageState
from midsource.model.options import LAST_CLEANUP
from midsource.net.clock import SystemClock
from midsource.store import cleanup_status
from midsource.store.database import StatementTimeout, scalar
from midsource.testing.link import LinkedHalves
from midsource.workflows import cleanup, delivery_logs


def test_a_month_of_logs_goes_whole_and_its_figures_stay(halves: LinkedHalves) -> None:
    old, recent = old_delivery(halves, 250), old_delivery(halves, 100)
    assert forecast(halves.context(), "marketing")["delivery_logs"] >= 0
    clean(halves.context())
    assert f"broad_log_{old >> 32}" not in tables(halves.marketing, "broad_log")
    assert f"broad_log_{recent >> 32}" in tables(halves.marketing, "broad_log")
    with halves.marketing.connection() as conn:
        assert totals.by_state(conn, old) == {MessageState.SENT: 100}
        assert scalar(conn, "select log_dropped_at is not null from delivery where id = %s", (old,))
        assert not scalar(conn, "select log_dropped_at is not null from delivery where id = %s", (recent,))
        assert MARKETING.get_value(conn, LAST_CLEANUP).startswith(f"{SystemClock().now():%Y-%m-%d}")
        with pytest.raises(Conflict, match="was dropped on"):
            totals.recount(conn, old)
    with pytest.raises(Conflict, match="was dropped on"):
        list(delivery_log.entries(halves.marketing, old))
    assert len(list(delivery_log.entries(halves.marketing, recent))) == 100
    totals.recount_ended(halves.marketing, lambda _level, _line: None)
    with halves.marketing.connection() as conn:
        assert totals.by_state(conn, old) == {MessageState.SENT: 100}
    assert done(halves.marketing)["delivery_logs"].outcome == "finished"
    assert clean(halves.context()) == 0


def test_a_month_left_by_a_cut_drop_comes_back_when_logs_are_kept_longer_by_then(halves: LinkedHalves) -> None:
    old = old_delivery(halves, 250)
    with halves.marketing.connection() as conn:
        conn.execute(f"alter table broad_log detach partition broad_log_{old >> 32} concurrently", prepare=False)
        conn.execute(
            "insert into option (name, value, modified_by) values ('NmsCleanup_BroadLogPurgeDelay', '400d', 'test')"
        )
    clean(halves.context())
    assert f"broad_log_{old >> 32}" in tables(halves.marketing, "broad_log")
    with halves.marketing.connection() as conn:
        assert totals.recount(conn, old) == 0
        assert scalar(conn, "select log_dropped_at from delivery where id = %s", (old,)) is None


def test_a_day_left_by_a_cut_drop_comes_back_while_its_results_are_kept(halves: LinkedHalves) -> None:
    results(halves, 20)
    day = f"outcome_{ago(20).astimezone(UTC):%Y%m%d}"
    with halves.mid.connection() as conn:
        conn.execute(f"alter table outcome detach partition {day} concurrently", prepare=False)
    clean(of_mid(halves))
    assert day in tables(halves.mid, "outcome")
    with halves.mid.connection() as conn:
        assert scalar(conn, "select count(*) from outcome where day = %s", (ago(20).astimezone(UTC).date(),)) == 5


def test_a_delivery_that_is_not_over_keeps_its_month(halves: LinkedHalves) -> None:
    number = old_delivery(halves, 250, state=62, message_state=61)
    instance = InstanceConfig(name="marketing", role="marketing", port=1)
    seen = cleanup.overview(halves.marketing, halves.home, instance, NOW, only="delivery_logs")[0].forecast
    assert seen.note == f"delivery {number} of {number >> 32} is not over"
    clean(halves.context())
    assert f"broad_log_{number >> 32}" in tables(halves.marketing, "broad_log")


def test_a_step_that_fails_is_named_and_the_others_are_done(halves: LinkedHalves) -> None:
    old = old_delivery(halves, 250)
    with halves.marketing.connection() as conn:
        conn.execute("alter table link_event rename to link_event_away")
        conn.execute("insert into audit (at, who, via, verb) values (now() - interval '200 days', 'a', 'cli', 'b')")
    with pytest.raises(
        Unhealthy, match=r"1 steps of cleanup failed and the others are done: link_events: .*link_event"
    ):
        clean(halves.context())
    assert f"broad_log_{old >> 32}" not in tables(halves.marketing, "broad_log")
    found = done(halves.marketing)
    assert (found["link_events"].outcome, found["link_events"].failures) == ("failed", 1)
    assert found["link_events"].error_class == "Unhealthy"
    assert (found["audit"].outcome, found["audit"].rows) == ("finished", 1)
    with halves.marketing.connection() as conn:
        assert MARKETING.get_value(conn, LAST_CLEANUP) == ""
        conn.execute("alter table link_event_away rename to link_event")
    clean(halves.context())
    assert done(halves.marketing)["link_events"].failures == 0


@pytest.mark.parametrize("also_fails", [False, True])
def test_steps_that_all_ran_into_their_time_limit_fail_the_run_with_it(halves: LinkedHalves, also_fails: bool) -> None:
    """The next run gives each statement more time only where that helps."""
    context = replace(halves.context(), database=halves.marketing.on_behalf_of("run", statement_seconds=1))
    if also_fails:
        with halves.marketing.connection() as conn:
            conn.execute("alter table pull_gap rename to pull_gap_away")
    with psycopg.connect(halves.marketing.dsn) as other:
        other.execute("lock table link_event, feed_loss in access exclusive mode")
        with pytest.raises(Failed, match="steps of cleanup failed") as raised:
            clean(context)
    assert type(raised.value) is (Failed if also_fails else StatementTimeout)
    found = done(halves.marketing)
    assert found["link_events"].error_class == found["feed_losses"].error_class == "StatementTimeout"


class Hurried(SystemClock):
    """A clock by which each look at it takes twenty seconds: a slice is over after a page or two."""

    def __init__(self) -> None:
        self._looks = 0.0

    def boot_seconds(self) -> float:
        self._looks += 20
        return self._looks


def test_a_run_goes_on_with_the_next_slice_where_it_stopped(halves: LinkedHalves) -> None:
    old_delivery(halves, 250)
    with halves.marketing.connection() as conn:
        conn.execute(
            "insert into audit (at, who, via, verb) select now() - interval '200 days', 'a', 'cli', 'b' "
            "from generate_series(1, 25000)"
        )
    context = replace(halves.context(), clock=Hurried())
    begin(halves.marketing)
    slices = 1
    while cleanup.run_once(context).more_after_seconds is not None:
        slices += 1
        assert slices < 100
    end(halves.marketing, "finished")
    assert slices > 5
    status = done(halves.marketing)["audit"]
    assert (status.rows, status.rows_before, status.rows_after, status.outcome) == (25_000, 25_000, 0, "finished")
    with halves.marketing.connection() as conn:
        assert scalar(conn, "select count(*) from audit") == 0


def test_a_run_does_only_the_steps_it_was_asked_for(halves: LinkedHalves) -> None:
    old = old_delivery(halves, 250)
    run = begin(halves.marketing)
    with halves.marketing.transaction() as conn:
        cleanup_status.ask(conn, run, "audit")
    cleanup.run_once(halves.context())
    end(halves.marketing, "finished")
    assert set(done(halves.marketing)) == {"audit"}
    assert f"broad_log_{old >> 32}" in tables(halves.marketing, "broad_log")


def test_the_dry_run_says_what_goes_and_changes_nothing(halves: LinkedHalves) -> None:
    halves.prepared(10)
    rejects = halves.home / "rejects"
    rejects.mkdir()
    for name, days in (("old.csv", 200), ("new.csv", 1)):
        (rejects / name).write_text("line,reason,raw\n")
        os.utime(rejects / name, (ago(days).timestamp(), ago(days).timestamp()))
    with halves.marketing.connection() as conn:
        conn.execute(
            "insert into quarantine (address_key, state, reason, since) values ('a@b', 1, 5, %(old)s), ('c@d', 1, 5, now()), "
            "('full@b', 3, 5, now() - interval '31 days'), ('gone@b', 3, 1, %(old)s), ('listed@b', 4, 8, %(old)s)",
            {"old": ago(400)},
        )
        conn.execute("insert into list_member values (1, 1)")
        conn.execute("insert into workflow (name, schedule) values ('x', '* * * * *')")
        conn.execute(
            "insert into workflow_run (workflow, finished_at, outcome) select 'x', %s, 'finished' from generate_series(1, 30)",
            (ago(31),),
        )
        conn.execute(
            "insert into workflow_journal (at, workflow, level, line) values (%(a)s, 'x', 'info', ''), (%(a)s, 'job:1', 'info', ''), "
            "(%(b)s, 'job:2', 'info', '')",
            {"a": ago(31), "b": ago(91)},
        )
    seen = forecast(halves.context(), "marketing")
    assert {name: rows for name, rows in seen.items() if rows} == {
        "addresses_with_errors": 1, "full_mailboxes": 1, "list_members": 1, "import_rejects": 1, "workflow_runs": 10,
        "workflow_journals": 1, "job_journals": 1,
    }  # fmt: skip
    assert clean(halves.context()) == sum(seen.values())
    assert not any(forecast(halves.context(), "marketing").values())
    assert [path.name for path in rejects.iterdir()] == ["new.csv"]
    with halves.marketing.connection() as conn:
        left = [row[0] for row in conn.execute("select address_key from quarantine order by 1").fetchall()]
    assert left == ["c@d", "gone@b", "listed@b"]


def test_an_expired_delivery_of_a_silent_mid_is_closed_here_without_calling_sent_messages_cancelled(
    halves: LinkedHalves,
) -> None:
    number = halves.prepared(300)
    halves.run(handover.hand_over, number)
    with halves.marketing.transaction() as conn:
        conn.execute(
            "update delivery set state = 55, started_at = %s, figures_at = null, figures = '{}' where id = %s",
            (ago(30), number),
        )
        conn.execute("update upload_part set state = 'stored' where delivery_id = %s and first_id > 250", (number,))
        conn.execute("update upload_part set last_id = 250 where first_id = 1")
        conn.execute(
            "update pointer set generation = (select gen_random_uuid()), reached_at = %s where stream = 'logs'",
            (ago(29),),
        )
    clean(halves.context())
    with halves.marketing.connection() as conn:
        found = dict(conn.execute("select state, count(*) from broad_log group by 1").fetchall())
        assert found == {62: 250, 7: 50}
        state, finished_at = conn.execute("select state, finished_at from delivery").fetchone()  # type: ignore[misc]
    assert state == 95
    assert abs(finished_at - ago(25)) < timedelta(hours=1)
    assert halves.totals_agree(number)


def test_a_delivery_whose_totals_alone_say_open_is_recounted_and_holds_up_no_other(halves: LinkedHalves) -> None:
    number = halves.prepared(300)
    drifted = old_delivery(halves, 60, state=55)
    with halves.marketing.transaction() as conn:
        conn.execute("insert into broad_log_total values (%s, 'old.example', 6, 0, 3)", (drifted,))
        conn.execute("update delivery set state = 55, started_at = %s where id = %s", (ago(30), number))
        conn.execute(
            "update pointer set generation = (select gen_random_uuid()), reached_at = %s where stream = 'logs'",
            (ago(29),),
        )
    assert drifted < number
    clean(halves.context())
    assert halves.totals_agree(drifted)
    assert halves.lines(f"totals of delivery {drifted} differed from its log in 1 places and are corrected")
    with halves.marketing.connection() as conn:
        assert dict(conn.execute("select state, count(*) from broad_log group by 1").fetchall()) == {1: 100, 7: 300}
        assert conn.execute("select distinct state from delivery").fetchall() == [(95,)]


def test_journals_of_dead_processes_go_only_when_everything_is_recorded(halves: LinkedHalves) -> None:
    root = halves.home / "journal" / "mid"
    (root / "mta-empty").mkdir(parents=True)
    (root / "mta-empty" / "000001.log").write_bytes(b"")
    with halves.mid.connection() as conn:
        conn.execute(
            "insert into outcome_aside (process, account_id, delivery_id, id, document, why, try_at) values "
            "('p', 1, 2, 3, '', 'why', now())"
        )
        conn.execute(
            "insert into journal_applied (process, segment, number, applied_at) values ('p', 1, 1, %s), ('p', 1, 2, now())",
            (ago(8),),
        )
    clean(of_mid(halves))
    assert list(root.iterdir()) == []
    assert halves.lines("1 outcomes that the database refused are set aside")
    with halves.mid.connection() as conn:
        assert scalar(conn, "select count(*) from outcome_aside") == 1
        assert scalar(conn, "select array_agg(number) from journal_applied") == [2]
    assert feed.take_turn(halves.mid, NOW) is not None


def test_cleanup_beside_deliveries_that_run_touches_nothing_of_them(halves: LinkedHalves) -> None:
    """Both roles are cleaned without a pause while deliveries are handed over, sent and pulled."""
    over = old_delivery(halves, 250)
    ledger = old_ledger(halves, 120)
    acknowledge(halves, max(results(halves, days) for days in (50, 40, 30, 20, 16)))
    stop, failures, runs = threading.Event(), [], [0]

    def keep_cleaning(context: Context) -> None:
        while not stop.is_set():
            try:
                clean(context)
                runs[0] += 1
            except Exception as exc:  # noqa: BLE001 - whatever it is, the test fails by it
                failures.append(exc)
                return

    threads = [
        threading.Thread(target=keep_cleaning, args=(context,)) for context in (halves.context(), of_mid(halves))
    ]
    for thread in threads:
        thread.start()
    numbers = []
    try:
        for serial in (2, 3):
            number = halves.prepared(1500, serial=serial)
            numbers.append(number)
            halves.run(handover.hand_over, number)
            orders.command(halves.mid, halves.mid_account, number, "start", NOW)
            for first in range(1, 1501, 300):
                halves.sent(number, range(first, first + 300))
                delivery_logs.run_once(halves.context())
        halves.run(delivery_logs.run_once)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert runs[0] > 1
    for number in numbers:
        assert halves.same_on_both_sides(number)
        assert halves.totals_agree(number)
        with halves.marketing.connection() as conn:
            assert totals.by_state(conn, number)[MessageState.SENT] == 1500
    assert f"broad_log_{over >> 32}" not in tables(halves.marketing, "broad_log")
    assert f"message_{ledger >> 32}" not in tables(halves.mid, "message")
