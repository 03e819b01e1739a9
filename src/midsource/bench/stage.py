"""What every row of the benchmark works with: a folder, a PostgreSQL, how often and how much, and what to clean up.

The caller (the command line) gives the server and the way to start a process, because a benchmark belongs to no home of an
operator: everything is made in a folder of its own and ends with it, a process of ours even where the benchmark is killed (a
peer's is not bound so). What several rows need (a sending mid, a pair) is made once, by whoever asks first, and closed at the end.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeAlias, TypeVar, cast

from midsource.bench import machine
from midsource.model.errors import Failed
from midsource.net.clock import SystemClock
from midsource.store.database import Database

T = TypeVar("T")
Start: TypeAlias = Callable[[Sequence[str], "int | IO[bytes]"], subprocess.Popen[bytes]]
"""Starts a program whose output goes there, and which does not outlive us."""
STOP_SECONDS = 30.0
"""How long a process may take to end before it is killed."""


@dataclass(slots=True)
class Bench:
    """One run of the benchmark. ``database`` makes an empty database and returns its URL. Use as a context."""

    folder: Path
    database: Callable[[str], str]
    start: Start
    runs: int = 3
    scale: float = 1.0
    mtas: int = 1
    say: Callable[[str], None] = lambda _: None
    clock: SystemClock = field(default_factory=SystemClock)
    _kept: dict[str, Any] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Bench:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process and close every database."""
        self._stack.__exit__(kind, exc, trace)

    def once(self, key: str, make: Callable[[], T]) -> T:
        """Return what ``make`` made when this key was asked for first."""
        if key not in self._kept:
            self._kept[key] = make()
        return cast("T", self._kept[key])

    def count(self, number: int) -> int:
        """Return how many of something this run does, where scale 1 does ``number``; never fewer than ten."""
        return max(10, round(number * self.scale))

    def finally_(self, close: Callable[[], object]) -> None:
        """Have something closed at the end, the last one first."""
        self._stack.callback(close)

    def open(self, name: str, url: str, *, connections: int = 6) -> Database:
        """Open a database until the end."""
        database = Database(name, url, application="bench", max_connections=connections)
        self.finally_(database.close)
        return database

    def process(self, home: Path, name: str) -> Process:
        """Start a process of a home, as `up` does, and end it at the end. ``name`` as in ``mta@mid1``."""
        log = home / "log" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        argv = [sys.executable, "-P", "-m", "midsource.cli.process", "--home", str(home), name]
        with log.open("ab") as file:
            child = self.start(argv, file)
        started = Process(name, child, log)
        self.finally_(started.stop)
        return started


@dataclass(slots=True)
class Process:
    """A process under measurement."""

    name: str
    child: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Its number."""
        return self.child.pid

    def cpu_seconds(self) -> float:
        """Return its CPU seconds so far."""
        return machine.cpu_seconds([self.pid])

    def must_run(self) -> None:
        """Raise Failed, with the end of its log, where it has ended."""
        if self.child.poll() is not None:
            tail = self.log.read_text(encoding="utf-8", errors="replace").strip()[-600:]
            raise Failed(f"{self.name} ended by itself ({tail or 'it said nothing'})", f"see {self.log}")

    def stop(self) -> None:
        """End it."""
        stop(self.child)


def stop(child: subprocess.Popen[Any]) -> None:
    """End a process of ours, by force after STOP_SECONDS."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
    child.wait()


def wait_until(
    question: Callable[[], object], what: str, seconds: float, *watched: Process, every: float = 0.02
) -> None:
    """Wait for a yes; raise Failed after ``seconds``, or as soon as a watched process ends."""
    deadline = time.monotonic() + seconds
    while not question():
        for process in watched:
            process.must_run()
        if time.monotonic() > deadline:
            raise Failed(f"{what} did not come within {seconds:.0f} s", "see the logs with --keep")
        time.sleep(every)
