"""The orders of an operator, on a real PostgreSQL: what each changes, what it leaves, who is said to have done it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from midsource.engine import admin, circuit, journal, moves, records, restarting
from midsource.engine.slices import SliceRunner
from midsource.engine.work import Cancelled, Context, Report, Works
from midsource.model.errors import Conflict, NotFound
from midsource.model.workflow import TRANSITIONS, WorkflowEvent, WorkflowState
from midsource.net.clock import SystemClock
from midsource.store.database import Database, StatementTimeout, scalar

NOW = datetime(2026, 5, 4, 23, 0, tzinfo=UTC)
Body = Callable[[Context], Report]


@pytest.fixture
def flow(engine_db: Database) -> str:
    with engine_db.connection() as conn:
        conn.execute(
            "insert into workflow (name, schedule, next_at) values ('flow', 'daily at 04:00', now() + interval '9 h')"
        )
        conn.execute("create table page (line text)")
    return "flow"


def begin(db: Database, body: Body) -> tuple[int, threading.Thread, list[str]]:
    """Run ``body`` as a slice of a worker, in a thread; return run, thread and what came of it."""
    with db.transaction() as conn:
        run = admin.run_now(conn, "flow", "alice")
        conn.execute("update workflow_run set enqueued_at = now()")
    module = SimpleNamespace(NAME="flow", run_once=body)
    runner = SliceRunner(db, SystemClock(), Path(), "marketing", "executor-1", Works(workflows=(module,)))
    outcome: list[str] = []
    thread = threading.Thread(target=lambda: outcome.append(runner.run("workflow_run", str(run), 0)))
    thread.start()
    return run, thread, outcome


def state(db: Database) -> WorkflowState:
    with db.connection() as conn:
        return records.get(conn, "flow").state


def test_every_event_moves_as_the_table_says_and_leaves_the_rest(engine_db: Database, flow: str) -> None:
    for source in WorkflowState:
        for event in WorkflowEvent:
            with engine_db.connection() as conn:
                conn.execute("update workflow set state = %s, held_at = null, held_by = ''", (source,))
                target = TRANSITIONS[source].get(event)
                assert moves.move(conn, flow, event, "alice") is target, (source, event)
                row = records.get(conn, flow)
            assert row.state is (source if target is None else target)
            moved_into_hold = target is not None and target is not source and not target.is_on_schedule
            assert (row.held_by == "alice") is moved_into_hold, (source, event)


def test_pausing_and_starting_say_who_and_since_when(engine_db: Database, flow: str) -> None:
    with engine_db.connection() as conn:
        paused = admin.pause(conn, flow, "alice")
        conn.execute("update workflow set warnings = 3, warned_at = now()")
        assert (paused.state, paused.held_by) == (WorkflowState.PAUSED, "alice")
        assert paused.held_at is not None
        assert paused.next_run is None
        with pytest.raises(Conflict, match="is paused: pause does not apply"):
            admin.pause(conn, flow, "bob")
        started = admin.start(conn, flow, NOW)
    assert (started.held_at, started.held_by, started.warnings, started.warned_at) == (None, "", 0, None)
    assert started.next_at == NOW + timedelta(hours=5)


def test_a_kill_cancels_the_statements_of_the_run_and_of_no_other(engine_db: Database, flow: str) -> None:
    """The slice sleeps in the database; nobody asks its process."""
    begun, raised = threading.Event(), []

    def body(context: Context) -> Report:
        with context.database.transaction() as conn:
            conn.execute("insert into page values ('written')")
            begun.set()
            try:
                conn.execute("select pg_sleep(50)")
            except psycopg.Error as exc:
                raised.append(type(exc).__name__)
                raise
        return Report()

    run, thread, outcome = begin(engine_db, body)
    assert begun.wait(10)
    bystander = psycopg.connect(engine_db.dsn, application_name=f"worker@marketing run:{run}1")
    slept: list[object] = []
    other = threading.Thread(target=lambda: slept.append(bystander.execute("select pg_sleep(3)").fetchone()))
    other.start()
    time.sleep(0.5)
    started = time.monotonic()
    with engine_db.transaction() as conn:
        killed = admin.kill(conn, flow, "alice")
    thread.join(10)
    assert time.monotonic() - started < 10
    assert (killed, outcome, raised) == (admin.Killed(run, 1), ["superseded"], ["QueryCanceled"])
    with engine_db.connection() as conn:
        ended = records.get_run(conn, run)
        assert (ended.outcome, ended.error, ended.error_class) == ("aborted", "killed by alice", "Killed")
        assert scalar(conn, "select count(*) from page") == 0
        said = [line for _, _, line in records.journal(conn, flow)]
    assert said == [f"killed by alice: run {run} aborted, 1 of its database sessions cancelled"]
    assert state(engine_db) is WorkflowState.FINISHED
    other.join(10)
    bystander.close()
    assert len(slept) == 1, "the statement of another run went on"


def test_a_killed_run_writes_nothing_more_although_it_was_between_two_statements(
    engine_db: Database, flow: str
) -> None:
    begun, go_on, seen = threading.Event(), threading.Event(), []

    def body(context: Context) -> Report:
        try:
            with context.database.transaction() as conn:
                conn.execute("insert into page values ('written')")
                begun.set()
                go_on.wait(10)
        except BaseException as exc:
            seen.append(type(exc))
            raise
        return Report()

    _, thread, outcome = begin(engine_db, body)
    assert begun.wait(10)
    with engine_db.transaction() as conn:
        admin.kill(conn, flow, "alice")
    go_on.set()
    thread.join(10)
    with engine_db.connection() as conn:
        assert scalar(conn, "select count(*) from page") == 0
    assert len(seen) == 1, "its session was ended while it idled in a transaction"
    assert outcome in (["superseded"], ["aborted"])


def test_a_stopped_run_commits_the_page_it_writes_and_leaves_at_the_next(engine_db: Database, flow: str) -> None:
    begun, go_on, left = threading.Event(), threading.Event(), []

    def body(context: Context) -> Report:
        with context.database.transaction() as conn:
            conn.execute("insert into page values ('written')")
            begun.set()
            go_on.wait(10)
        try:
            context.beat()
        except Cancelled:
            left.append(True)
            raise
        return Report()

    run, thread, outcome = begin(engine_db, body)
    assert begun.wait(10)
    with engine_db.transaction() as conn:
        admin.stop(conn, flow, "alice")
    go_on.set()
    thread.join(10)
    with engine_db.connection() as conn:
        assert scalar(conn, "select count(*) from page") == 1
        assert records.get_run(conn, run).error == "stopped by alice"
    assert (left, outcome, state(engine_db)) == ([True], ["aborted"], WorkflowState.FINISHED)


def test_killing_where_nothing_runs_stops_the_workflow_and_says_so(engine_db: Database, flow: str) -> None:
    with engine_db.transaction() as conn:
        assert admin.kill(conn, flow, "alice") == admin.Killed(None, 0)
        assert admin.kill(conn, flow, "alice") == admin.Killed(None, 0), "also in any state"
        with pytest.raises(NotFound):
            admin.kill(conn, "nothing", "alice")
    assert state(engine_db) is WorkflowState.FINISHED


def test_a_slice_handed_over_before_the_pause_waits_for_the_operator(engine_db: Database, flow: str) -> None:
    with engine_db.transaction() as conn:
        run = admin.run_now(conn, flow, "alice")
        conn.execute("update workflow_run set enqueued_at = now()")
        admin.pause(conn, flow, "alice")
    module = SimpleNamespace(NAME=flow, run_once=lambda _: pytest.fail("it is paused"))
    runner = SliceRunner(engine_db, SystemClock(), Path(), "marketing", "executor-1", Works(workflows=(module,)))
    assert runner.run("workflow_run", str(run), 0) == "superseded"
    with engine_db.connection() as conn:
        row = records.get_run(conn, run)
        assert (row.outcome, row.slices, state(engine_db)) == (None, 1, WorkflowState.PAUSED)
        assert scalar(conn, "select enqueued_at is null from workflow_run")


def test_a_journal_that_takes_no_rows_fails_no_run_and_hides_no_error(engine_db: Database, flow: str) -> None:
    """F105: the insert of the line fails, and the run all the same ends as it ended, with its error where it belongs."""
    with engine_db.connection() as conn:
        conn.execute("alter table workflow_journal add constraint full_up check (false) not valid")

    def telling(context: Context) -> Report:
        context.say("info", "page 1")
        return Report(rows_written=3)

    run, thread, outcome = begin(engine_db, telling)
    thread.join(10)
    assert outcome == ["finished"]

    def broken(_: Context) -> Report:
        raise RuntimeError("no")

    second, thread, outcome = begin(engine_db, broken)
    thread.join(10)
    assert outcome == ["failed"]
    with engine_db.connection() as conn:
        assert records.get_run(conn, run).rows_written == 3
        assert "RuntimeError: no" in records.get_run(conn, second).error
        assert "RuntimeError: no" in records.get(conn, flow).last_error
        journal.write(conn, flow, None, "info", "nothing is raised")
        assert records.journal(conn, flow) == []


def test_restarting_all_leaves_what_is_held_spreads_the_starts_and_says_what_is_different(engine_db: Database) -> None:
    with engine_db.connection() as conn:
        for name, number, failed in (("a", 11, False), ("b", 11, True), ("c", 13, False), ("d", 2, True)):
            conn.execute(
                "insert into workflow (name, schedule, state, failed, error_class, last_error, consecutive_failures, not_before, "
                "held_at, held_by) values (%s, 'every hour', %s, %s, 'StatementTimeout', 'a statement ran into its limit', 2, "
                "now() + interval '1 h', now(), 'bob')",
                (name, number, failed),
            )
        conn.execute(
            "insert into workflow_run (workflow, started_at, finished_at, outcome, error_class, error) "
            "select 'b', now(), now(), 'failed', 'StatementTimeout', 'a statement ran into ' || n from generate_series(1, 3) n"
        )
        chosen = restarting.choose(conn, (), failed=True, scheduled=True)
        recorded: list[tuple[str, int]] = []
        done = list(
            restarting.restart_all(
                engine_db, chosen.rows, "alice", NOW, lambda _, name, run: recorded.append((name, run))
            )
        )
        assert [(one.name, one.after_seconds, one.problem) for one in done] == [
            ("a", 0, ""),
            ("b", 5, ""),
            ("d", 10, ""),
        ]
        assert recorded == [(one.name, one.run) for one in done]
        assert [one.different for one in done][::2] == ["", ""]
        assert done[1].different.startswith(
            "the last 3 runs failed alike (StatementTimeout: a statement ran into its limit)"
        )
        assert "has 480 s instead of 60" in done[1].different
        assert [(row.name, why.split(" since")[0]) for row, why in chosen.left] == [("c", "paused by bob")]
        rows = {row.name: row for row in records.listing(conn)}
        due = conn.execute(
            "select extract(epoch from due_at - now())::int from workflow_run where outcome is null order by 1"
        )
        assert [(rows[n].failed, rows[n].not_before, rows[n].consecutive_failures) for n in "abd"] == [
            (False, None, 0)
        ] * 3
        assert [seconds for (seconds,) in due.fetchall()] == [0, 5, 10]
        assert "restarted by alice: the last 3 runs failed alike" in records.journal(conn, "b")[-1][2]


def test_a_restart_by_name_takes_what_is_held_too(engine_db: Database, flow: str) -> None:
    with engine_db.connection() as conn:
        admin.pause(conn, flow, "bob")
        chosen = restarting.choose(conn, [flow], failed=True, scheduled=True)
        assert ([row.name for row in chosen.rows], chosen.left) == ([flow], [])
        admin.restart(conn, flow, "alice", NOW)
    assert state(engine_db) is WorkflowState.STARTED


def test_statements_get_more_time_after_runs_that_ran_into_the_limit_alike(engine_db: Database, flow: str) -> None:
    seen: list[str] = []

    def body(context: Context) -> Report:
        with context.database.connection() as conn:
            seen.append(scalar(conn, "show statement_timeout"))
        raise StatementTimeout("a statement ran into its time limit", "it is tried again")

    for _ in range(5):
        _, thread, _ = begin(engine_db, body)
        thread.join(10)
    assert seen == ["1min", "2min", "4min", "8min", "8min"]
    with engine_db.connection() as conn:
        assert scalar(conn, "show statement_timeout") == "1min", "of this run alone"
        assert "has 480 s instead of 60" in circuit.different(records.get(conn, flow), records.runs(conn, flow))
