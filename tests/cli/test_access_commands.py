"""Operators, keys and the audit from the command line: one story on a real database, a process for each command."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from midsource.config import load
from midsource.model.errors import UserError
from midsource.net.clock import SystemClock
from midsource.security.log_in import LogIn
from midsource.security.passwords import Hashing
from midsource.store.database import Database

PASSWORD = "a sentence of mine"
ME = f"cli:{pwd.getpwuid(os.getuid()).pw_name}"


@pytest.fixture
def told(tmp_path: Path, external: Callable[..., tuple[str, str]]) -> Callable[..., str]:
    """``told("operator", "list", stdin="…")``: what the real command says; its exit code is 0, unless another is expected."""
    external()

    def run(*words: str, stdin: str = "", code: int = 0) -> str:
        command = [sys.executable, "-m", "midsource", "--home", str(tmp_path), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, input=stdin)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + (done.stderr if code else "")

    run("migrate")
    return run


def last_json(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text.splitlines()[-1])
    return found


def test_an_operator_is_made_changed_shut_out_and_all_of_it_is_in_the_audit(
    told: Callable[..., str], tmp_path: Path
) -> None:
    told("operator", "add", "alice", "--role", "admin", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert "12 are needed" in told(
        "operator", "add", "bob", "--role", "reader", "--password-stdin", stdin="x\n", code=2
    )
    assert "no terminal" in told("operator", "add", "bob", "--role", "reader", code=2)
    assert "already an operator" in told(
        "operator", "add", "alice", "--role", "reader", "--password-stdin", stdin=PASSWORD, code=2
    )
    assert logged_in(tmp_path, "alice", PASSWORD)
    told("operator", "roles", "alice", "reader", "supervisor")
    assert logged_in(tmp_path, "alice", PASSWORD)
    assert "1 sessions ended" in told("operator", "password", "alice", "--password-stdin", stdin="another one of mine")
    assert not logged_in(tmp_path, "alice", PASSWORD)
    told("operator", "disable", "alice")
    assert not logged_in(tmp_path, "alice", "another one of mine")
    told("operator", "enable", "alice")
    assert logged_in(tmp_path, "alice", "another one of mine")
    assert "no operator 'nobody': operators: alice" in told("operator", "disable", "nobody", code=2)
    (operator,) = last_json(told("operator", "list", "--json"))["operators"]
    assert (operator["name"], operator["roles"], operator["created_by"]) == ("alice", ["supervisor", "reader"], ME)
    entries = last_json(told("audit", "--json", "--subject", "alice", "--who", ME))["audit"]
    assert [entry["verb"].removeprefix("operator.") for entry in entries] == [
        "enable", "disable", "password", "roles", "add",
    ]  # fmt: skip
    assert entries[3]["detail"] == {"old": ["admin"], "new": ["supervisor", "reader"]}


def logged_in(home: Path, name: str, password: str) -> bool:
    url = load(home, {}).instance("marketing").database_url
    with Database("marketing", url, application="tests", max_connections=1) as database:
        try:
            LogIn(database, SystemClock(), Hashing()).log_in(name, password, "192.0.2.1")
        except UserError:
            return False
    return True


def test_a_key_is_shown_once_and_ends_when_it_is_revoked(told: Callable[..., str]) -> None:
    made = told("api-key", "add", "monitoring", "--scope", "metrics", "--scope", "see", "--days", "30").splitlines()[-1]
    key_id, _, secret = made.partition(".")
    listed = told("api-key", "list", "--json")
    assert secret not in listed
    (key,) = last_json(listed)["keys"]
    assert (key["key_id"], key["scopes"], key["created_by"]) == (key_id, ["see", "metrics"], ME)
    assert key["expires_at"] > key["created_at"]
    assert f"no key 'nokey': keys: {key_id}" in told("api-key", "revoke", "nokey", code=2)
    told("api-key", "revoke", made)
    assert last_json(told("api-key", "list", "--json"))["keys"] == []
    assert last_json(told("api-key", "list", "--all", "--json"))["keys"][0]["revoked_at"]
    assert secret not in told("audit")


def test_what_other_commands_change_is_in_the_audit_under_who_ran_them(
    told: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "people.csv").write_text("email\nsomebody@brand.example\n")
    told("recipients", "import", str(tmp_path / "people.csv"))
    told("option", "set", "NmsEmail_RetryCount", "7")
    told("segment", "create", "french", "language = 'fr'")
    key = told("account", "add", "brand", "--role", "mid").splitlines()[-1]
    told("account", "add", "--url", "http://127.0.0.1:1", "--key", key)
    told("recipients", "erase", "somebody@brand.example", "--yes")
    entries = last_json(told("audit", "--json"))["audit"]
    assert [(entry["verb"], entry["subject"]) for entry in entries] == [
        ("recipient.erase", ""),
        ("account.add", "defaultEmailMid"),
        ("segment.create", "french"),
        ("option.set", "NmsEmail_RetryCount"),
    ]
    assert {entry["who"] for entry in entries} == {ME}
    assert "somebody" not in json.dumps(entries)
    assert key.partition(".")[2] not in json.dumps(entries)
    assert entries[3]["detail"]["new"] == "7"
    (on_mid,) = last_json(told("audit", "--json", "--role", "mid"))["audit"]
    assert (on_mid["verb"], on_mid["subject"]) == ("account.add", "brand")
