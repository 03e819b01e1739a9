"""Homes with a PostgreSQL of their own, for tests that kill it."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from midsource.supervise.places import HomeFiles
from midsource.supervise.postgres import EmbeddedPostgres
from midsource.supervise.state import Phase

FAST = {"fsync": "off"}
_NUMBERS = itertools.count(1)


@pytest.fixture
def home(open_folder: Path) -> Path:
    """An empty home folder that any user may pass through."""
    folder = open_folder / f"h{next(_NUMBERS)}"
    folder.mkdir()
    folder.chmod(0o755)
    return folder


@pytest.fixture
def make_server(open_folder: Path) -> Iterator[Callable[..., EmbeddedPostgres]]:
    """Makes servers that end soon after their last user, and at the end of the test in any case."""
    made: list[EmbeddedPostgres] = []

    def make(home: Path, **options: object) -> EmbeddedPostgres:
        values = {"settings": FAST, "idle_seconds": 0.5, "system_folder": open_folder / "system", **options}
        server = EmbeddedPostgres(home, **values)  # type: ignore[arg-type]
        made.append(server)
        return server

    yield make
    for server in made:
        server.stop_now()


@pytest.fixture
def server(home: Path, make_server: Callable[..., EmbeddedPostgres]) -> EmbeddedPostgres:
    """The server of ``home``, not started yet."""
    return make_server(home)


@pytest.fixture
def until() -> Callable[..., None]:
    """Waits until a condition holds, and fails when it does not within ``seconds``."""

    def wait(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            time.sleep(0.02)

    return wait


def is_alive(pid: int) -> bool:
    """Tell whether the process exists and is no zombie."""
    try:
        os.kill(pid, 0)
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Tells whether a process lives."""
    return is_alive


@pytest.fixture
def files(home: Path) -> HomeFiles:
    """The files of ``home``."""
    return HomeFiles(home)


@pytest.fixture
def ended(until: Callable[..., None]) -> Callable[[EmbeddedPostgres], None]:
    """Waits until nobody owns the server any more."""

    def wait(server: EmbeddedPostgres) -> None:
        until(lambda: server.status().phase is Phase.ABSENT, "the server ends")

    return wait
