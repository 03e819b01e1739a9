"""`workflow schedule`, `kill`, `restart`, `list`, `show` as an operator types them, on a real home with an external PostgreSQL."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
External = Callable[..., tuple[str, str]]
NAME = "defaultMidSourcingLog"
_WORKFLOWS = (
    "insert into workflow (name, schedule, state, failed, next_at, held_at, held_by, last_error, error_class, not_before, "
    "consecutive_failures) values "
    "('defaultMidSourcingLog', '7 * * * *', 11, true, now() + interval '1 h', null, '', 'mid1: does not answer', "
    " 'RemoteUnavailable', now() + interval '20 min', 4), "
    "('cleanup', 'daily at 04:00', 13, false, now() + interval '1 h', now(), 'bob', '', '', null, 0)"
)
_WORKER = "insert into process (name, kind, host, pid, executor, beat_at) values ('worker@x', 'worker', 'h', 1, 'e', now() + interval '1 h')"


@pytest.fixture
def home(midsource: Run, external: External) -> tuple[str, str]:
    """A home whose instances have workflows, and a worker that says it lives."""
    urls = external()
    assert midsource("init").returncode == 0
    for url in urls:
        with psycopg.connect(url) as conn:
            conn.execute(_WORKFLOWS)
            conn.execute(_WORKER)
    return urls


def said(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def audit(url: str) -> list[tuple[str, str]]:
    with psycopg.connect(url) as conn:
        return conn.execute("select verb, subject from audit where verb like 'workflow%' order by id").fetchall()


def test_a_schedule_shows_its_next_five_ticks_and_is_saved_only_when_somebody_says_yes(
    midsource: Run, home: tuple[str, str]
) -> None:
    words = (
        "workflow",
        "schedule",
        NAME,
        "daily at 23:00, 04:00",
        "--zone",
        "Europe/Paris",
        "--between",
        "22:00-06:00",
    )
    looked = midsource(*words, "--dry-run")
    assert looked.stdout.count("Z\n") == 5
    assert looked.stdout.endswith("nothing was changed\n")
    refused = midsource(*words)
    assert refused.returncode == 2
    assert "repeat the command with --yes" in refused.stderr
    assert audit(home[0]) == []
    saved = said(midsource(*words, "--runs", "3", "--yes", "--json"))
    assert (saved["schedule"], saved["between"], saved["runs_left"], saved["saved"]) == (
        "daily at 04:00, 23:00", "22:00-06:00", 3, True,
    )  # fmt: skip
    assert len(saved["next_ticks"]) == 3
    shown = midsource("workflow", "schedule", NAME)
    assert "daily at 04:00, 23:00 (Europe/Paris), between 22:00-06:00, 3 runs left, set by cli:" in shown.stdout
    changed = said(midsource("workflow", "schedule", NAME, "--runs", "none", "--between", "none", "--yes", "--json"))
    assert (changed["schedule"], changed["between"], changed["runs_left"]) == ("daily at 04:00, 23:00", "", None)
    back = said(midsource("workflow", "schedule", NAME, "--default", "--yes", "--json"))
    assert (back["schedule"], back["zone"]) == ("7 * * * *", "UTC")
    assert audit(home[0]) == [("workflow.schedule", NAME)] * 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["now and then"], "is not a schedule"),
        (["every 7 minutes"], "does not come out even"),
        (["--zone", "Mars/Base"], "is not a time zone"),
        (["--runs", "0"], "is not a number of runs"),
        (["--to", "2020-01-01"], "no run would come: its validity ended"),
        (["daily at 12:00", "--between", "22:00-06:00"], "lies between"),
        (["--from", "tomorrow"], "is not a time"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_changed(
    midsource: Run, home: tuple[str, str], words: list[str], sentence: str
) -> None:
    done = midsource("workflow", "schedule", NAME, *words, "--yes")
    assert (done.returncode, sentence in done.stderr) == (2, True), done.stderr
    assert audit(home[0]) == []


def test_list_and_show_say_what_is_waited_for_and_who_holds_it(midsource: Run, home: tuple[str, str]) -> None:
    rows = {row["name"]: row for row in said(midsource("workflow", "list", "--json"))["workflows"]}
    assert (rows[NAME]["label"], rows[NAME]["failed"], rows[NAME]["state"]) == (
        "Mid-sourcing (delivery logs)", True, "started",
    )  # fmt: skip
    assert len(rows[NAME]["next_ticks"]) == 5
    assert (rows["cleanup"]["held_by"], rows["cleanup"]["next_run"], rows["cleanup"]["next_ticks"]) == ("bob", None, [])
    shown = said(midsource("workflow", "show", NAME, "--json"))
    assert shown["waits"].startswith("failed 4 times in a row; waits for the other side to answer until ")
    assert "midsource workflow restart defaultMidSourcingLog" in midsource("workflow", "show", NAME).stdout


def test_a_restart_of_everything_on_every_instance_says_what_it_did_and_what_it_left(
    midsource: Run, home: tuple[str, str]
) -> None:
    words = ("workflow", "restart", "--failed", "--scheduled", "--all-instances", "--json")
    looked = said(midsource(*words, "--dry-run"))
    assert [(one["instance"], one["name"], one["run"]) for one in looked["restarted"]] == [
        ("marketing", NAME, None), ("mid1", NAME, None),
    ]  # fmt: skip
    assert audit(home[0]) == []
    done = said(midsource(*words))
    assert all(one["run"] for one in done["restarted"])
    assert [(one["instance"], one["name"], one["why"].split(" since")[0]) for one in done["left"]] == [
        ("marketing", "cleanup", "paused by bob"), ("mid1", "cleanup", "paused by bob"),
    ]  # fmt: skip
    assert [audit(url) for url in home] == [[("workflow.restart", NAME)]] * 2
    with psycopg.connect(home[1]) as conn:
        assert conn.execute("select failed, not_before from workflow where name = %s", (NAME,)).fetchone() == (
            False,
            None,
        )


def test_one_instance_that_cannot_be_restarted_holds_up_no_other(midsource: Run, home: tuple[str, str]) -> None:
    with psycopg.connect(home[0]) as conn:
        conn.execute("delete from process")
    done = midsource("workflow", "restart", "--failed", "--all-instances")
    assert done.returncode == 1
    assert "restarted defaultMidSourcingLog on mid1" in done.stdout
    assert "marketing: no worker of marketing is alive" in done.stderr


def test_a_kill_stops_in_any_state_and_is_in_the_audit(midsource: Run, home: tuple[str, str]) -> None:
    with psycopg.connect(home[0]) as conn:
        conn.execute("insert into workflow_run (workflow) values (%s)", (NAME,))
    killed = said(midsource("workflow", "kill", NAME, "--json"))
    assert (killed["state"], killed["sessions"], killed["run"] is None) == ("finished", 0, False)
    assert "no run was under way" in midsource("workflow", "kill", "cleanup").stdout
    paused = midsource("workflow", "pause", NAME)
    assert "is finished: pause does not apply" in paused.stderr
    assert said(midsource("workflow", "start", NAME, "--json"))["state"] == "started"
    assert [verb for verb, _ in audit(home[0])] == ["workflow.kill", "workflow.kill", "workflow.start"]
