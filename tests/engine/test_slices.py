"""One slice at a time, in this process: what begin and settle do when others act meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from psycopg import sql

from midsource.engine import admin, jobs, records
from midsource.engine.slices import PASSING, SliceRunner, Table
from midsource.engine.work import Context, JobBody, JobKind, Report, Works
from midsource.model.errors import Failed, MidsourceError, Unhealthy
from midsource.net.clock import SystemClock
from midsource.store.database import Database, scalar


@pytest.fixture
def runner(engine_db: Database) -> Callable[..., SliceRunner]:
    """``runner(body, executor)``: runs the job `work` and the workflow `flow` with ``body``."""

    def make(body: JobBody, executor: str = "one") -> SliceRunner:
        flow = SimpleNamespace(NAME="flow", SCHEDULE="0 0 1 1 *", run_once=body)
        works = Works(jobs=(JobKind("work", body),), workflows=(flow,))
        return SliceRunner(engine_db, SystemClock(), Path(), "marketing", executor, works)

    return make


@pytest.fixture
def ask(engine_db: Database) -> Callable[[], str]:
    """Asks for the job, as a command does."""

    def asking() -> str:
        with engine_db.transaction() as conn:
            return jobs.ask(conn, "work", 1)

    return asking


def hand_over(db: Database, table: str, work_id: str) -> None:
    """Mark the row as the leader does when it has handed its slice over."""
    with db.connection() as conn:
        conn.execute(
            sql.SQL("update {} set enqueued_at = now() where id::text = %s").format(sql.Identifier(table)), (work_id,)
        )


def job(db: Database, work_id: str) -> jobs.Job:
    with db.connection() as conn:
        return jobs.get(conn, work_id)


def test_what_is_asked_while_a_slice_runs_is_done_by_one_more(
    engine_db: Database, runner: Callable[..., SliceRunner], ask: Callable[[], str]
) -> None:
    """An order stored after the slice has looked must not wait for somebody to ask once more."""
    looked: list[str] = []

    def body(_: Context) -> Report:
        looked.append("looked")
        if len(looked) == 1:
            assert ask() == work_id
        return Report()

    work_id = ask()
    hand_over(engine_db, "job", work_id)
    assert runner(body).run("job", work_id, 0) == "more"
    assert job(engine_db, work_id).outcome is None
    hand_over(engine_db, "job", work_id)
    assert runner(body).run("job", work_id, 1) == "finished"
    assert len(looked) == 2


def test_a_job_that_fails_while_it_is_asked_for_again_tries_once_more(
    engine_db: Database, runner: Callable[..., SliceRunner], ask: Callable[[], str]
) -> None:
    def body(context: Context) -> Report:
        if job(engine_db, work_id).slices == 0:
            ask()
        raise Failed("the mid refused the first order", "give another")

    work_id = ask()
    hand_over(engine_db, "job", work_id)
    assert runner(body).run("job", work_id, 0) == "more"
    assert job(engine_db, work_id).error == "the mid refused the first order: give another."
    hand_over(engine_db, "job", work_id)
    assert runner(body).run("job", work_id, 1) == "failed"


@pytest.mark.parametrize("passing", PASSING)
def test_a_job_outlasts_whatever_time_may_mend(
    engine_db: Database, runner: Callable[..., SliceRunner], ask: Callable[[], str], passing: type[MidsourceError]
) -> None:
    def body(_: Context) -> Report:
        raise passing("there is no room", "make some")

    work_id = ask()
    hand_over(engine_db, "job", work_id)
    assert runner(body).run("job", work_id, 0) == "more"
    assert (job(engine_db, work_id).outcome, job(engine_db, work_id).error) == (None, "there is no room: make some.")


def test_asking_before_a_slice_began_asks_for_no_other(
    engine_db: Database, runner: Callable[..., SliceRunner], ask: Callable[[], str]
) -> None:
    work_id = ask()
    hand_over(engine_db, "job", work_id)
    assert ask() == work_id
    assert runner(lambda _: Report()).run("job", work_id, 0) == "finished"


@pytest.fixture
def flow_run(engine_db: Database) -> str:
    """A run of the workflow, handed over."""
    with engine_db.transaction() as conn:
        conn.execute("insert into workflow (name, schedule) values ('flow', '0 0 1 1 *')")
        run = str(admin.run_now(conn, "flow", "alice"))
    hand_over(engine_db, "workflow_run", run)
    return run


def test_an_executor_that_lost_its_slice_changes_nothing_any_more(
    engine_db: Database, runner: Callable[..., SliceRunner], flow_run: str
) -> None:
    """The first is thought dead and its slice given to another; it leaves at its beat and leaves the state alone."""
    states: list[str] = []

    def second(_: Context) -> Report:
        return Report(rows_written=7)

    def state() -> str:
        with engine_db.connection() as conn:
            return records.get(conn, "flow").state.label

    def first(context: Context) -> Report:
        def taken_over(inner: Context) -> Report:
            with pytest.raises(BaseException, match="taken over"):
                context.beat()
            return second(inner)

        runner(taken_over, "two").run("workflow_run", flow_run, 0)
        states.append(state())
        context.beat()
        raise AssertionError("the beat lets nobody on who lost the slice")

    runner(first, "one").run("workflow_run", flow_run, 0)
    with engine_db.connection() as conn:
        run = records.get_run(conn, int(flow_run))
    assert (run.outcome, run.rows_written, state()) == ("finished", 7, "started")
    assert states == ["started"]


def test_a_running_workflow_stays_running_when_a_fenced_executor_leaves(
    engine_db: Database, runner: Callable[..., SliceRunner], flow_run: str
) -> None:
    seen: list[str] = []

    def first(context: Context) -> Report:
        with engine_db.connection() as conn:
            conn.execute("update workflow_run set executor = 'two' where id::text = %s", (flow_run,))
        context.beat()
        return Report()

    runner(first, "one").run("workflow_run", flow_run, 0)
    with engine_db.connection() as conn:
        seen.append(records.get(conn, "flow").state.label)
        assert records.get_run(conn, int(flow_run)).outcome is None
    assert seen == ["running"]


@pytest.mark.parametrize("table", ["job", "workflow_run"])
def test_a_slice_ends_well_although_the_database_is_away_when_it_is_settled(
    engine_db: Database,
    runner: Callable[..., SliceRunner],
    ask: Callable[[], str],
    flow_run: str,
    table: Table,
) -> None:
    name = psycopg.conninfo.conninfo_to_dict(engine_db.dsn)["dbname"]
    admin_conn = psycopg.connect(engine_db.dsn, dbname="postgres", autocommit=True)
    allow = sql.SQL("alter database {} allow_connections {}")
    opened = threading.Timer(2, lambda: admin_conn.execute(allow.format(sql.Identifier(str(name)), sql.Literal(True))))

    def body(_: Context) -> Report:
        admin_conn.execute(allow.format(sql.Identifier(str(name)), sql.Literal(False)))
        admin_conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and backend_type = 'client backend'",
            (name,),
        )
        opened.start()
        return Report(rows_written=3)

    work_id = flow_run if table == "workflow_run" else ask()
    hand_over(engine_db, table, work_id)
    try:
        assert runner(body).run(table, work_id, 0) == "finished"
    finally:
        opened.join()
        admin_conn.close()


def test_no_address_of_a_database_message_reaches_journal_or_job(
    engine_db: Database, runner: Callable[..., SliceRunner], ask: Callable[[], str]
) -> None:
    """PostgreSQL quotes the row that broke a rule; that line is kept for the trace alone."""

    def body(_: Context) -> Report:
        with engine_db.connection() as conn:
            conn.execute("create table person (email text primary key)")
            for _again in range(2):
                conn.execute("insert into person values ('bob@example.org')")
        return Report()

    work_id = ask()
    hand_over(engine_db, "job", work_id)
    assert runner(body).run("job", work_id, 0) == "failed"
    with engine_db.connection() as conn:
        said = job(engine_db, work_id).error + str(records.journal(conn, f"job:{work_id}"))
    assert "person_pkey" in said
    assert "bob@" not in said


def test_a_failed_run_is_tried_again_after_its_pause_not_at_its_next_tick(
    engine_db: Database, runner: Callable[..., SliceRunner], flow_run: str
) -> None:
    """The workflow is due once a year; it fails because the database was away for a moment."""

    def body(_: Context) -> Report:
        raise Unhealthy("the database of marketing cannot be reached", "wait")

    with engine_db.connection() as conn:
        conn.execute("update workflow set next_at = now() + interval '300 days'")
        assert runner(body).run("workflow_run", flow_run, 0) == "failed"
        row = records.get(conn, "flow")
        assert row.failed
        seconds = scalar(conn, "select extract(epoch from not_before - now()) from workflow where name = 'flow'")
    assert 0 < seconds <= 2
    assert row.next_at is not None
    assert row.not_before is not None
    assert row.next_run == row.not_before
    assert row.next_at > row.not_before + timedelta(days=299), "the tick stays where it is"


def test_a_run_that_goes_on_although_something_in_it_fails_marks_its_workflow(
    engine_db: Database, runner: Callable[..., SliceRunner], flow_run: str
) -> None:
    """A delivery under way at one mid keeps the run going: that another mid cannot be read must be seen all the same."""
    began: list[object] = []

    def body(failing: str | None) -> JobBody:
        def run(context: Context) -> Report:
            began.append(context.began_at)
            return Report(more_after_seconds=0, failing=failing)

        return run

    seen = []
    for number, failing in enumerate(("one of two", "one of two", None, "")):
        hand_over(engine_db, "workflow_run", flow_run)
        assert runner(body(failing)).run("workflow_run", flow_run, number) == "more"
        with engine_db.connection() as conn:
            row = records.get(conn, "flow")
            said = scalar(conn, "select count(*) from workflow_journal where line = 'one of two' and level = 'error'")
        seen.append((row.failed, row.last_error, row.consecutive_failures, row.not_before, said))
    assert seen == [(True, "one of two", 2, None, 1)] * 3 + [(False, "", 0, None, 1)]
    assert None not in began
    assert len(set(began)) == 1, "the run began once, whoever runs its slices"
