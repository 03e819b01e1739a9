"""The workflow on a real PostgreSQL: real bloat mended beside a writer, cuts, windows, orders by name, advice."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from midsource.engine import admin, records
from midsource.engine.work import Cancelled, Context, Report
from midsource.model.ids import Month
from midsource.model.maintenance import Act, Level
from midsource.net.clock import SystemClock
from midsource.policy import maintenance as policy
from midsource.store import options
from midsource.store.database import Connection, Database, scalar
from midsource.store.maintenance import actions, measuring, status
from midsource.testing.clock import ManualClock
from midsource.workflows import database_maintenance

ROWS = 400_000
MONTH = f"broad_log_{Month.of(SystemClock().now())}"
ALWAYS = "00:00-24:00"
BLOCKED_SECONDS = 2.0
"""Longest wait of a writer beside VACUUM and REINDEX on a machine with two busy cores; a lock would be the whole rebuild."""


def no_beat() -> None:
    """Hold the lease: nobody else wants it."""


@dataclass
class Kept:
    """An instance's database with what a slice is given; ``journal`` holds what was said."""

    database: Database
    clock: SystemClock | ManualClock = field(default_factory=SystemClock)
    journal: list[tuple[str, str]] = field(default_factory=list)
    beat: Callable[[], None] = no_beat

    def context(self) -> Context:
        return Context(
            database=self.database,
            clock=self.clock,
            home=Path("/"),
            instance="marketing",
            subject=0,
            say=lambda level, line: self.journal.append((level, line)),
            beat=self.beat,
            progress=lambda _: None,
        )

    def run(self, slices: int = 20) -> Report:
        """Run slices until nothing is left to do at once."""
        for _ in range(slices):
            report = database_maintenance.run_once(self.context())
            if report.more_after_seconds != 0:
                return report
        raise AssertionError(self.journal[-5:])

    def conn(self) -> Connection:
        return psycopg.connect(self.database.dsn, autocommit=True)

    def said(self, words: str) -> list[str]:
        return [line for _, line in self.journal if words in line]


@pytest.fixture
def kept(make_database: Callable[..., str], link_templates: tuple[str, str]) -> Iterator[Kept]:
    with Database("marketing", make_database(link_templates[0]), application="tests") as opened:
        with opened.transaction() as conn:
            options.write(conn, "Maintenance_Window", ALWAYS, by="tests")
        yield Kept(opened)


def first_delivery() -> int:
    return Month.of(SystemClock().now()).first_delivery_id | 1


def bring_to_bloat(kept: Kept, rows: int = ROWS) -> None:
    """Fill a month of the log, change an indexed column of every row, delete nine of ten; autovacuum stays away."""
    with kept.conn() as conn:
        conn.execute(f"alter table {MONTH} set (autovacuum_enabled = off)")
        conn.execute(
            "insert into broad_log (delivery_id, id, recipient_id, state, event_at) "
            "select %s, n, n, 6, now() from generate_series(1, %s) n",
            (first_delivery(), rows),
        )
        conn.execute(f"analyze {MONTH}")
        conn.execute(f"update {MONTH} set recipient_id = recipient_id + %s", (rows,))
        conn.execute(f"delete from {MONTH} where id % 10 <> 0")
        conn.execute("select pg_stat_force_next_flush()")


class Writer:
    """Inserts a row every 10 ms and keeps how long each took; use as a context."""

    def __init__(self, kept: Kept) -> None:
        self._conn = kept.conn()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.seconds: list[float] = []

    def _write(self) -> None:
        number = 10 * ROWS
        while not self._ending.wait(0.01):
            number += 1
            began = time.monotonic()
            self._conn.execute(
                "insert into broad_log (delivery_id, id, recipient_id, state, event_at) values (%s, %s, %s, 6, now())",
                (first_delivery(), number, number),
            )
            self.seconds.append(time.monotonic() - began)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        self._conn.close()


