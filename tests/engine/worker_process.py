"""A real worker process with works made for tests: ``worker_process.py DSN NAME``."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from midsource.engine.runtime import Engine
from midsource.engine.work import Cancelled, Context, JobKind, Report, Works
from midsource.model.errors import Failed, RemoteUnavailable
from midsource.net.clock import SystemClock
from midsource.store import processes
from midsource.store.database import Database

processes.DEAD_AFTER_SECONDS = 3  # a test cannot wait for the real 30 s
processes.BEAT_SECONDS = 0.5

dsn, name = sys.argv[1:]
database = Database("marketing", dsn, application=name)


def trace(what: str) -> int:
    with database.connection() as conn:
        conn.execute("insert into trace (who, what) values (%s, %s)", (name, what))
        row = conn.execute("select count(*) from trace where what = %s", (what,)).fetchone()
    return int(row[0]) if row else 0


def three_slices(context: Context) -> Report:
    done = trace(f"three-{context.subject}")
    context.progress({"done": done, "of": 3})
    return Report(more_after_seconds=0) if done < 3 else Report(then=("follow",))


def follow(context: Context) -> Report:
    trace(f"follow-{context.subject}")
    return Report()


def flaky(context: Context) -> Report:
    if trace(f"flaky-{context.subject}") < 3:
        raise RemoteUnavailable("the mid does not answer", "start it")
    return Report()


def broken(context: Context) -> Report:
    raise Failed("the template has no subject", "give it one")


def slow(context: Context) -> Report:
    trace(f"slow-begun-{context.subject}")
    for _ in range(40):
        context.beat()
        time.sleep(0.1)
    trace(f"slow-done-{context.subject}")
    return Report()


def long_run(context: Context) -> Report:
    trace("run-begun")
    context.say("info", "page 1")
    for _ in range(30):
        context.beat()
        time.sleep(0.1)
    trace("run-ended")
    return Report(rows_read=10, rows_written=9, rows_refused=1, window_from="a", window_to="b")


def paging(context: Context) -> Report:
    """Write a page in a transaction that lasts; what becomes of it stands in the trace of others."""
    trace("page-begun")
    try:
        with context.database.transaction() as conn:
            conn.execute("insert into trace (who, what) values (%s, 'page')", (name,))
            time.sleep(3)
    except Cancelled:
        trace("page-fenced")
        raise
    return Report(rows_written=1)


def short(context: Context) -> Report:
    trace("short-begun")
    time.sleep(0.05)
    trace("short-ended")
    return Report()


def hung(context: Context) -> Report:
    """Hang where no statement and no beat is, the first time."""
    if trace("hung") == 1:
        time.sleep(60)
    return Report()


def yearly(body: Callable[[Context], Report], workflow: str) -> SimpleNamespace:
    return SimpleNamespace(NAME=workflow, SCHEDULE="0 0 1 1 *", run_once=body)


works = Works(
    jobs=tuple(JobKind(body.__name__, body) for body in (three_slices, follow, flaky, broken, slow)),
    workflows=(*tuple(yearly(body, body.__name__) for body in (paging, short, hung)), yearly(long_run, "longRun")),
)
engine = Engine(
    database, name=name, role="marketing", instance="marketing", home=Path(), clock=SystemClock(), works=works
)
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
engine.launch()
ended.wait()
engine.stop()
