"""Cleanup on both roles: what is over goes, what lives stays, a step that fails stops no other."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from midsource.config import InstanceConfig
from midsource.engine.work import Context
from midsource.marketing import delivery_log, handover, totals
from midsource.marketing.options import TABLE as MARKETING
from midsource.mid import feed, orders
from midsource.model.errors import Conflict, Failed, MidsourceError, Unhealthy
from midsource.model.ids import delivery_id
from midsource.model.message import MessageState
from midsource.model.options import LAST_CLEANUP
from midsource.net.clock import SystemClock
from midsource.store import cleanup_status
from midsource.store.cleanup_status import StepStatus
from midsource.store.database import Database, StatementTimeout, scalar
from midsource.testing.link import LinkedHalves
from midsource.workflows import cleanup, delivery_counters, delivery_logs

NOW = SystemClock().now()


def of_mid(halves: LinkedHalves) -> Context:
    return replace(halves.context(), database=halves.mid, instance="mid")


def begin(database: Database) -> int:
    with database.transaction() as conn:
        conn.execute("insert into workflow (name, schedule) values ('cleanup', '0 4 * * *') on conflict do nothing")
        return int(scalar(conn, "insert into workflow_run (workflow) values ('cleanup') returning id"))


def end(database: Database, outcome: str) -> None:
    with database.connection() as conn:
        conn.execute("update workflow_run set finished_at = now(), outcome = %s where finished_at is null", (outcome,))


def clean(context: Context, slices: int = 50) -> int:
    """Do a whole run, as the engine would; return how many rows went."""
    begin(context.database)
    removed = 0
    try:
        for _ in range(slices):
            report = cleanup.run_once(context)
            removed += report.rows_written
            if report.more_after_seconds is None:
                end(context.database, "finished")
                return removed
        raise AssertionError("cleanup does not end")
    except MidsourceError:
        end(context.database, "failed")
        raise


def done(database: Database) -> dict[str, StepStatus]:
    with database.connection() as conn:
        return cleanup_status.listing(conn)


def forecast(context: Context, role: str) -> dict[str, int]:
    instance = InstanceConfig(name=role, role=role, port=1)  # type: ignore[arg-type]
    views = cleanup.overview(context.database, context.home, instance, context.clock.now())
    return {view.name: view.forecast.rows for view in views}


def tables(database: Database, parent: str) -> list[str]:
    with database.connection() as conn:
        rows = conn.execute(
            "select inhrelid::regclass::text from pg_inherits where inhparent = %s::regclass order by 1", (parent,)
        ).fetchall()
    return [name for (name,) in rows]


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def old_delivery(halves: LinkedHalves, days: float, *, state: int = 95, rows: int = 100, message_state: int = 1) -> int:
    """Make a delivery of so many days ago with its log, over for as long."""
    halves.prepared(10) if not known(halves) else None
    number = delivery_id(ago(days), 77)
    with halves.marketing.transaction() as conn:
        conn.execute("select ensure_month('broad_log', %s)", (number >> 32,))
        conn.execute(
            "insert into delivery (id, label, state, brand, account, subject, html, text, from_name, from_address, "
            "validity_seconds, retry_count, retry_period_seconds, uncertain_policy, targeted, handed_over, created_at, "
            "started_at, finished_at, modified_at) select %(id)s, 'old', %(state)s, brand, account, '', '', '', '', from_address, "
            "432000, 1, 60, 'hold', %(rows)s, %(rows)s, %(at)s, %(at)s, case when %(state)s in (85, 87, 95) then %(at)s::timestamptz end, "
            "%(at)s from delivery limit 1",
            {"id": number, "state": state, "rows": rows, "at": ago(days)},
        )
        conn.execute(
            "insert into broad_log (delivery_id, id, recipient_id, email, domain, state, event_at) "
            "select %s, n, n, 'p' || n || '@old.example', 'old.example', %s, %s from generate_series(1, %s) n",
            (number, message_state, ago(days), rows),
        )
        conn.execute(
            "insert into broad_log_total select delivery_id, domain, state, reason, count(*) from broad_log "
            "where delivery_id = %s group by 1, 2, 3, 4",
            (number,),
        )
    return number


def known(halves: LinkedHalves) -> bool:
    with halves.marketing.connection() as conn:
        return bool(scalar(conn, "select count(*) from delivery"))


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


def results(halves: LinkedHalves, days: int, rows: int = 5) -> int:
    """Let the mid have a batch of results of so many days ago, numbered; return its number."""
    day = ago(days).astimezone(UTC).date()
    with halves.mid.transaction() as conn:
        conn.execute("select ensure_day('outcome', %s)", (day,))
        batch, seq = conn.execute(  # type: ignore[misc]
            "insert into feed_batch (account_id, day, rows, deliveries, folded, seq, sequenced_at) "
            "values (%s, %s, %s, '{1}', true, nextval('feed_seq'), %s) returning id, seq",
            (halves.mid_account, day, rows, ago(days)),
        ).fetchone()
        conn.execute(
            "insert into outcome (account_id, day, batch_id, row, delivery_id, id, old_state, new_state, attempts, revision, event_at) "
            "select %s, %s, %s, n, 1, n, 6, 1, 1, 2, %s from generate_series(1, %s) n",
            (halves.mid_account, day, batch, ago(days), rows),
        )
    return int(seq)


def acknowledge(halves: LinkedHalves, seq: int, *streams: str) -> None:
    with halves.mid.transaction() as conn:
        for stream in streams or ("logs", "deliveries"):
            conn.execute(
                "insert into feed_ack (account_id, stream, seq) values (%s, %s, %s) "
                "on conflict (account_id, stream) do update set seq = excluded.seq",
                (halves.mid_account, stream, seq),
            )


def days_kept(halves: LinkedHalves) -> list[int]:
    with halves.mid.connection() as conn:
        rows = conn.execute("select distinct current_date - day from feed_batch order by 1 desc").fetchall()
    return [days for (days,) in rows]


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


def old_ledger(halves: LinkedHalves, days: int, *, state: int = 95, rows: int = 50) -> int:
    number = delivery_id(ago(days), 5)
    with halves.mid.transaction() as conn:
        conn.execute("select ensure_month('message', %s)", (number >> 32,))
        conn.execute(
            "insert into delivery (account_id, id, label, state, spec, spec_hash, started_at, valid_until, finished_at) "
            "values (%(a)s, %(id)s, 'old', %(state)s, %(spec)s, 'x', %(at)s, %(at)s::timestamptz + interval '5 days', "
            "case when %(state)s in (85, 87, 95) then %(at)s::timestamptz end)",
            {"a": halves.mid_account, "id": number, "state": state, "at": ago(days), "spec": SPEC.replace("0", str(number), 1)},
        )  # fmt: skip
        conn.execute(
            "insert into message (account_id, delivery_id, id, email, domain, state, data) "
            "select %s, %s, n, 'a@b.test', 'b.test', case when %s in (85, 87, 95) then 1 else 6 end, '{}' from generate_series(1, %s) n",
            (halves.mid_account, number, state, rows),
        )
        conn.execute(
            "insert into message_total select account_id, delivery_id, domain, state, count(*) from message "
            "where delivery_id = %s group by 1, 2, 3, 4",
            (number,),
        )
    return number


SPEC = (
    '{"id": 0, "label": "old", "subject": "s", "html": "h", "text": "t", "from_name": "Shop", '
    '"from_address": "news@shop.test", "brand": "shop"}'
)


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
