"""A migrated database for the engine, and real worker processes on it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from midsource.net.clock import SystemClock
from midsource.store import migrate
from midsource.store.database import Database

WORKER = Path(__file__).parent / "worker_process.py"


@pytest.fixture
def engine_db(database: Callable[[], str]) -> Iterator[Database]:
    with Database("marketing", database(), application="tests") as opened:
        migrate.upgrade(opened, "marketing")
        with opened.transaction() as conn:
            migrate.describe_instance(conn, "marketing", "marketing")
            migrate.ensure_partitions(conn, "marketing", SystemClock().now())
            conn.execute("create table trace (at timestamptz default clock_timestamp(), who text, what text)")
        yield opened


@pytest.fixture
def start_worker(engine_db: Database, tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """``start_worker("w1")`` runs a worker process; all are killed at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str) -> subprocess.Popen[bytes]:
        with (tmp_path / f"{name}.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, WORKER, engine_db.dsn, name], stdout=log, stderr=log)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
    for log in sorted(tmp_path.glob("*.log")):
        sys.stdout.write(f"--- {log.name}\n{log.read_text()[-3000:]}\n")


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool], float], None]:
    """Wait for a condition, 0.1 s at a time; fails after ``seconds``."""

    def wait(condition: Callable[[], bool], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s"
            time.sleep(0.1)

    return wait
