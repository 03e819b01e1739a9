"""Jobs and technical workflows on real worker processes and a real PostgreSQL."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial

import psycopg

from midsource.engine import admin, history, jobs, records
from midsource.net.clock import SystemClock
from midsource.store.database import LOCK_SECONDS, Database, scalar
from midsource.store.processes import DEAD_AFTER_SECONDS

Start = Callable[[str], subprocess.Popen[bytes]]
Eventually = Callable[..., None]


def ask(db: Database, kind: str, subject: int) -> str:
    with db.transaction() as conn:
        return jobs.ask(conn, kind, subject)


def job(db: Database, job_id: str) -> jobs.Job:
    with db.connection() as conn:
        return jobs.get(conn, job_id)


def traced(db: Database, what: str) -> int:
    with db.connection() as conn:
        return int(scalar(conn, "select count(*) from trace where what = %s", (what,)))


def test_a_job_runs_its_slices_shows_progress_and_asks_for_what_follows(
    engine_db: Database, start_worker: Start, eventually: Eventually
) -> None:
    start_worker("w1")
    job_id = ask(engine_db, "three_slices", 7)
    assert ask(engine_db, "three_slices", 7) == job_id, "asking twice is asking once"
    eventually(lambda: job(engine_db, job_id).outcome == "finished")
    eventually(lambda: traced(engine_db, "follow-7") == 1)
    assert traced(engine_db, "three-7") == 3
    assert job(engine_db, job_id).progress == {"done": 3, "of": 3}


def test_a_passing_failure_is_tried_again_and_a_lasting_one_ends_the_job_with_its_sentence(
    engine_db: Database, start_worker: Start, eventually: Eventually
) -> None:
    start_worker("w1")
    flaky, broken, unknown = (ask(engine_db, kind, 1) for kind in ("flaky", "broken", "unknown"))
    eventually(lambda: job(engine_db, broken).outcome == "failed")
    assert job(engine_db, broken).error == "the template has no subject: give it one."
    eventually(lambda: job(engine_db, unknown).outcome == "failed")
    assert "does not know 'unknown'" in job(engine_db, unknown).error
    eventually(lambda: job(engine_db, flaky).outcome == "finished")
    assert traced(engine_db, "flaky-1") == 3


def test_the_work_of_a_killed_worker_is_taken_over(
    engine_db: Database, start_worker: Start, eventually: Eventually
) -> None:
    first = start_worker("w1")
    job_id = ask(engine_db, "slow", 3)
    eventually(lambda: traced(engine_db, "slow-begun-3") == 1)
    start_worker("w2")
    first.send_signal(signal.SIGKILL)
    first.wait()
    eventually(lambda: job(engine_db, job_id).outcome == "finished", 60)
    assert (traced(engine_db, "slow-begun-3"), traced(engine_db, "slow-done-3")) == (2, 1)


def test_a_killed_worker_started_again_under_its_name_goes_on_with_its_work(
    engine_db: Database, start_worker: Start, eventually: Eventually
) -> None:
    """As the supervisor does it, long before the killed one counts as dead: nothing waits for its missed beats."""
    first = start_worker("w1")
    job_id = ask(engine_db, "slow", 3)
    eventually(lambda: traced(engine_db, "slow-begun-3") == 1)
    with engine_db.transaction() as conn:
        run = admin.run_now(conn, "longRun", "test")
    eventually(lambda: traced(engine_db, "run-begun") == 1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    start_worker("w1")
    eventually(lambda: job(engine_db, job_id).outcome == "finished", DEAD_AFTER_SECONDS - 10)
    with engine_db.connection() as conn:
        eventually(lambda: records.get_run(conn, run).outcome == "finished", 30)
    assert (traced(engine_db, "slow-begun-3"), traced(engine_db, "slow-done-3")) == (2, 1)


def test_a_slice_that_the_database_would_not_let_begin_is_due_again(
    engine_db: Database, start_worker: Start, eventually: Eventually
) -> None:
    """Its row is locked for longer than any statement waits for a lock."""
    start_worker("w1")
    asked = [ask(engine_db, "follow", subject) for subject in range(20)]
    waits = "select id from job where enqueued_at is not null and executor is null and finished_at is null"
    with psycopg.connect(engine_db.dsn) as holder:
        locked: list[str] = []
        eventually(lambda: bool(_locked(holder, waits, locked)))
        time.sleep(LOCK_SECONDS + 1)
        assert job(engine_db, locked[0]).outcome is None
    for job_id in asked:
        eventually(partial(_is_finished, engine_db, job_id))


def _locked(holder: psycopg.Connection, query: str, found: list[str]) -> list[str]:
    """Lock one of the rows and keep it; nothing is locked where there is none."""
    found += [row[0] for row in holder.execute(f"{query} limit 1 for update skip locked").fetchall()]
    if not found:
        holder.rollback()
    return found


def _is_finished(db: Database, job_id: str) -> bool:
    return job(db, job_id).outcome == "finished"


def test_a_worker_told_to_stop_leaves_its_slice_to_the_next(
    engine_db: Database, start_worker: Start, eventually: Eventually
) -> None:
    first = start_worker("w1")
    job_id = ask(engine_db, "slow", 4)
    eventually(lambda: traced(engine_db, "slow-begun-4") == 1)
    first.terminate()
    assert first.wait(timeout=25) == 0
    assert job(engine_db, job_id).outcome is None
    start_worker("w2")
    eventually(lambda: job(engine_db, job_id).outcome == "finished", 60)


def test_a_workflow_never_runs_twice_at_once_and_its_journal_and_counts_are_kept(
    engine_db: Database, start_worker: Start, eventually: Eventually
) -> None:
    start_worker("w1")
    start_worker("w2")
    with engine_db.connection() as conn:
        eventually(lambda: any(row.name == "longRun" for row in records.listing(conn)))
        first = admin.run_now(conn, "longRun", "alice")
        assert admin.run_now(conn, "longRun", "bob") == first
        eventually(lambda: records.get_run(conn, first).outcome == "finished")
        run = records.get_run(conn, first)
        assert (run.rows_read, run.rows_written, run.rows_refused) == (10, 9, 1)
        assert [line for _, _, line in records.journal(conn, "longRun")] == [
            "page 1",
            "finished: read 10, written 9, refused 1",
        ]
        row = records.get(conn, "longRun")
        assert row.state.label == "started"
        assert row.last_success_at is not None
    assert traced(engine_db, "run-begun") == 1


def test_restart_aborts_the_run_under_way_and_begins_another(
    engine_db: Database, start_worker: Start, eventually: Eventually
) -> None:
    start_worker("w1")
    with engine_db.connection() as conn:
        eventually(lambda: any(row.name == "longRun" for row in records.listing(conn)))
        first = admin.run_now(conn, "longRun", "alice")
        eventually(lambda: traced(engine_db, "run-begun") == 1)
        with engine_db.transaction() as other:
            second = admin.restart(other, "longRun", "alice", SystemClock().now())
        assert second != first
        eventually(lambda: records.get_run(conn, second).outcome == "finished")
        assert records.get_run(conn, first).outcome == "aborted"
    assert traced(engine_db, "run-ended") == 1, "the aborted slice left at its next beat"


def test_a_due_tick_makes_one_run_and_moves_on(
    engine_db: Database, start_worker: Start, eventually: Eventually
) -> None:
    with engine_db.transaction() as conn:
        conn.execute(
            "insert into workflow (name, schedule, next_at) values ('longRun', '0 0 1 1 *', now() - interval '1 day')"
        )
    start_worker("w1")
    with engine_db.connection() as conn:
        eventually(lambda: len(records.runs(conn, "longRun")) == 1)
        eventually(lambda: records.runs(conn, "longRun")[0].outcome == "finished")
        assert records.runs(conn, "longRun")[0].asked_by == "schedule"
        assert scalar(conn, "select next_at > now() from workflow where name = 'longRun'")


def test_a_broken_schedule_stops_no_other_workflow_and_says_so(
    engine_db: Database, start_worker: Start, eventually: Eventually
) -> None:
    """Set by hand, by plain SQL: the others tick on."""
    with engine_db.transaction() as conn:
        conn.execute(
            "insert into workflow (name, schedule, next_at) values ('aBroken', 'now and then', now() - interval '1 day'), "
            "('longRun', '0 0 1 1 *', now() - interval '1 day')"
        )
    start_worker("w1")
    with engine_db.connection() as conn:
        eventually(lambda: len(records.runs(conn, "longRun")) == 1)
        row = records.get(conn, "aBroken")
        assert row.failed
        assert "is not a schedule" in row.last_error
        assert records.runs(conn, "aBroken") == []


def test_leading_goes_on_when_its_session_is_ended(
    engine_db: Database, start_worker: Start, eventually: Eventually
) -> None:
    """Twice, and with the engine's own connections ended as well, as when PostgreSQL is started again."""
    start_worker("w1")
    for subject in (1, 2):
        job_id = ask(engine_db, "follow", subject)
        eventually(lambda job_id=job_id: job(engine_db, job_id).outcome == "finished")
        with engine_db.connection() as conn:
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and application_name in ('leader', 'w1')"
            )
    job_id = ask(engine_db, "follow", 3)
    eventually(lambda: job(engine_db, job_id).outcome == "finished", 60)


