"""Commands on a home that runs, runs in part, or does not run at all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from midsource.store import budget
from midsource.web.app import THREADS
from midsource.web.console.reader import PAGES_AT_ONCE

Run = Callable[..., subprocess.CompletedProcess[str]]
External = Callable[..., tuple[str, str]]


def sentence(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Return the one sentence that a refused command said."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def last_json(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout.splitlines()[-1])


def test_a_demo_beside_a_stopped_process_says_which_and_how_to_start_it(midsource: Run, external: External) -> None:
    external()
    assert midsource("init").returncode == 0
    assert midsource("up", "--detach").returncode == 0
    assert midsource("stop", "web@mid1", "mta@mid1").returncode == 0
    said = sentence(midsource("demo", "--once", "--recipients", "10"), 3)
    assert "web@mid1, mta@mid1 are stopped: run `midsource start web@mid1 mta@mid1`, then repeat" in said
    assert midsource("status", "--missing").stdout.split() == ["missing:", "web@mid1", "missing:", "mta@mid1"]
    assert midsource("start", "web@mid1", "mta@mid1").returncode == 0
    shown = last_json(midsource("demo", "--once", "--json", "--recipients", "40"))
    assert shown["sums_hold"] is True
    assert midsource("status").returncode == 0, "a demo leaves running what ran before it"


def test_a_demo_beside_a_part_of_the_processes_says_what_is_left_out(midsource: Run, external: External) -> None:
    external()
    assert midsource("init").returncode == 0
    assert midsource("up", "--only", "mid1", "--detach").returncode == 0
    said = sentence(midsource("demo", "--once", "--recipients", "10"), 3)
    assert "without web@marketing, worker@marketing" in said
    assert "midsource down" in said


def test_ready_means_this_life_of_each_process(midsource: Run, external: External, tmp_path: Path) -> None:
    """Killed and started at once: what the former life said of itself is still fresh, and counts for nothing."""
    external()
    assert midsource("init").returncode == 0
    assert midsource("up", "--detach").returncode == 0
    before = {row["name"]: row["pid"] for row in last_json(midsource("ps", "--json"))["processes"]}
    supervisor = _supervisor_of(before)
    subprocess.run(["kill", "-9", str(supervisor), *map(str, before.values())], check=True)
    assert midsource("status").returncode == 3
    assert midsource("up", "--detach").returncode == 0
    after = {row["name"]: row["pid"] for row in last_json(midsource("ps", "--json"))["processes"]}
    assert before.keys() == after.keys()
    log = (tmp_path / "log" / "mid1" / "web.log").read_text()
    assert log.count('"action": "serving"') == 2, "it served when `up --detach` said so"


def _supervisor_of(pids: dict[str, int]) -> int:
    """The parent of the processes."""
    stat = Path(f"/proc/{next(iter(pids.values()))}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


def test_what_needs_a_worker_changes_nothing_without_one(midsource: Run, external: External) -> None:
    marketing, _ = external()
    assert midsource("init").returncode == 0
    with psycopg.connect(marketing) as conn:
        conn.execute(
            "insert into workflow (name, schedule, failed) values ('defaultMidSourcingLog', '7 * * * *', true)"
        )
    for words in (
        ["workflow", "restart", "--failed"],
        ["workflow", "run-now", "defaultMidSourcingLog"],
        ["delivery", "prepare", "last"],
    ):
        assert "no worker of marketing is alive" in sentence(midsource(*words), 3)
    with psycopg.connect(marketing) as conn:
        assert conn.execute("select failed from workflow").fetchone() == (True,)
        assert conn.execute("select count(*) from workflow_run").fetchone() == (0,)
    tried = midsource("workflow", "restart", "--failed", "--dry-run")
    assert tried.stdout.strip() == "would restart defaultMidSourcingLog on marketing"


def test_erasing_asks_somebody(midsource: Run, external: External) -> None:
    external()
    assert "repeat with --yes" in sentence(midsource("recipients", "erase", "bob@example.org"), 2)


def test_a_reader_that_has_enough_ends_a_command_quietly(midsource: Run, external: External, tmp_path: Path) -> None:
    external()
    assert midsource("init").returncode == 0
    command = f"{sys.executable} -m midsource --home {tmp_path} option list | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""


def test_a_process_that_cannot_run_says_so_in_its_log_too(process: Run, external: External) -> None:
    external()
    done = process("worker@marketing")
    assert done.returncode == 3
    line = json.loads(done.stderr.splitlines()[0])
    assert (line["level"], line["process"], line["code"]) == ("error", "worker@marketing", "MS-500")
    assert "midsource init" in line["cause"]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("carrier@marketing", "there is no process kind 'carrier': there are web, worker, mta, sandbox"),
        ("mta@nowhere", "'nowhere'"),
        ("mta@marketing", "it never sends"),
    ],
)
def test_a_process_that_there_is_not_is_refused(
    midsource: Run, process: Run, external: External, name: str, said: str
) -> None:
    external()
    assert midsource("init").returncode == 0
    done = process(name)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_budgets_are_what_the_processes_are_built_for() -> None:
    assert budget.WEB_POOL == THREADS + 2
    assert budget.WEB_PAGES == PAGES_AT_ONCE
    assert budget.needed(["web@marketing", "worker@marketing.2", "sandbox@mid1"]) == 15 + 19 + budget.COMMANDS
