"""`doctor` and `supervisor` as an operator runs them: with everything up, with nothing up, and with the database away."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
External = Callable[..., tuple[str, str]]


def last_json(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_busy_pair_is_healthy_and_one_that_is_down_is_not(midsource: Run, external: External) -> None:
    """A real pair that has just sent a delivery, and while it sends another: no finding above info."""
    marketing, _ = external()
    assert midsource("init").returncode == 0
    down = midsource("doctor", "--json")
    assert down.returncode == 3
    critical = {(one["check"], one["subject"]) for one in last_json(down)["findings"] if one["severity"] == "critical"}
    assert critical == {
        ("process.missing", f"{kind}@{name}")
        for name, kinds in (("marketing", ("web", "worker")), ("mid1", ("web", "worker", "mta")))
        for kind in kinds
    }

    assert midsource("up", "--detach").returncode == 0
    assert midsource("demo", "--once", "--recipients", "2000").returncode == 0
    busy: list[Any] = []
    sending = threading.Thread(target=midsource, args=("demo", "--once", "--recipients", "6000"))
    sending.start()
    while sending.is_alive():
        busy.append(last_json(midsource("doctor", "--json")))
        sending.join(0.5)
    assert len(busy) >= 2
    # The server of the tests runs without fsync, which nobody is told.
    of_the_machine = {"machine.disk", "database.durability", "supervisor.nobody"}
    bad = [
        one
        for found in busy
        for one in found["findings"]
        if one["severity"] != "info" and one["check"] not in of_the_machine
    ]
    assert bad == []
    assert all(found["checked"] > 70 for found in busy)
    with psycopg.connect(marketing) as conn:
        shown = conn.execute(
            "select count(*) from finding where closed_at is null and severity = 'critical'"
        ).fetchone()
    assert shown == (0,), "what was open while nothing ran has closed by itself"


def test_a_database_that_does_not_answer_is_the_finding(midsource: Run, external: External) -> None:
    marketing, _ = external()
    assert midsource("init").returncode == 0
    external(marketing=marketing, mid="postgresql://nobody@127.0.0.1:9/none")
    done = midsource("doctor", "--json")
    assert done.returncode == 3
    found = {(one["instance"], one["check"]): one for one in last_json(done)["findings"]}
    assert found["mid1", "database.unreachable"]["severity"] == "critical"
    assert "cannot be reached" in found["mid1", "database.unreachable"]["evidence"]
    assert ("marketing", "process.missing") in found, "the other instance is looked at all the same"
    assert set(found["mid1", "database.unreachable"]) >= {
        "check",
        "severity",
        "role",
        "evidence",
        "cause",
        "remedy",
        "healable",
        "healed",
    }
    assert midsource("doctor", "--only", "database.unreachable").returncode == 2


def test_an_unknown_check_is_answered_with_those_there_are(midsource: Run, external: External) -> None:
    external()
    assert midsource("init").returncode == 0
    done = midsource("doctor", "--only", "nonsense")
    assert done.returncode == 2
    assert "there are process.missing, " in done.stderr
    assert last_json(midsource("doctor", "--only", "pointer", "--json")) == {"findings": [], "checked": 4}


def test_healing_is_said_before_it_is_done_and_given_back(midsource: Run, external: External) -> None:
    marketing, _ = external()
    assert midsource("init").returncode == 0
    option = "NmsMidSourcing_LastBroadLog_defaultEmailMid"
    with psycopg.connect(marketing, autocommit=True) as conn:
        conn.execute("update option set value = 'yesterday' where name = %s", (option,))
        conn.execute("delete from pointer where stream = 'deliveries'")
    told = midsource("doctor", "--only", "pointer", "--heal", "--dry-run")
    assert told.returncode == 3
    assert f"would let {option} show its pointer again" in told.stdout
    assert len(last_json(midsource("doctor", "--only", "pointer", "--json"))["findings"]) == 2
    healed = last_json(midsource("doctor", "--only", "pointer", "--heal", "--json"))["findings"]
    assert {one["check"]: one["healed"] for one in healed} == {"pointer.option": True, "pointer.missing": True}
    number = next(one["id"] for one in healed if one["check"] == "pointer.option")
    assert midsource("doctor", "--only", "pointer").returncode == 0
    assert "'yesterday' again" in midsource("doctor", "--undo", number).stdout
    back = midsource("doctor", "--only", "pointer", "--json")
    assert back.returncode == 3
    refused = midsource("doctor", "--undo", next(one["id"] for one in healed if one["check"] == "pointer.missing"))
    assert (refused.returncode, "cannot be undone" in refused.stderr) == (1, True)
    (again,) = last_json(back)["findings"]
    assert again["id"] != number, "the healed one has closed; this is another"
    assert midsource("doctor", "--mute", again["id"], "--for", "1h").returncode == 0
    assert midsource("doctor", "--only", "pointer").returncode == 0, "muted"
    assert midsource("doctor", "--undo", "12").returncode == 2
    assert midsource("doctor", "--dry-run").returncode == 2


class Hook(HTTPServer):
    """Takes a webhook and keeps it."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


def test_a_supervisor_from_adding_to_removing(midsource: Run, external: External, tmp_path: Path) -> None:
    external(more="\n[egress]\nprivate_networks = true\n")
    assert midsource("init").returncode == 0
    with Hook() as hook:
        thread = threading.Thread(target=hook.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{hook.server_address[1]}/T0KEN"
        added = midsource(
            "supervisor", "add", "ops", "--webhook", url, "--quiet", "22:00-07:00", "--zone", "Europe/Paris"
        )
        assert added.returncode == 0, added.stderr
        assert "T0KEN" not in added.stdout
        tried = midsource("supervisor", "test", "ops")
        assert (tried.returncode, "HTTP 200" in tried.stdout) == (0, True), tried.stderr
        assert hook.bodies[0]["kind"] == "test"
        hook.shutdown()
        thread.join()
    (shown,) = last_json(midsource("supervisor", "list", "--json"))["supervisors"]
    assert (shown["name"], shown["quiet"], shown["failures"]) == ("ops", "22:00-07:00 Europe/Paris", 0)
    failed = midsource("supervisor", "test", "ops")
    assert failed.returncode == 1
    assert "could not be reached" in failed.stderr
    assert midsource("supervisor", "mute", "ops", "--for", "2h").returncode == 0
    assert midsource("supervisor", "add", "two", "--webhook", url, "--syslog", "udp://a.example").returncode == 2
    assert last_json(midsource("supervisor", "list", "--role", "mid", "--json")) == {"supervisors": []}
    assert midsource("supervisor", "remove", "ops").returncode == 0
    assert midsource("supervisor", "test", "ops").returncode == 2
    verbs = midsource("audit", "--json").stdout
    assert [
        verb
        for verb in ("supervisor.add", "supervisor.test", "supervisor.mute", "supervisor.remove")
        if verb not in verbs
    ] == []
