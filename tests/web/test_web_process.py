"""The web process as it is run: starts, reports itself, ends on SIGTERM at once, and says what is in its way."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from midsource.config import Config, InstanceConfig
from midsource.model.errors import Unhealthy
from midsource.store import migrate
from midsource.store.database import Database, scalar
from midsource.web.serve import listening, run

SCRIPT = """
import sys
from pathlib import Path
from midsource.config import Config, InstanceConfig
from midsource.web.serve import run
home, dsn, port = sys.argv[1:]
run(Config(Path(home), instances=(InstanceConfig("mid1", "mid", database_url=dsn, port=int(port)),)), "mid1")
print("closed")
"""


@pytest.fixture
def mid(make_database: Callable[..., str]) -> Iterator[Database]:
    with Database("mid1", make_database(), application="tests") as opened:
        migrate.upgrade(opened, "mid")
        with opened.transaction() as conn:
            migrate.describe_instance(conn, "mid1", "mid")
        yield opened


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


def test_it_serves_reports_itself_and_ends_cleanly_on_sigterm(mid: Database, tmp_path: Path) -> None:
    port = free_port()
    argv = [sys.executable, "-c", SCRIPT, str(tmp_path), mid.dsn, str(port)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 30
        while True:
            try:
                if httpx2.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200:
                    break
            except httpx2.TransportError:
                assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        while True:
            with mid.connection() as conn:
                found = conn.execute("select name, kind, pid from process").fetchone()
            if found:
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert found == ("web@mid1", "web", process.pid)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=15)
    assert process.returncode == 0
    assert output.splitlines()[-1] == b"closed"
    with mid.connection() as conn:
        assert scalar(conn, "select count(*) from process") == 0


def test_a_taken_address_is_said_with_its_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        instance = InstanceConfig("mid1", "mid", port=taken.getsockname()[1])
        with pytest.raises(Unhealthy, match=r"cannot listen at 127\.0\.0\.1.*instances\.mid1\.port"):
            listening(instance)
        before = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(Unhealthy, match="cannot listen"):
                run(Config(tmp_path, instances=(instance,)), "mid1")
        finally:
            signal.signal(signal.SIGTERM, before)
