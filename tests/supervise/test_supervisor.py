"""The supervisor as its operator meets it: a real one in a process of its own, with real children."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from midsource.model.errors import Conflict, NotFound, Unhealthy, UserError
from midsource.supervise.children import ProcessSpec
from midsource.supervise.control import ControlClient, address_file
from midsource.supervise.processes import Supervisor

Until = Callable[..., None]
Alive = Callable[[int], bool]
Row = dict[str, object]

SUPERVISOR = """
import json, sys
from pathlib import Path
from midsource.supervise.children import ProcessSpec
from midsource.supervise.processes import Supervisor
home, specs = Path(sys.argv[1]), json.loads(sys.argv[2])
Supervisor(home, [ProcessSpec(name, tuple(argv), home / "log" / f"{name}.log", {"PATH": "/bin:/usr/bin", **env})
                  for name, argv, env in specs], report=lambda line: print(line, flush=True)).run()
"""
WATCH = """
import os
from midsource.model.errors import Failed
def watch():
    raise Failed("the database is gone", "look")
"""
STAYS = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"]
DEAF_PROGRAM = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print('heard', flush=True))
print('here', flush=True)
while True:
    time.sleep(1)
"""
DEAF = [sys.executable, "-c", DEAF_PROGRAM]
FALLS = [sys.executable, "-c", "import sys; print('no database', file=sys.stderr); sys.exit(3)"]
LEAVES_A_CHILD = ["/bin/sh", "-c", "sleep 600 & echo $!; exec sleep 601"]


