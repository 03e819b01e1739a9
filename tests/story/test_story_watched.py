"""A home as its monitoring sees it: figures that are complete and true, and logs that may be sent on, also when much goes wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from midsource.cli.ground import Home
from midsource.config import load
from midsource.model.metrics import of_role
from midsource.security import access

pytestmark = pytest.mark.slow

PEOPLE = 600
FAILING = ("nobody", "unknown", "full", "block", "greylist", "drop", "gmail", "orange") * 5
DEAD_PORT = 9
"""Nobody listens there."""
WITHOUT_WORK = ("midsource_jobs_", "midsource_workflow_")
"""Figures that a mid has no sample of: it has neither jobs nor technical workflows yet."""
Values = dict[tuple[str, ...], float]


@pytest.fixture(scope="module")
def sent(home: Home) -> dict[str, Any]:
    """A home where a demo ran, beside everything that goes wrong in a day; returns the demo's summary."""
    summary = home.json("demo", "--recipients", str(PEOPLE), seconds=180)
    key = home.run("account", "add", "other", "--role", "mid").out.splitlines()[-1]
    home.run("account", "add", "gone", "--url", f"http://127.0.0.1:{DEAD_PORT}", "--key", key)
    home.run("account", "test", "gone", code=None)
    home.run("workflow", "run-now", "defaultMidSourcingLog", "--wait", code=None)
    home.people("few", [f"person{n}@{domain}.example" for n, domain in enumerate(FAILING)])
    broken = home.delivery("few", subject="Hello {{ recipient.first_nam }}")
    home.run("delivery", "prepare", str(broken), "--wait", code=1)
    home.run("delivery", "send", str(home.delivery("few")), "--wait")
    home.run("recipients", "show", "nobody@at.all.example", code=2)
    for role in ("marketing", "mid"):
        for path in ("/people/anna.secret@mail.example", "/?token=wrong-token-of-somebody", "/mid/v1/hello"):
            httpx2.get(address(home, role) + path, headers={"authorization": f"Bearer {key[:-1]}"}, trust_env=False)
    with operator(home) as client:
        assert client.get(f"{address(home, 'marketing')}/deliveries/999").status_code == 404
    home.kill("mta@mid1")
    home.kill("worker@marketing")
    home.wait_until(lambda: home.run("status", code=None).code == 0, "everything runs again")
    return {**summary, "key": key}


def address(home: Home, role: str) -> str:
    return f"http://127.0.0.1:{load(home.path).instance('marketing' if role == 'marketing' else 'mid1').port}"


def operator(home: Home) -> httpx2.Client:
    key = {"authorization": f"Bearer {access.token(home.path)}"}
    return httpx2.Client(headers=key, trust_env=False, timeout=15)


def scraped(home: Home, role: str) -> dict[str, Values]:
    with operator(home) as client:
        answer = client.get(f"{address(home, role)}/metrics")
    assert answer.status_code == 200, answer.text
    found: dict[str, Values] = {}
    for family in text_string_to_metric_families(answer.text):
        values = found.setdefault(f"{family.name}_total" if family.type == "counter" else family.name, {})
        for sample in family.samples:
            if not sample.name.endswith(("_bucket", "_sum")):
                values[tuple(text for _, text in sorted(sample.labels.items()))] = sample.value
    return found


@pytest.mark.timeout(400)
@pytest.mark.parametrize("role", ["marketing", "mid"])
def test_every_declared_figure_is_there_with_values_and_no_other(home: Home, sent: dict[str, Any], role: str) -> None:
    assert sent["sent"]
    found = scraped(home, role)
    assert set(found) == {metric.name for metric in of_role(role)}
    empty = {name for name, values in found.items() if not values} - {"midsource_jobs_unfinished"}
    assert [name for name in empty if role == "marketing" or not name.startswith(WITHOUT_WORK)] == []
    assert set(found["midsource_measured"].values()) == {1.0}
    assert max(found["midsource_measure_seconds"].values()) < 2


def test_figures_of_messages_are_those_of_the_ledger_and_the_log(home: Home, sent: dict[str, Any]) -> None:
    for role, table, instance in (("marketing", "broad_log", "marketing"), ("mid", "message", "mid1")):
        rows = home.rows(instance, f"select state, count(*) from {table} group by 1")
        counted = sorted(count for _, count in rows)
        shown = scraped(home, role)["midsource_messages"].values()
        assert sorted(count for count in shown if count) == counted, (role, sent)


def test_what_went_wrong_can_be_seen(home: Home, sent: dict[str, Any]) -> None:
    assert sent["sent"]
    found = scraped(home, "marketing")
    assert found["midsource_account_problem"]["gone",] == 1
    assert found["midsource_account_problem"]["defaultEmailMid",] == 0
    assert any(labels[:2] == ("gone", "0") for labels in found["midsource_link_failures"])
    assert found["midsource_jobs_ended"]["prepare", "failed"] == 1
    assert found["midsource_workflow_failed"]["defaultMidSourcingLog",] == 1
    assert found["midsource_pointer_lag_seconds"]["defaultEmailMid", "backlog", "logs"] < 60
    on_mid = scraped(home, "mid")
    assert on_mid["midsource_feed_backlog"]["other", "logs"] == 0
    assert on_mid["midsource_http_requests_total"]["GET", "none", "401"] >= 2


def test_no_log_holds_a_person_or_a_secret_and_every_line_says_what_it_is_about(
    home: Home, sent: dict[str, Any]
) -> None:
    people = {address for (address,) in home.rows("marketing", "select email from recipient where email is not null")}
    people |= {address for (address,) in home.rows("mid1", "select email from message")}
    assert len(people) > PEOPLE / 2
    secrets = {file.read_text(encoding="utf-8").strip() for file in (home.path / "keys").rglob("*") if file.is_file()}
    secrets |= {sent["key"].partition(".")[2], "anna.secret", "wrong-token-of-somebody", "nobody@at.all"}
    logs = [file for file in (home.path / "log").rglob("*") if file.is_file()]
    assert {file.stem for file in logs} >= {"web", "worker", "mta", "sandbox", "supervisor", "postgres"}
    for file in logs:
        text = file.read_text(encoding="utf-8", errors="replace")
        assert [person for person in people if person in text] == [], file
        assert [secret[:4] for secret in secrets if secret and secret in text] == [], file


def test_each_line_of_a_process_is_json_with_level_action_process_and_ids(home: Home, sent: dict[str, Any]) -> None:
    assert sent["sent"]
    seen: set[str] = set()
    for instance in ("marketing", "mid1"):
        for file in sorted((home.path / "log" / instance).glob("*.log")):
            for line in lines(file):
                assert {"timestamp", "level", "action", "process", "event"} <= set(line), (file, line)
                assert str(line["process"]).endswith(f"@{instance}"), (file, line)
                seen |= set(line)
    assert {"delivery", "part", "account", "run", "job", "route"} <= seen


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
