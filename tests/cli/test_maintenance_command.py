"""`midsource maintenance` on a real home, on either role."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from midsource.cli.main import global_first, run

External = Callable[..., tuple[str, str]]
Told = Callable[..., str]


@pytest.fixture
def told(external: External, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Told:
    """``told("maintenance", "status", code=3)`` returns what a command said; the home has two databases."""

    def tell(*words: str, code: int = 0) -> str:
        given = run(global_first(["--home", str(tmp_path), *words]))
        said = "".join(capfd.readouterr())
        assert (given, "Traceback" in said) == (code, False), (words, said)
        return said

    tell.urls = external()  # type: ignore[attr-defined]
    tell("init")
    return tell


def last_json(said: str) -> Any:
    return json.loads(said.splitlines()[-1])


@pytest.mark.parametrize("role", ["marketing", "mid"])
def test_status_says_what_is_due_as_sentences_and_as_json(told: Told, role: str) -> None:
    assert "maintenance executes, 02:00-05:00 UTC" in told("maintenance", "status", "--role", role)
    found = last_json(told("maintenance", "status", "--role", role, "--json"))
    assert {
        "at",
        "urgent",
        "mode",
        "window",
        "remarks",
        "plan",
        "tables",
        "indexes",
        "server",
        "forecasts",
        "actions",
        "unseen",
    } <= set(found)
    assert "instance" in {table["name"] for table in found["tables"]}
    assert all(step["sql"].endswith(";") for step in found["plan"])


def test_status_exits_3_when_something_does_not_wait(told: Told) -> None:
    with psycopg.connect(told.urls[0], autocommit=True) as conn:  # type: ignore[attr-defined]
        conn.execute("create table ids (a int generated always as identity (start with 2000000000))")
        conn.execute("insert into ids default values")
    said = told("maintenance", "status", code=3)
    assert "now" in said
    assert "93 % of its numbers are used: 2 000 000 000 of 2 147 483 647" in said


def test_print_sql_prints_what_would_be_executed_and_does_nothing(told: Told) -> None:
    said = told("maintenance", "reindex", "job", "--print-sql")
    assert 'REINDEX INDEX CONCURRENTLY "public"."job_pkey";' in said
    found = last_json(told("maintenance", "vacuum", "job", "--print-sql", "--json"))
    assert [step["sql"] for step in found["statements"]] == ['VACUUM (ANALYZE, TRUNCATE OFF) "public"."job";']
    assert last_json(told("maintenance", "actions", "--json"))["actions"] == []


def test_a_wrong_name_is_one_sentence_that_lists_what_there_is(told: Told) -> None:
    said = told("maintenance", "vacuum", "nosuch", code=2)
    assert "there is no table 'nosuch': there are: alembic_version, " in said
    assert "broad_log, broad_log_total" in said


def test_advice_is_kept_for_the_dba(told: Told) -> None:
    assert "nothing is executed; 1 statements are kept as advice" in told("maintenance", "vacuum", "job", "--advise")
    told("option", "set", "Maintenance_Mode", "advise", "--role", "mid")
    said = told("maintenance", "reindex", "job", "--role", "mid")
    assert "nothing is executed" in said
    assert 'REINDEX INDEX CONCURRENTLY "public"."job_pkey";' in said
    assert "maintenance advises only" in told("maintenance", "status", "--role", "mid")
    for role, act in (("marketing", "vacuum analyze"), ("mid", "reindex")):
        kept = last_json(told("maintenance", "actions", "--json", "--role", role))["actions"]
        assert {action["outcome"] for action in kept} == {"advised"}
        assert {action["act"] for action in kept} == {act}


def test_without_a_worker_nothing_is_asked_for(told: Told) -> None:
    assert "no worker of marketing is alive" in told("maintenance", "vacuum", "job", code=3)
    assert last_json(told("maintenance", "actions", "--json"))["actions"] == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("Maintenance_Mode", "perhaps", "is execute or advise, not 'perhaps'"),
        ("Maintenance_Window", "2-5", "is no window of low activity: write it as 02:00-05:00"),
        ("Maintenance_Zone", "Mars/Olympus", "is not a time zone: use an IANA name"),
        ("XtkCleanup_NoStats", "3", "is 0, 1 or 2, not '3'"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_with_its_form(told: Told, name: str, value: str, words: str) -> None:
    assert words in told("option", "set", name, value, code=2)


def test_a_setting_broken_by_hand_stops_nothing_and_is_said(told: Told) -> None:
    with psycopg.connect(told.urls[0], autocommit=True) as conn:  # type: ignore[attr-defined]
        conn.execute("insert into option (name, value, modified_by) values ('Maintenance_Window', 'at night', 'psql')")
    said = told("maintenance", "status")
    assert "'at night' is no window of low activity, so 02:00-05:00 UTC holds" in said