class Running:
    """A supervisor process and the client that asks it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.client = ControlClient(home)
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, **specs: list[str]) -> subprocess.Popen[str]:
        """Start a supervisor over ``name=argv`` (an underscore is an @)."""
        listed = [(name.replace("_", "@"), argv, {"GREETING": "x"}) for name, argv in specs.items()]
        with (self.home / "up.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", SUPERVISOR, str(self.home), json.dumps(listed)],
                stdout=log,
                stderr=log,
                text=True,
            )
        self.processes.append(process)
        return process

    def rows(self) -> dict[str, Row]:
        """Return ``ps`` by name; empty while nobody answers."""
        try:
            answer = self.client.call("ps")["processes"]
        except Unhealthy:
            return {}
        assert isinstance(answer, list)
        return {row["name"]: row for row in answer}

    def row(self, name: str) -> Row:
        """Return one row of ``ps``."""
        return self.rows()[name]

    def pid(self, name: str) -> int:
        """Return the pid of a process, 0 while it has none."""
        row = self.rows().get(name)
        return int(str(row["pid"])) if row else 0

    def log(self, name: str) -> str:
        """Return the log of a process."""
        file = self.home / "log" / f"{name}.log"
        return file.read_text(encoding="utf-8") if file.exists() else ""


@pytest.fixture
def up(home: Path) -> Iterator[Running]:
    running = Running(home)
    yield running
    for process in running.processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def test_processes_run_and_their_words_are_in_their_logs(up: Running, until: Until) -> None:
    up.start(web_marketing=STAYS, mta_mid=STAYS)
    until(lambda: "here" in up.log("web@marketing") and "here" in up.log("mta@mid"), "both have spoken")
    rows = up.rows()
    assert list(rows) == ["web@marketing", "mta@mid"]
    assert all(row["state"] == "running" and row["restarts"] == 0 for row in rows.values())
    assert int(str(rows["mta@mid"]["memory_bytes"])) > 1_000_000


def test_the_environment_of_a_process_is_the_one_given(up: Running, until: Until) -> None:
    up.start(a_x=["/bin/sh", "-c", "env; exec sleep 600"])
    until(lambda: "GREETING=x" in up.log("a@x"), "the environment is printed")
    assert "HOME=" not in up.log("a@x")


def test_a_killed_process_is_started_again(up: Running, until: Until) -> None:
    up.start(web_marketing=STAYS)
    until(lambda: up.pid("web@marketing") > 0, "it runs")
    first = up.pid("web@marketing")
    os.kill(first, signal.SIGKILL)
    until(lambda: up.pid("web@marketing") not in (0, first), "it runs again")
    assert up.row("web@marketing")["restarts"] == 1
    assert up.row("web@marketing")["last_end"] == "ended by SIGKILL"
    assert "ended by SIGKILL; next start in 1 s" in up.log("web@marketing")


def test_one_that_keeps_falling_over_waits_longer_each_time(up: Running, until: Until) -> None:
    up.start(web_marketing=FALLS, mta_mid=STAYS)
    until(lambda: up.log("web@marketing").count("exit code 3") == 3, "it fell over three times")
    delays = re.findall(r"next start in (\d+) s", up.log("web@marketing"))
    assert delays == ["1", "2", "4"]
    assert up.row("web@marketing")["state"] == "waiting"
    assert 0 < float(str(up.row("web@marketing")["next_start_seconds"])) <= 4
    assert up.row("mta@mid")["restarts"] == 0  # the others are left alone
    assert up.log("web@marketing").count("no database") == 3


def test_a_program_that_does_not_exist_is_one_that_keeps_falling_over(up: Running, until: Until) -> None:
    up.start(web_marketing=["/nonexistent/program"])
    until(lambda: up.rows() and up.row("web@marketing")["restarts"] == 2, "two failed starts")
    assert "could not be started" in str(up.row("web@marketing")["last_end"])


def test_stopped_stays_stopped_over_a_new_supervisor_until_started(up: Running, until: Until, alive: Alive) -> None:
    first = up.start(web_marketing=STAYS, mta_mid=STAYS)
    until(lambda: up.pid("mta@mid") > 0, "it runs")
    before = up.pid("web@marketing")
    up.client.call("stop", names=["web@marketing"])
    assert not alive(before)
    assert up.row("web@marketing")["state"] == "stopped"
    assert up.row("mta@mid")["state"] == "running"
    first.terminate()
    assert first.wait(30) == 0
    up.start(web_marketing=STAYS, mta_mid=STAYS)
    until(lambda: up.pid("mta@mid") > 0, "the other runs again")
    assert up.row("web@marketing")["state"] == "stopped"
    up.client.call("start", names=["web@marketing"])
    assert up.row("web@marketing")["state"] == "running"


def test_restart_replaces_the_process_at_once(up: Running, until: Until) -> None:
    up.start(web_marketing=STAYS)
    until(lambda: up.pid("web@marketing") > 0, "it runs")
    before = up.pid("web@marketing")
    answer = up.client.call("restart", names=["web@marketing"])["processes"]
    assert isinstance(answer, list)
    assert answer[0]["pid"] not in (0, before)
    assert answer[0]["restarts"] == 0  # asked for: no back-off, no failure


def test_starting_by_hand_does_not_wait_for_the_back_off(up: Running, until: Until) -> None:
    up.start(web_marketing=FALLS)
    until(lambda: up.log("web@marketing").count("exit code 3") == 4, "it waits eight seconds now")
    up.client.call("start", names=["web@marketing"])
    until(lambda: up.log("web@marketing").count("exit code 3") == 5, "it was tried at once", seconds=3)


def test_sigterm_ends_all_of_them_and_the_supervisor(up: Running, until: Until, alive: Alive) -> None:
    process = up.start(web_marketing=STAYS, mta_mid=STAYS)
    until(lambda: up.pid("mta@mid") > 0, "it runs")
    pids = [up.pid("web@marketing"), up.pid("mta@mid")]
    process.terminate()
    assert process.wait(15) == 0
    assert not any(alive(pid) for pid in pids)
    with pytest.raises(Unhealthy, match=r"midsource does not run in .*: start it with 'midsource up'"):
        up.client.call("ps")
    assert not up.client.is_running()
    assert "next start" not in up.log("web@marketing")


def test_down_is_the_same_by_the_socket(up: Running, until: Until) -> None:
    process = up.start(web_marketing=STAYS)
    until(lambda: up.pid("web@marketing") > 0, "it runs")
    assert up.client.call("down")["pid"] == process.pid
    assert process.wait(15) == 0


def test_a_second_signal_does_not_wait_for_one_that_will_not_end(up: Running, until: Until, alive: Alive) -> None:
    process = up.start(deaf_mid=DEAF)
    until(lambda: "here" in up.log("deaf@mid"), "it runs")
    pid = up.pid("deaf@mid")
    process.terminate()
    until(lambda: "heard" in up.log("deaf@mid"), "it was asked")
    assert process.poll() is None
    process.terminate()
    assert process.wait(5) == 0
    assert not alive(pid)


@pytest.mark.slow
def test_one_that_will_not_end_is_killed_after_twenty_seconds(up: Running, until: Until, alive: Alive) -> None:
    up.start(deaf_mid=DEAF)
    until(lambda: "here" in up.log("deaf@mid"), "it runs")
    pid = up.pid("deaf@mid")
    up.client.call("stop", names=["deaf@mid"])
    assert not alive(pid)
    assert "is killed" in up.log("deaf@mid")


def test_kill_9_of_the_supervisor_ends_its_processes(up: Running, until: Until, alive: Alive) -> None:
    process = up.start(web_marketing=STAYS, mta_mid=STAYS)
    until(lambda: up.pid("mta@mid") > 0, "it runs")
    pids = [up.pid("web@marketing"), up.pid("mta@mid")]
    process.kill()
    process.wait(10)
    until(lambda: not any(alive(pid) for pid in pids), "they follow")
    up.start(web_marketing=STAYS)
    until(lambda: up.pid("web@marketing") > 0, "a new supervisor works, stale socket or not")


def test_what_a_dead_process_left_in_its_group_goes_too(up: Running, until: Until, alive: Alive) -> None:
    up.start(a_x=LEAVES_A_CHILD)
    until(lambda: any(line.isdigit() for line in up.log("a@x").splitlines()), "it named its child")
    left = next(int(line) for line in up.log("a@x").splitlines() if line.isdigit())
    os.kill(up.pid("a@x"), signal.SIGKILL)
    until(lambda: not alive(left), "its child goes with it")


def test_one_supervisor_per_home(up: Running, until: Until, home: Path) -> None:
    up.start(web_marketing=STAYS)
    until(lambda: up.pid("web@marketing") > 0, "it runs")
    with pytest.raises(Conflict, match=r"midsource already runs in .*'midsource down'"):
        Supervisor(home, [ProcessSpec("a@x", ("sleep", "1"), home / "log" / "a.log")]).run()


def test_unknown_names_verbs_and_nonsense_are_refused(up: Running, until: Until, home: Path) -> None:
    up.start(web_marketing=STAYS)
    until(lambda: up.pid("web@marketing") > 0, "it runs")
    with pytest.raises(NotFound, match=r"there is no process web@mid: there are web@marketing"):
        up.client.call("stop", names=["web@mid"])
    with pytest.raises(UserError, match="knows no verb 'explode'"):
        up.client.call("explode")
    for nonsense in (b"\n", b"[]\n", b"\xff\xfe\n", b'{"verb": "ps", "names": 7}\n'):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(10)
            raw.connect(address_file(home).read_text(encoding="utf-8").strip())
            raw.sendall(nonsense)
            assert json.loads(raw.makefile("rb").readline())["ok"] is False
    assert up.row("web@marketing")["restarts"] == 0


def test_the_socket_is_its_owners_alone(up: Running, until: Until, home: Path) -> None:
    up.start(web_marketing=STAYS)
    until(lambda: up.pid("web@marketing") > 0, "it runs")
    assert stat.S_IMODE((home / "run" / "supervisor.sock").stat().st_mode) == 0o600


def test_a_long_home_path_has_a_short_socket(home: Path, until: Until) -> None:
    long = home / ("a" * 80) / ("b" * 80)
    long.mkdir(parents=True)
    running = Running(long)
    process = running.start(web_marketing=STAYS)
    until(lambda: running.pid("web@marketing") > 0, "it runs")
    address = Path(address_file(long).read_text(encoding="utf-8").strip())
    assert len(str(address)) < 104
    assert stat.S_IMODE(address.parent.stat().st_mode) == 0o700
    process.terminate()
    process.wait(30)
    assert not address.exists()
    address.parent.rmdir()


def test_neither_a_failing_watch_nor_a_lost_terminal_ends_the_processes(home: Path, up: Running, until: Until) -> None:
    program = SUPERVISOR.replace(
        "report=lambda line: print(line, flush=True)",
        "watch=watch, report=lambda line: os.write(99, line.encode())",  # 99 is not open
    )
    program = WATCH + program
    specs = json.dumps([("web@x", STAYS, {})])
    with subprocess.Popen([sys.executable, "-c", program, str(home), specs]) as process:
        until(lambda: up.pid("web@x") > 0, "it runs")
        first = up.pid("web@x")
        os.kill(first, signal.SIGKILL)  # more to report, to nobody
        until(lambda: up.pid("web@x") not in (0, first), "it runs again")
        assert process.poll() is None
        process.terminate()
        assert process.wait(15) == 0


def test_without_a_supervisor_the_answer_is_a_sentence(home: Path) -> None:
    assert not ControlClient(home).is_running()
    with pytest.raises(Unhealthy, match="midsource does not run in"):
        ControlClient(home).call("ps")
