"""A home on a PostgreSQL that is not ours, by two URLs: its whole life, and what is said when the URLs do not fit."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from midsource.store import budget

Run = Callable[..., subprocess.CompletedProcess[str]]
External = Callable[..., tuple[str, str]]

CALLERS_OWN = {"PGOPTIONS": "-c statement_timeout=1", "PGHOST": "192.0.2.1", "PGTARGETSESSIONATTRS": "standby"}
"""What a caller may have set for other purposes: with any of it in force, nothing here would work."""


def last_json(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout.splitlines()[-1])


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """One sentence on standard error with these words, the exit code, and no traceback."""
    assert done.returncode == code, done.stderr
    said = done.stderr.strip().splitlines()
    assert len(said) == 1, done.stderr
    for word in words:
        assert word in said[0]


def test_a_home_on_an_external_postgresql_lives(midsource: Run, external: External) -> None:
    urls = external()
    refused(midsource("up"), 3, "schema none", "midsource init")
    for words in (["init"], ["init"], ["migrate"]):
        done = midsource(*words, env=CALLERS_OWN)
        assert done.returncode == 0, done.stderr
    began = midsource("up", "--detach", env=CALLERS_OWN)
    assert began.returncode == 0, began.stderr
    assert last_json(midsource("status", "--json"))["ok"] is True
    for pid in [row["pid"] for row in last_json(midsource("ps", "--json"))["processes"]]:
        assert b"PGOPTIONS" not in Path(f"/proc/{pid}/environ").read_bytes()
    told = last_json(midsource("ps", "--who", "--json"))
    held: Counter[str] = Counter()
    for row in told["connections"]:
        held[row["who"]] += row["connections"]
    for row in told["processes"]:
        assert row["connections"] == budget.of(row["name"])
        assert held[row["name"]] <= row["connections"]
    down = midsource("down")
    assert (down.returncode, down.stdout.strip()) == (0, "stopped")
    assert midsource("status").returncode == 3
    for url in urls:
        left = clients_left(url)
        assert left == [], f"down leaves no connection behind: {left}"


def clients_left(url: str) -> list[tuple[Any, ...]]:
    """Who else is connected as a client. A session outlives its client's socket by the moment in which the server
    notices, and autovacuum comes and goes by itself: neither is a connection that ``down`` left."""
    others = (
        "select pid, application_name, state, left(query, 80) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
    )
    until = time.monotonic() + 5
    with psycopg.connect(url, autocommit=True) as conn:
        while (left := conn.execute(others).fetchall()) and time.monotonic() < until:
            time.sleep(0.05)
    return left


def other_database(url: str, name: str) -> str:
    return url.replace(url.partition("?")[0].rpartition("/")[2], name, 1)


@pytest.mark.parametrize("words", [["init"], ["up"], ["up", "--detach"]])
def test_a_missing_database_is_named_at_once(
    midsource: Run, external: External, database: Callable[[], str], words: list[str]
) -> None:
    external(marketing=other_database(database(), "nowhere"))
    began = time.monotonic()
    done = midsource(*words)
    assert time.monotonic() - began < 20
    if "--detach" in words:  # the supervisor's own last sentence, in ours
        assert done.returncode in (1, 3)
        assert '"nowhere" does not exist' in done.stderr
    else:
        refused(done, 3, "the database of marketing", '"nowhere" does not exist', "instances.marketing.database_url")


@pytest.mark.parametrize("words", [["migrate"], ["up"]])
def test_a_server_that_is_not_there_is_named_at_once(midsource: Run, external: External, words: list[str]) -> None:
    external(marketing="postgresql://bob:se-cret@127.0.0.1:1/one")
    began = time.monotonic()
    done = midsource(*words)
    assert time.monotonic() - began < 20
    refused(done, 3, "the database of marketing cannot be reached", "Connection refused")
    assert "se-cret" not in done.stderr


def test_a_wrong_password_is_named_and_not_shown(
    midsource: Run, external: External, database: Callable[[], str]
) -> None:
    url = database()
    secret = url.partition("midsource:")[2].partition("@")[0]
    external(marketing=url.replace(secret, "wrong-secret"))
    done = midsource("init")
    refused(done, 3, "password authentication failed", "instances.marketing.database_url")
    assert "wrong-secret" not in done.stderr


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("postgresql://bob:se%cret@db/one", "another URL"),
        ("mysql://bob:secret@db/one", "another URL"),
        ("postgresql://db", "another URL"),
    ],
)
def test_a_url_that_is_none_is_a_problem_of_the_configuration(
    midsource: Run, external: External, url: str, word: str
) -> None:
    external(marketing=url)
    done = midsource("config", "check")
    refused(done, 2, "instances.marketing.database_url", word)
    assert "cret" not in done.stderr


def test_two_instances_never_share_a_database(midsource: Run, external: External, database: Callable[[], str]) -> None:
    url = database()
    external(marketing=url, mid=url)
    refused(midsource("init"), 2, "each instance has a database of its own")
    first, second = external()
    assert midsource("init").returncode == 0
    external(marketing=second, mid=first)
    refused(midsource("workflow", "list"), 2, "belongs to the mid instance 'mid1'")
    refused(midsource("migrate"), 2, "belongs to the mid instance 'mid1'")
    external(marketing=first, mid=second)
    assert midsource("workflow", "list").returncode == 0


def test_a_newer_schema_is_refused_by_every_command_and_process(
    midsource: Run, process: Run, external: External
) -> None:
    marketing, _ = external()
    assert midsource("init").returncode == 0
    with psycopg.connect(marketing, autocommit=True) as conn:
        conn.execute("update alembic_version set version_num = '9999'")
    for words in (
        ["up"],
        ["init"],
        ["migrate"],
        ["workflow", "list"],
    ):
        refused_anywhere(midsource(*words))
    for name in ("web@marketing", "worker@marketing"):
        refused_anywhere(process(name))
    with psycopg.connect(marketing) as conn:
        assert conn.execute("select version_num from alembic_version").fetchone() == ("9999",)


def refused_anywhere(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 3, done.stderr
    assert "schema 9999, which is newer than this version" in done.stderr
    assert "Traceback" not in done.stderr


def test_more_processes_than_connections_are_refused_with_the_numbers(midsource: Run, external: External) -> None:
    external(more="")
    assert midsource("init").returncode == 0
    done = midsource("up", env={"MIDSOURCE_MARKETING_WORKERS": "30"})
    wanted = 15 + 30 * 19 + (15 + 19 + 4) + 12
    refused(done, 2, "worker@marketing.30 19", f"may want {wanted} together", "max_connections 100", "run fewer")


def test_more_of_one_process_needs_its_name(midsource: Run, external: External) -> None:
    external()
    refused(midsource("up", "--processes", "4"), 2, "--processes", "--only mta@mid1")
