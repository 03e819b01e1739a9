"""The command line keeps its promises: three demos in one home, then everything an operator or a program asks."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from midsource.bench.lab.accounting import account_everybody
from midsource.cli.ground import Home

pytestmark = pytest.mark.slow
PEOPLE = 1_500
SUMMARY = {
    "recipients", "rejected", "targeted", "excluded", "handed_over", "sent", "failed", "deferred", "uncertain", "cancelled",
    "pending", "sandbox_received", "opens", "clicks", "marketing_logs_synced", "seconds",
}  # fmt: skip
PROCESSES = ["sandbox@mid1", "web@marketing", "worker@marketing", "web@mid1", "worker@mid1", "mta@mid1"]


@pytest.fixture(scope="module")
def demos(bare_home: Home) -> list[dict[str, Any]]:
    """What three demos in one home printed. The first makes the home; the last is told that everything runs already."""
    bare_home.path.mkdir(mode=0o711)
    bare_home.path.chmod(0o711)
    words = ("demo", "--once", "--recipients", str(PEOPLE), "--port", str(bare_home.port))
    found = [bare_home.json(*words), bare_home.json(*words)]
    bare_home.up()
    return [*found, bare_home.json(*words)]


@pytest.mark.timeout(240)
def test_three_demos_in_one_home_account_for_everybody(bare_home: Home, demos: list[dict[str, Any]]) -> None:
    assert len({demo["delivery"] for demo in demos}) == 3
    for demo in demos:
        assert set(demo) >= SUMMARY
        assert demo["recipients"] == demo["targeted"] == PEOPLE
        assert demo["rejected"] > 0
        assert demo["targeted"] == demo["excluded"] + demo["handed_over"]
        ended = [demo[key] for key in ("sent", "failed", "deferred", "uncertain", "cancelled", "pending")]
        assert sum(ended) == demo["handed_over"] == demo["marketing_logs_synced"]
        assert demo["pending"] == demo["deferred"] == demo["cancelled"] == 0
        assert demo["opens"] is None
        found = account_everybody(bare_home, demo["delivery"])
        assert len(found.copies) == demo["sandbox_received"]
        assert max(found.copies.values()) == 1
    assert bare_home.json("recipients", "list")["total"] == PEOPLE, "the same people, stored once"


def test_status_and_ps_say_what_runs(bare_home: Home, demos: list[dict[str, Any]]) -> None:
    status = bare_home.json("status")
    assert status == {"ok": True, "running": sorted(PROCESSES), "missing": [], "problem": ""}
    rows = bare_home.json("ps")["processes"]
    assert [row["name"] for row in rows] == PROCESSES
    for row in rows:
        assert row["state"] == "running"
        assert row["restarts"] == 0, row
        assert row["pid"] > 1
        assert row["memory_bytes"] < 400_000_000
    who = bare_home.json("ps", "--who")["connections"]
    assert {entry["instance"] for entry in who} == {"marketing", "mid1"}
    assert bare_home.run("status").out.startswith("everything runs: ")


def test_workflows_are_listed_with_their_history(bare_home: Home, demos: list[dict[str, Any]]) -> None:
    rows = {row["name"]: row for row in bare_home.json("workflow", "list")["workflows"]}
    assert set(rows) >= {"defaultMidSourcingDlv", "defaultMidSourcingLog"}
    for row in rows.values():
        assert isinstance(row["label"], str)
        assert row["role"] == "marketing"
        assert row["state"] in ("started", "running")
        assert row["failed"] is False
        assert row["consecutive_failures"] == 0
        assert row["last_error"] == ""
        assert datetime.fromisoformat(row["next_run"]).tzinfo is not None
        for key in ("last_run", "last_success"):  # nightly ones have not run yet
            assert row[key] is None or datetime.fromisoformat(row[key]).tzinfo is not None
    assert all(rows[name]["last_success"] for name in ("defaultMidSourcingDlv", "defaultMidSourcingLog"))
    run = bare_home.json("workflow", "run-now", "defaultMidSourcingLog", "--wait")
    assert run["outcome"] == "finished"
    assert bare_home.json("workflow", "journal", "defaultMidSourcingLog")["journal"]
    assert bare_home.run("workflow", "restart", "--failed", "--scheduled").out.count("restarted") == len(rows)


def test_options_hold_pointers_that_an_operator_can_read(bare_home: Home, demos: list[dict[str, Any]]) -> None:
    options = bare_home.json("option", "list")["options"]
    assert all(set(row) >= {"name", "value", "default", "unit", "description"} for row in options)
    names = [row["name"] for row in options]
    for name in ("NmsMidSourcing_LastDelivery_defaultEmailMid", "NmsMidSourcing_LastBroadLog_defaultEmailMid"):
        assert name in names
        assert datetime.fromisoformat(bare_home.run("option", "get", name).out.strip()).year > 2020
    assert "NmsMidSourcing_PrepareFlow" in names
    assert bare_home.run("option", "get", "NmsMidSourcing_PrepareFlow").out == "3\n"


def test_a_delivery_is_listed_shown_logged_and_explained(bare_home: Home, demos: list[dict[str, Any]]) -> None:
    last = demos[-1]
    listed = bare_home.json("delivery", "list")["deliveries"]
    assert [row["id"] for row in listed] == [demo["delivery"] for demo in reversed(demos)]
    shown = bare_home.json("delivery", "show", "last")
    assert shown["id"] == last["delivery"]
    assert (shown["state"], shown["state_number"], shown["order_confirmed"]) == ("finished", 95, True)
    assert shown["counts"]["sent"] == last["sent"]
    assert sum(row["count"] for row in shown["exclusions"]) == last["excluded"]
    assert all(row["reason"] for row in shown["exclusions"])
    logs = [json.loads(line) for line in bare_home.run("delivery", "logs", "last", "--json").out.splitlines()]
    assert len(logs) == last["targeted"]
    keys = {"email", "status", "reason", "reply", "attempts", "uncertain", "message_id"}
    assert all(set(row) >= keys for row in logs)
    assert sum(row["status"] == "sent" for row in logs) == last["sent"]
    assert sum(row["uncertain"] for row in logs) == last["uncertain"]
    assert all(row["reason"] for row in logs if row["status"] in ("ignored", "failed"))
    sent = next(row for row in logs if row["status"] == "sent")
    story = bare_home.run("delivery", "explain", "last", sent["email"]).out
    assert sent["email"] in story
    assert "250" in story
    whole = bare_home.json("delivery", "explain", "last")
    assert whole["facts"]["messages"]["sent"] == last["sent"]


def test_people_are_listed_and_shown(bare_home: Home, demos: list[dict[str, Any]]) -> None:
    page = bare_home.json("recipients", "list", "--limit", "3")
    assert page["total"] == PEOPLE
    assert len(page["recipients"]) == 3
    email = next(person["email"] for person in page["recipients"] if person["email"])
    [person, *_] = bare_home.json("recipients", "show", email)["recipients"]
    assert person["email"] == email
    assert isinstance(person["loyalty_points"], int), "own fields keep their type"
