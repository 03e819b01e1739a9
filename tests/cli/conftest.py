"""Homes for the real command line: with an external PostgreSQL, which is the server of this test run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from midsource.cli.setup import free_port
from midsource.config import environment

PORTS_FROM = 30_000 + os.getpid() % 100 * 20
"""Away from the ports of homes, and below those that the system gives to outgoing connections. Of each process of a run its
own: two that look for free ports at once find the same ones."""
TEMPLATE = """\
[postgres]
mode = "external"

[instances.marketing]
role = "marketing"
port = {port}
database_url = "{marketing}"

[instances.mid1]
role = "mid"
port = {mid_port}
database_url = "{mid}"

[sandbox]
http_port = {inbox}
smtp_port = {smtp}
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def midsource(tmp_path: Path) -> Iterator[Run]:
    """``midsource("status", "--json", env={…})``: the real command on the home of this test; it is down at the end."""

    run = _runner("midsource", tmp_path)
    yield run
    run("down")


@pytest.fixture
def process(tmp_path: Path) -> Run:
    """``process("web@mid1")``: one process of the home of this test in the foreground, as `up` starts it."""
    return _runner("midsource.cli.process", tmp_path)


def _runner(module: str, home: Path) -> Run:
    def run(*words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, "--home", str(home), *words],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**environment(), **(env or {})},
        )

    return run


@pytest.fixture
def external(tmp_path: Path, database: Callable[[], str]) -> Callable[..., tuple[str, str]]:
    """``external(mid=URL)`` writes a home on two databases of this test run, or on those given; returns the URLs."""

    def write(marketing: str = "", mid: str = "", more: str = "") -> tuple[str, str]:
        urls = (marketing or database(), mid or database())
        port = free_port(PORTS_FROM)
        text = TEMPLATE.format(
            port=port, mid_port=port + 1, inbox=port + 2, smtp=port + 3, marketing=urls[0], mid=urls[1]
        )
        (tmp_path / "midsource.toml").write_text(text + more, encoding="utf-8")
        return urls

    return write
