"""`cleanup` from the command line, and the options of a mid beside those of marketing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import psycopg
import pytest

from midsource.workflows.cleanup import steps_of

Run = Callable[..., subprocess.CompletedProcess[str]]
External = Callable[..., tuple[str, str]]


def sentence(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Return what a refused command said."""
    assert done.returncode == code, done.stderr
    return done.stderr.strip()


@pytest.mark.parametrize("role", ["marketing", "mid"])
def test_a_dry_run_shows_every_step_and_changes_nothing(midsource: Run, external: External, role: str) -> None:
    urls = dict(zip(("marketing", "mid"), external(), strict=True))
    assert midsource("init").returncode == 0
    with psycopg.connect(urls[role]) as conn:
        conn.execute("insert into audit (at, who, via, verb) values (now() - interval '181 days', 'a', 'cli', 'b')")
    shown = midsource("cleanup", "--dry-run", "--role", role, "--json")
    steps = {step["name"]: step for step in json.loads(shown.stdout.splitlines()[-1])["steps"]}
    assert list(steps) == [step.name for step in steps_of(role)]
    assert (steps["audit"]["rows"], steps["audit"]["option"]) == (1, "XtkCleanup_AuditTrailPurgeDelay")
    assert steps["audit"]["kept_seconds"] == 180 * 86_400
    assert midsource("option", "set", "XtkCleanup_AuditTrailPurgeDelay", "365d", "--role", role).returncode == 0
    one = midsource("cleanup", "--dry-run", "--step", "audit", "--role", role, "--json")
    (step,) = json.loads(one.stdout.splitlines()[-1])["steps"]
    assert (step["rows"], step["last"]) == (0, None)
    assert step["next_at"] > "2026"
    with psycopg.connect(urls[role]) as conn:
        assert conn.execute("select count(*) from audit where verb = 'b'").fetchone() == (1,)
        assert conn.execute("select count(*) from cleanup_step").fetchone() == (0,)
    assert "there is no step 'nothing' of cleanup" in sentence(
        midsource("cleanup", "--dry-run", "--step", "nothing"), 2
    )
    assert f"no worker of {role if role == 'marketing' else 'mid1'} is alive" in sentence(
        midsource("cleanup", "--role", role), 3
    )


def test_a_bare_number_is_asked_about(midsource: Run, external: External) -> None:
    external()
    assert midsource("init").returncode == 0
    refused = midsource("option", "set", "NmsCleanup_BroadLogPurgeDelay", "180", "--role", "mid")
    assert "(180 seconds or 180 days?): write 180s or 180d" in sentence(refused, 2)
    listed = midsource("option", "list", "--role", "mid", "--json")
    values = {option["name"]: option["value"] for option in json.loads(listed.stdout)["options"]}
    assert values["NmsCleanup_BroadLogPurgeDelay"] == "60d"