@pytest.mark.slow
def test_real_bloat_is_found_and_mended_while_a_writer_goes_on(kept: Kept) -> None:
    bring_to_bloat(kept)
    with kept.database.connection() as conn:
        before = status.read(conn, kept.clock.now())
    worst = before.remarks[0]
    assert (worst.level, worst.kind, worst.subject) == (Level.NOW, "dead rows", MONTH)
    assert before.is_urgent
    assert any(step.act is Act.VACUUM_ANALYZE and step.relation == MONTH for step in before.steps)
    with Writer(kept) as writer:
        kept.run()
    with kept.database.connection() as conn:
        after = status.read(conn, kept.clock.now())
        done = [row for row in actions.latest(conn) if row.outcome == "done" and row.relation.startswith(MONTH)]
    assert [remark for remark in after.remarks if remark.level is not Level.NOTE and remark.kind != "autovacuum"] == []
    rebuilt = [row for row in done if row.act == "reindex"]
    assert {row.relation for row in rebuilt} == {f"{MONTH}_pkey", f"{MONTH}_recipient_id_idx"}
    assert all((row.bytes_after or 0) < (row.bytes_before or 0) / 2 and row.seconds is not None for row in rebuilt)
    assert [row.act for row in done][-1] == "vacuum analyze", "rows before indexes"
    assert kept.said(f"reindex {MONTH}_pkey")
    assert len(writer.seconds) > 20
    sys.stdout.write(f"{len(writer.seconds)} inserts, the longest {max(writer.seconds):.3f} s\n")
    sys.stdout.write("\n".join(kept.said(MONTH)) + "\n")
    assert max(writer.seconds) < BLOCKED_SECONDS


def test_an_index_that_was_rebuilt_is_measured_by_its_own_rebuild(kept: Kept) -> None:
    bring_to_bloat(kept, 100_000)
    with kept.database.connection() as conn:
        step = policy.of(measuring.measure(conn, kept.clock.now()), [f"{MONTH}_pkey"], Act.REINDEX)
        actions.ask(conn, step, "alice")
    kept.run()
    with kept.database.connection() as conn:
        index = next(i for i in measuring.measure(conn, kept.clock.now()).indexes if i.name == f"{MONTH}_pkey")
    assert index.rebuilt is not None
    assert index.rebuilt.bytes == index.bytes


SLICE = """
    import sys, threading
    from pathlib import Path
    from midsource.engine.work import Context
    from midsource.net.clock import SystemClock
    from midsource.store.database import Database
    from midsource.workflows import database_maintenance
    with Database("marketing", sys.argv[1], application="worker") as database:
        database_maintenance.run_once(Context(database, SystemClock(), Path("/"), "marketing", 0,
            lambda level, line: print(line, flush=True), lambda: None, lambda values: None))
"""


def invalid(kept: Kept) -> list[str]:
    with kept.conn() as conn:
        rows = conn.execute(
            "select indexrelid::regclass::text from pg_index where not indisvalid and indrelid = %s::regclass", (MONTH,)
        ).fetchall()
    return [name for (name,) in rows]


