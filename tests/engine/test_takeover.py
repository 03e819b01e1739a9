"""Runs of dead, frozen and hanging workers, and workers that race: real processes on a real PostgreSQL."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

from midsource.engine import admin, jobs, records
from midsource.model.workflow import WorkflowState
from midsource.net.clock import SystemClock
from midsource.store.database import Database, scalar

Start = Callable[[str], subprocess.Popen[bytes]]
Eventually = Callable[..., None]


def traced(db: Database, what: str, who: str = "%") -> int:
    with db.connection() as conn:
        return int(scalar(conn, "select count(*) from trace where what = %s and who like %s", (what, who)))


def ask(db: Database, name: str) -> int:
    with db.transaction() as conn:
        return admin.run_now(conn, name, "test")


def run(db: Database, run_id: int) -> records.RunRow:
    with db.connection() as conn:
        return records.get_run(conn, run_id)


def register(db: Database, eventually: Eventually) -> None:
    eventually(lambda: _registered(db))


def _registered(db: Database) -> bool:
    with db.connection() as conn:
        return bool(scalar(conn, "select count(*) from workflow where name = 'paging'"))


def end_leading(db: Database) -> None:
    """End the leader's session, as the server does by itself 30 s after its process fell silent."""
    with db.connection() as conn:
        conn.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'leader'")


@pytest.mark.parametrize("ending", [signal.SIGSTOP, signal.SIGKILL])
def test_a_run_in_a_page_is_taken_over_and_whoever_had_it_writes_nothing(
    engine_db: Database, start_worker: Start, eventually: Eventually, ending: signal.Signals
) -> None:
    """The first worker is frozen, or killed, between the rows of a page and its commit; thawed, it is refused."""
    first = start_worker("w1")
    register(engine_db, eventually)
    run_id = ask(engine_db, "paging")
    eventually(lambda: traced(engine_db, "page-begun", "w1") == 1)
    first.send_signal(ending)
    end_leading(engine_db)
    start_worker("w2")
    eventually(lambda: run(engine_db, run_id).outcome == "finished", 60)
    assert traced(engine_db, "page", "w2") == 1
    if ending is signal.SIGSTOP:
        first.send_signal(signal.SIGCONT)
        eventually(lambda: traced(engine_db, "page-fenced", "w1") == 1, 20)
    assert traced(engine_db, "page", "w1") == 0
    assert (run(engine_db, run_id).rows_written, run(engine_db, run_id).outcome) == (1, "finished")
    with engine_db.connection() as conn:
        assert records.get(conn, "paging").state is WorkflowState.STARTED


def test_two_workers_that_race_never_run_one_workflow_twice_at_once(
    engine_db: Database, start_worker: Start, eventually: Eventually
) -> None:
    for name in ("w1", "w2"):
        start_worker(name)
    register(engine_db, eventually)
    over = time.monotonic() + 8

    def press() -> None:
        while time.monotonic() < over:
            ask(engine_db, "short")
            time.sleep(0.05)

    pressing = [threading.Thread(target=press) for _ in range(3)]
    for thread in pressing:
        thread.start()
    for thread in pressing:
        thread.join()
    eventually(lambda: traced(engine_db, "short-begun") == traced(engine_db, "short-ended") > 3)
    with engine_db.connection() as conn:
        order = [
            what for (what,) in conn.execute("select what from trace where what like 'short%' order by at, what desc")
        ]
        unfinished = scalar(
            conn, "select max(n) from (select count(*) n from workflow_run where outcome is null group by workflow) c"
        )
    assert order[::2] == ["short-begun"] * (len(order) // 2)
    assert order[1::2] == ["short-ended"] * (len(order) // 2)
    assert unfinished in (None, 1)


def test_a_killed_run_that_hangs_in_a_living_process_blocks_no_other(
    engine_db: Database, start_worker: Start, eventually: Eventually
) -> None:
    """It hangs for a minute without a statement and without a beat; the next run of the workflow does not wait for it."""
    start_worker("w1")
    register(engine_db, eventually)
    hanging = ask(engine_db, "hung")
    eventually(lambda: traced(engine_db, "hung") == 1)
    with engine_db.transaction() as conn:
        assert admin.kill(conn, "hung", "alice").run == hanging
        assert records.get(conn, "hung").state is WorkflowState.FINISHED
        admin.start(conn, "hung", SystemClock().now())
    following = ask(engine_db, "hung")
    eventually(lambda: run(engine_db, following).outcome == "finished", 40)
    assert run(engine_db, hanging).outcome == "aborted"


def test_a_slice_whose_end_the_engine_could_not_record_blocks_no_other(
    engine_db: Database, start_worker: Start, eventually: Eventually
) -> None:
    """The database went away between our record of the end and the engine's, whose process lives: it stays *pending* there."""
    start_worker("w1")
    register(engine_db, eventually)
    ended = ask(engine_db, "short")
    eventually(lambda: run(engine_db, ended).outcome == "finished")
    name = f"workflow_run:{ended}:0"
    with engine_db.connection() as conn:
        recorded = "select count(*) from dbos.workflow_status where workflow_uuid = %s and status = 'SUCCESS'"
        eventually(lambda: scalar(conn, recorded, (name,)) == 1)
        conn.execute("update dbos.workflow_status set status = 'PENDING' where workflow_uuid = %s", (name,))
    following = ask(engine_db, "short")
    eventually(lambda: run(engine_db, following).outcome == "finished", 40)


@pytest.mark.parametrize("table", ["workflow_run", "job"])
def test_a_slice_that_was_claimed_and_never_begun_is_begun_again(
    engine_db: Database, start_worker: Start, eventually: Eventually, table: str
) -> None:
    """The database went away in the moment a living worker claimed it: the engine counts it as running, and nobody runs it."""
    start_worker("w1")
    register(engine_db, eventually)
    first = ask(engine_db, "short")
    eventually(lambda: run(engine_db, first).outcome == "finished")
    with engine_db.transaction() as conn:
        claimed = str(admin.run_now(conn, "short", "test") if table == "workflow_run" else jobs.ask(conn, "follow", 1))
        conn.execute(f"update {table} set enqueued_at = now() - interval '1 minute' where id::text = %s", (claimed,))
        conn.execute(
            "create temp table claimed on commit drop as select * from dbos.workflow_status where workflow_uuid = %s",
            (f"workflow_run:{first}:0",),
        )
        conn.execute(
            "update claimed set workflow_uuid = %s, status = 'PENDING', output = null, queue_partition_key = %s, "
            "started_at_epoch_ms = (extract(epoch from now()) - 31) * 1000",
            (f"{table}:{claimed}:0", "short" if table == "workflow_run" else "follow:1"),
        )
        conn.execute("insert into dbos.workflow_status select * from claimed")
    with engine_db.connection() as conn:
        ended = f"select count(*) from {table} where id::text = %s and outcome = 'finished'"
        eventually(lambda: scalar(conn, ended, (claimed,)) == 1, 40)
        assert scalar(conn, f"select slices from {table} where id::text = %s", (claimed,)) == 1