def test_history_is_forgotten_after_a_week_and_what_is_unfinished_stays(
    engine_db: Database, start_worker: Start, eventually: Eventually
) -> None:
    start_worker("w1")
    done, later = ask(engine_db, "follow", 1), ask(engine_db, "follow", 2)
    eventually(lambda: all(job(engine_db, one).outcome == "finished" for one in (done, later)))
    with engine_db.connection() as conn:
        conn.execute("update job set finished_at = now() - interval '8 days' where id = %s", (done,))
        conn.execute(
            "insert into job (id, kind, subject, asked_at, due_at) values ('waits', 'follow', 9, now() - interval '30 days', "
            "'infinity')"
        )
        eventually(lambda: scalar(conn, "select count(*) from dbos.workflow_status where status = 'SUCCESS'") == 2)
        conn.execute(
            "update dbos.workflow_status set updated_at = updated_at - 8 * 86400000::bigint where workflow_uuid = %s",
            (f"job:{done}:0",),
        )
    assert history.forget(engine_db, SystemClock().now() - history.KEPT, 1) == 1
    assert history.forget(engine_db, SystemClock().now() - history.KEPT, 100) == 0
    with engine_db.connection() as conn:
        assert conn.execute("select id from job order by subject").fetchall() == [(later,), ("waits",)]