def eventually(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


@pytest.fixture
def held_up(kept: Kept) -> Iterator[Connection]:
    """A writer's open transaction on the month, on which a rebuild waits halfway; and an order to rebuild an index."""
    with kept.conn() as conn:
        conn.execute(
            "insert into broad_log (delivery_id, id, recipient_id, state, event_at) "
            "select %s, n, n, 6, now() from generate_series(1, 1000) n",
            (first_delivery(),),
        )
    with kept.database.connection() as conn:
        step = policy.of(measuring.measure(conn, kept.clock.now()), [f"{MONTH}_pkey"], Act.REINDEX)
        actions.ask(conn, step, "alice")
    with psycopg.connect(kept.database.dsn) as writer:
        writer.execute(f"update {MONTH} set state = 1 where id = 1")
        yield writer


@pytest.mark.slow
def test_what_a_kill_9_in_the_middle_of_a_rebuild_leaves_is_dropped_next_time(kept: Kept, held_up: Connection) -> None:
    killed = subprocess.Popen([sys.executable, "-c", textwrap.dedent(SLICE), kept.database.dsn])
    eventually(lambda: invalid(kept) == [f"{MONTH}_pkey_ccnew"])
    killed.kill()
    killed.wait()
    with kept.conn() as conn:  # the server finds out by itself that its client is gone
        running = "select count(*) from pg_stat_activity where datname = current_database() and query ilike 'reindex%'"
        eventually(lambda: scalar(conn, running) == 0)
    held_up.rollback()
    with kept.database.connection() as conn:
        found = status.read(conn, kept.clock.now())
        assert any(
            (r.level, r.kind, r.subject) == (Level.NOW, "left-over index", f"{MONTH}_pkey_ccnew") for r in found.remarks
        )
    kept.run()
    assert invalid(kept) == []
    assert kept.said("was cut: the worker ended while it ran")
    with kept.database.connection() as conn:
        rows = {(row.act, row.relation): row.outcome for row in actions.latest(conn)}
    assert rows["reindex", f"{MONTH}_pkey"] == "cut"
    assert rows["drop index", f"{MONTH}_pkey_ccnew"] == "done"


@pytest.mark.slow
def test_a_killed_run_cancels_its_statement_within_seconds(kept: Kept, held_up: Connection) -> None:
    def stopped() -> None:
        if invalid(kept):
            raise Cancelled("stopped by an operator")

    kept.beat = stopped
    began = time.monotonic()
    with pytest.raises(Cancelled):
        kept.run()
    assert time.monotonic() - began < 10
    with kept.conn() as conn:
        running = "select count(*) from pg_stat_activity where application_name like 'maintenance@%'"
        eventually(lambda: scalar(conn, running) == 0, 5)
    with kept.database.connection() as conn:
        row = actions.latest(conn)[0]
    assert (row.outcome, row.error) == ("cut", "the run was stopped")


@pytest.mark.slow
def test_a_kill_from_any_machine_finds_the_session_and_cancels_it(kept: Kept, held_up: Connection) -> None:
    with kept.database.transaction() as conn:
        conn.execute("insert into workflow (name, schedule) values (%s, 'every hour')", (database_maintenance.NAME,))
        run = admin.run_now(conn, database_maintenance.NAME, "alice")
    killed: list[admin.Killed] = []

    def kill() -> None:
        eventually(lambda: bool(invalid(kept)))
        with kept.database.transaction() as conn:
            killed.append(admin.kill(conn, database_maintenance.NAME, "bob"))

    def beat() -> None:
        if killed:
            raise Cancelled("killed")

    kept.beat = beat
    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(Cancelled):
        kept.run()
    thread.join()
    assert killed == [admin.Killed(run, 1)]
    assert actions_of(kept)[0].outcome == "cut"


@pytest.mark.slow
def test_a_statement_longer_than_the_beat_keeps_its_lease(kept: Kept, held_up: Connection) -> None:
    """It waits eight seconds for a writer, while the slice beats from the thread that watches it."""
    beats: list[float] = []
    kept.beat = lambda: beats.append(time.monotonic())
    end = threading.Timer(8, held_up.rollback)
    end.start()
    kept.run()
    end.join()
    with kept.database.connection() as conn:
        row = next(row for row in actions.latest(conn) if row.act == "reindex")
    assert row.outcome == "done"
    assert max(later - sooner for sooner, later in itertools.pairwise(beats)) < 5


def test_another_session_is_waited_for(kept: Kept) -> None:
    from midsource.store.maintenance.session import MaintenanceSession

    with MaintenanceSession("marketing", kept.database.dsn):
        report = kept.run()
    assert report.more_after_seconds == database_maintenance.BUSY_SECONDS
    assert kept.said("another session maintains the database")


@pytest.fixture
def by_day(kept: Kept) -> Kept:
    """It is noon, the window is at night, and a table has something to do; the workflow is registered."""
    kept.clock = ManualClock(datetime(2026, 3, 1, 12, 0, tzinfo=UTC))
    with kept.database.transaction() as conn:
        options.write(conn, "Maintenance_Window", "02:00-05:00", by="tests")
        conn.execute(
            "insert into workflow (name, schedule, next_at) values (%s, %s, '2026-03-08 02:00Z')",
            (database_maintenance.NAME, database_maintenance.SCHEDULE),
        )
        conn.execute("insert into segment (name, expression) values ('all', '')")
    return kept


def test_outside_the_window_nothing_is_done_and_the_next_tick_comes_when_it_opens(by_day: Kept) -> None:
    with by_day.database.transaction() as conn:
        conn.execute("insert into workflow_run (workflow) values (%s)", (database_maintenance.NAME,))
    report = by_day.run()
    assert (report.rows_written, report.more_after_seconds) == (0, None)
    assert by_day.said("wait for the window 02:00-05:00 (UTC), which opens at 2026-03-02 02:00Z")
    with by_day.database.connection() as conn:
        assert actions.latest(conn) == []
        assert records.get(conn, database_maintenance.NAME).next_at == datetime(2026, 3, 2, 2, tzinfo=UTC)


def test_an_operator_overrides_the_window_and_the_journal_says_so(by_day: Kept) -> None:
    with by_day.database.transaction() as conn:
        admin.run_now(conn, database_maintenance.NAME, "alice")
    report = by_day.run()
    assert report.rows_written > 0
    assert by_day.said("ordered by alice outside the window 02:00-05:00 (UTC)")
    with by_day.database.connection() as conn:
        assert "segment" in {row.relation for row in actions.latest(conn) if row.outcome == "done"}


def test_an_order_by_name_does_that_and_nothing_else(by_day: Kept) -> None:
    with by_day.database.transaction() as conn:
        steps = policy.of(measuring.measure(conn, by_day.clock.now()), ["brand"], Act.VACUUM_ANALYZE)
        ids = actions.ask(conn, steps, "alice")
        assert actions.ask(conn, steps, "bob") == ids, "asked for once"
        admin.run_now(conn, database_maintenance.NAME, "alice")
    by_day.run()
    with by_day.database.connection() as conn:
        assert [(row.act, row.relation, row.outcome) for row in actions.latest(conn)] == [
            ("vacuum analyze", "brand", "done")
        ]


def test_in_mode_advise_the_plan_is_kept_with_its_sql_and_nothing_is_executed(kept: Kept) -> None:
    with kept.database.transaction() as conn:
        options.write(conn, "Maintenance_Mode", "advise", by="tests")
        conn.execute("insert into segment (name, expression) values ('all', '')")
    for _ in range(2):
        assert kept.run().rows_written == 0
    with kept.database.connection() as conn:
        kinds = {(row.relation, row.outcome, row.statement) for row in actions.latest(conn)}
        assert scalar(conn, "select reltuples from pg_class where relname = 'segment'") == -1
    assert ("segment", "advised", 'ANALYZE "public"."segment"') in kinds
    assert {outcome for _, outcome, _ in kinds} == {"advised"}
    assert len(actions_of(kept)) == len(kinds), "the second plan replaced the first"


def actions_of(kept: Kept) -> list[actions.ActionRow]:
    with kept.database.connection() as conn:
        return actions.latest(conn, 500)


@pytest.mark.slow
def test_one_that_fails_leaves_the_others_their_turn(kept: Kept) -> None:
    with kept.database.transaction() as conn:
        conn.execute("insert into segment (name, expression) values ('all', '')")
        conn.execute("insert into recipient_list (name) values ('all')")
    with psycopg.connect(kept.database.dsn) as holder:  # somebody vacuums by hand for longer than we wait
        holder.execute("lock table segment in share update exclusive mode")
        report = kept.run()
    outcomes = {row.relation: (row.outcome, row.error) for row in actions_of(kept)}
    assert outcomes["recipient_list"] == ("done", "")
    assert outcomes["segment"][0] == "failed"
    assert "lock timeout" in outcomes["segment"][1]
    assert report.rows_refused == 1
    with kept.database.connection() as conn:
        kinds = {(remark.kind, remark.subject) for remark in status.read(conn, kept.clock.now()).remarks}
    assert ("failed action", "segment") in kinds
