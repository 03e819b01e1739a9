"""The page of processes over a real supervisor of real processes, asked through its socket."""

from __future__ import annotations

import html
import re
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx2
import pytest
from tests.web.console_served import Console

from midsource.model.errors import Unhealthy
from midsource.net import control

SUPERVISOR = """
import sys
from pathlib import Path
from midsource.supervise.children import ProcessSpec
from midsource.supervise.processes import Supervisor
home = Path(sys.argv[1])
names = ("web@marketing", "worker@marketing", "mta@mid1")
sleep = (sys.executable, "-c", "import time; time.sleep(600)")
Supervisor(home, [ProcessSpec(name, sleep, home / "log" / f"{name}.log") for name in names]).run()
"""
START_SECONDS = 30


@pytest.fixture
def supervised(console: Console) -> Iterator[Console]:
    with subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(console.home)]) as process:
        deadline = time.monotonic() + START_SECONDS
        while states(console) != {"running"}:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield console
        process.terminate()
    assert process.returncode == 0


def states(console: Console, *names: str) -> set[str]:
    try:
        answer = control.ask(console.home, "ps", names)["processes"]
    except Unhealthy:
        return set()
    assert isinstance(answer, list)
    return {str(row["state"]) for row in answer}


def pid(console: Console, name: str) -> int:
    answer = control.ask(console.home, "ps", [name])["processes"]
    assert isinstance(answer, list)
    return int(answer[0]["pid"])


def seen(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    text = re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", answer.text, flags=re.DOTALL)
    return " ".join(html.unescape(text).split())


def post(browser: httpx2.Client, verb: str, name: str) -> httpx2.Response:
    found = re.search(r'name="csrf" value="([^"]+)"', browser.get("/processes?lang=en").text)
    assert found is not None
    return browser.post(f"/processes/{verb}", data={"csrf": found[1], "name": name})


def test_processes_stop_start_and_restart_as_the_command_line_does(supervised: Console, browser: httpx2.Client) -> None:
    with supervised.database.transaction() as conn:
        conn.execute(
            "insert into process (name, kind, host, pid, executor) values ('worker@marketing', 'worker', 'send1', 7, 'e')"
        )
    words = seen(browser.get("/processes?lang=en"))
    assert words.index("marketing Process State") < words.index("mid1 Process State"), "this instance first"
    assert re.search(
        r"worker@marketing send1 · 7 · \d+ MB · executor e running \d+ s \d s ago \d+ of \d+ Restart Stop", words
    )
    assert re.search(r"mta@mid1 \d+ · \d+ MB running \d+ s – ≤ 4 Restart Stop", words)
    assert "With no mta left nothing is sent" in seen(browser.get("/processes/stop?name=mta@mid1"))
    assert browser.get("/processes/stop?name=x").status_code == 404
    stopped = seen(post(browser, "stop", "mta@mid1"))
    assert "It is stopped." in stopped
    assert re.search(r"mta@mid1 .{0,20}stopped .*? Start", stopped)
    assert states(supervised, "mta@mid1") == {"stopped"}
    assert "It is started." in seen(post(browser, "start", "mta@mid1"))
    before = pid(supervised, "mta@mid1")
    assert "It is restarted." in seen(post(browser, "restart", "mta@mid1"))
    assert pid(supervised, "mta@mid1") != before
    assert post(browser, "restart", "mta@nowhere").status_code == 404
    assert post(browser, "explode", "mta@mid1").status_code == 404
    with supervised.database.connection() as conn:
        found = conn.execute("select verb, subject from audit order by id").fetchall()
    assert found == [(f"process.{verb}", "mta@mid1") for verb in ("stop", "start", "restart")]


def test_the_process_that_serves_the_page_is_restarted_without_waiting_and_never_stopped(
    supervised: Console, browser: httpx2.Client
) -> None:
    before = pid(supervised, "web@marketing")
    page = post(browser, "restart", "web@marketing")
    assert "web@marketing is restarted" in seen(page)
    assert 'http-equiv="refresh" content="8;url=/processes"' in page.text
    deadline = time.monotonic() + START_SECONDS
    while pid(supervised, "web@marketing") == before:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    refused = post(browser, "stop", "web@marketing")
    assert refused.status_code == 409
    assert "midsource stop web@marketing" in refused.text
