"""The REST API: the verbs of the command line, keys and scopes, refusals as Problems, and a document that tells the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.web.console_scene import Scene
from tests.web.console_served import Console, serving

from midsource.config import Config, InstanceConfig
from midsource.net.clock import SystemClock
from midsource.security import api_keys
from midsource.security.roles import Permission, at_command_line
from midsource.store import migrate
from midsource.store.database import Database
from midsource.testing.clock import ManualClock
from midsource.web.api.app import MAX_BODY_BYTES, PATH, ApiMount, api_routes, operations

OPERATOR = at_command_line("tests")
NEW = {"label": "By request", "subject": "Hello", "html": "<p>Hello</p>", "text": "Hello"}


def key_of(database: Database, *scopes: Permission) -> str:
    with database.transaction() as conn:
        return api_keys.issue(conn, OPERATOR, "tests", scopes or tuple(Permission), SystemClock().now())


@pytest.fixture
def client(console: Console) -> Iterator[httpx2.Client]:
    """Give a client with a key that may do everything."""
    headers = {"authorization": f"Bearer {key_of(console.database)}"}
    with httpx2.Client(base_url=console.address + PATH, headers=headers, trust_env=False, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def mounts() -> dict[str, ApiMount]:
    """Give the API of each role; nothing is asked of a database."""
    found = {}
    for role in ("marketing", "mid"):
        instance = InstanceConfig(role, role, port=1)
        nowhere = Database(role, "postgresql://nowhere", application="tests")
        (mount,) = api_routes(Config(Path(), instances=(instance,)), instance, nowhere, ManualClock())
        assert isinstance(mount, ApiMount)
        found[role] = mount
    return found


def alive_worker(database: Database) -> None:
    with database.transaction() as conn:
        conn.execute(
            "insert into process (name, kind, host, pid, executor, beat_at) values ('worker@x', 'worker', 'h', 1, 'e', now() + interval '1 hour')"
        )


def test_every_operation_names_one_permission_and_tells_it_in_the_document(mounts: dict[str, ApiMount]) -> None:
    for mount in mounts.values():
        document = mount.api.openapi()
        walked = {(method, op.path): permission for op, permission in operations(mount) for method in op.methods or ()}
        told = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
        assert told == set(walked)
        assert len({item["operationId"] for path in document["paths"].values() for item in path.values()}) == len(told)
        for (method, path), permission in walked.items():
            said = document["paths"][path][method.lower()]
            assert f"Scope: `{permission.value}`." in said["description"]
            assert permission is not Permission.SEE or method == "GET" or path.endswith("/preview")


def test_a_key_reaches_what_its_scopes_say_and_nothing_else(console: Console, mounts: dict[str, ApiMount]) -> None:
    keys = {scope: key_of(console.database, Permission.SEE, scope) for scope in Permission}
    keys[Permission.METRICS] = key_of(console.database, Permission.METRICS)
    with httpx2.Client(base_url=console.address + PATH, trust_env=False) as client:
        for op, needed in operations(mounts["marketing"]):
            path = op.path.replace("{number}", "7").replace("{name}", "x").replace("{job}", "x")
            for method in op.methods or ():
                for scope, key in keys.items():
                    status = client.request(
                        method, path, headers={"authorization": f"Bearer {key}"}, json={}
                    ).status_code
                    admitted = scope is needed or (needed is Permission.SEE and scope is not Permission.METRICS)
                    assert (status != 403) == admitted, (method, path, scope)
                assert client.request(method, path).status_code == 401
                assert client.request(method, path, headers={"authorization": "Bearer a.b"}).status_code == 401


def test_a_delivery_is_created_shown_listed_and_ordered(client: httpx2.Client, console: Console, scene: Scene) -> None:
    alive_worker(console.database)
    made = client.post("/deliveries", json=NEW)
    assert made.status_code == 201, made.text
    number = made.json()["id"]
    shown = client.get(f"/deliveries/{number}").json()
    assert (shown["label"], shown["state"], shown["subject"]) == ("By request", "edited", "Hello")
    assert client.get("/deliveries", params={"limit": 1}).json()["deliveries"][0]["id"] == number
    asked = client.post(f"/deliveries/{number}/prepare")
    assert asked.status_code == 202
    assert client.get(f"/jobs/{asked.json()['job']}").json()["subject"] == number
    refused = client.post(f"/deliveries/{number}/pause")
    assert (refused.status_code, refused.json()["code"]) == (409, "MS-200")
    stopped = client.post(f"/deliveries/{scene.running}/stop")
    assert stopped.status_code == 202
    with console.database.connection() as conn:
        rows = conn.execute("select verb, subject, via from audit where via = 'api' order by id").fetchall()
    assert rows == [
        ("delivery.create", str(number), "api"),
        ("delivery.prepare", str(number), "api"),
        ("delivery.stop", str(scene.running), "api"),
    ]


def test_without_a_worker_nothing_is_asked_for(client: httpx2.Client, console: Console, scene: Scene) -> None:
    with console.database.transaction() as conn:
        conn.execute("delete from process where kind = 'worker'")
    refused = client.post(f"/deliveries/{scene.edited}/prepare")
    assert (refused.status_code, refused.json()["code"]) == (503, "MS-500")
    assert client.get(f"/deliveries/{scene.edited}").json()["state"] == "edited"


def test_a_repeated_request_creates_once(client: httpx2.Client, scene: Scene) -> None:
    headers = {"Idempotency-Key": "order-7"}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: client.post("/deliveries", json=NEW, headers=headers), range(4)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = client.post("/deliveries", json=NEW | {"label": "Another"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "MS-200")
    failed = client.post("/deliveries", json=NEW | {"brand": "unheard"}, headers={"Idempotency-Key": "order-8"})
    assert failed.status_code == 404
    assert client.post("/deliveries", json=NEW, headers={"Idempotency-Key": "order-8"}).status_code == 201


def test_the_log_is_read_in_pages_and_as_lines(client: httpx2.Client, scene: Scene) -> None:
    path = f"/deliveries/{scene.finished}/log"
    first = client.get(path, params={"limit": 400}).json()["rows"]
    second = client.get(path, params={"limit": 500, "after": first[-1]["id"]}).json()["rows"]
    third = client.get(path, params={"limit": 500, "after": second[-1]["id"]}).json()["rows"]
    whole = client.get(f"{path}.ndjson").text.splitlines()
    assert [len(first), len(second), len(third), len(whole)] == [400, 500, 100, 1_000]
    sent = client.get(path, params={"state": "sent"}).json()["rows"]
    assert {row["state"] for row in sent} == {"sent"}
    assert client.get(path, params={"state": "lost"}).status_code == 422


def test_maintenance_is_shown_ordered_and_advised(client: httpx2.Client, console: Console) -> None:
    found = client.get("/maintenance").json()
    assert (found["mode"], found["window"]["hours"]) == ("execute", "02:00-05:00")
    assert "job" in {table["name"] for table in found["tables"]}
    asked = {"act": "vacuum", "relations": ["job"]}
    assert client.post("/maintenance/orders", json=asked | {"relations": ["nosuch"]}).status_code == 404
    advised = client.post("/maintenance/orders", json=asked | {"advise": True}).json()
    assert [row["statement"] for row in advised] == ['VACUUM (ANALYZE, TRUNCATE OFF) "public"."job"']
    assert client.post("/maintenance/orders", json=asked).status_code == 503, "nobody would carry it out"
    alive_worker(console.database)
    with console.database.transaction() as conn:
        conn.execute(
            "insert into workflow (name, schedule) values ('databaseMaintenance', 'weekly on sunday at 02:00')"
        )
    assert [row["outcome"] for row in client.post("/maintenance/orders", json=asked).json()] == ["asked"]
    assert [row["outcome"] for row in client.get("/maintenance/actions").json()] == ["asked", "advised"]


@pytest.mark.usefixtures("scene")
def test_a_workflow_gets_a_schedule_and_is_killed_as_at_the_command_line(client: httpx2.Client) -> None:
    path = "/workflows/defaultMidSourcingDlv"
    wanted = {"schedule": "daily at 23:00", "zone": "Europe/Paris", "runs_left": 2, "between": "22:00-06:00"}
    looked = client.put(f"{path}/schedule", json=wanted | {"dry_run": True}).json()
    assert (len(looked["next_ticks"]), looked["saved"]) == (2, False)
    assert client.get(f"{path}/schedule").json()["schedule"] != "daily at 23:00"
    assert client.put(f"{path}/schedule", json=wanted).json()["saved"]
    assert client.get(f"{path}/schedule").json()["between"] == "22:00-06:00"
    refused = client.put(f"{path}/schedule", json={"schedule": "now and then"})
    assert (refused.status_code, "every 10 minutes" in refused.text) == (422, True)
    killed = client.post(f"{path}/kill").json()
    assert killed["sessions"] == 0
    assert client.get(path).json()["state"] == "finished"
    assert client.get(path).json()["next_ticks"] == []
    day = client.get("/workflow-concurrency", params={"day": "2026-05-04"}).json()
    assert (day["day"], len(day["cells"])) == ("2026-05-04", 288)
    assert client.get("/workflow-concurrency", params={"day": "0"}).status_code == 422
    assert len(client.get("/workflow-concurrency").json()["cells"]) == 288


def test_the_steps_of_cleanup_are_shown_and_asked_for(client: httpx2.Client, console: Console) -> None:
    with console.database.transaction() as conn:
        conn.execute(
            "insert into workflow (name, schedule) values ('cleanup', 'daily at 04:00') on conflict do nothing"
        )
        conn.execute("insert into audit (at, who, via, verb) values (now() - interval '181 days', 'a', 'cli', 'b')")
    steps = {step["name"]: step for step in client.get("/cleanup").json()}
    assert (steps["audit"]["rows"], steps["audit"]["kept_seconds"], steps["audit"]["last"]) == (1, 180 * 86_400, None)
    assert steps["delivery_logs"]["option"] == "NmsCleanup_BroadLogPurgeDelay"
    assert client.post("/cleanup", json={"step": "nothing"}).status_code in (404, 503)
    alive_worker(console.database)
    assert client.post("/cleanup", json={"step": "nothing"}).status_code == 404
    asked = client.post("/cleanup", json={"step": "audit"})
    assert asked.status_code == 202
    with console.database.connection() as conn:
        found = conn.execute("select step from cleanup_ask where run_id = %s", (asked.json()["run"],)).fetchall()
    assert found == [("audit",)]
    assert client.post("/cleanup", json={}).json() == asked.json(), "one run at a time"


def test_findings_are_listed_muted_healed_and_given_back(client: httpx2.Client, console: Console, scene: Scene) -> None:
    with console.database.transaction() as conn:
        conn.execute("update external_account set active = false where name = 'defaultEmailMid'")
        for check, subject, healable in (("account.off", "defaultEmailMid", True), ("machine.disk", "home", False)):
            conn.execute(
                "insert into finding (check_name, subject, severity, evidence, cause, remedy, healable, opened_at, seen_at, changed_at) "
                "values (%s, %s, 'warning', 'e', 'c', 'r', %s, now(), now(), now())",
                (check, subject, healable),
            )
    off, disk = client.get("/findings").json()
    assert (off["check"], off["treatment"]) == ("account.off", "switch the account defaultEmailMid on")
    assert (disk["check"], disk["treatment"], disk["closed_at"]) == ("machine.disk", "", None)
    healed = client.post(f"/findings/{off['id']}/heal").json()
    assert (healed["outcome"], healed["can_undo"], healed["before"], healed["after"]) == ("done", True, "off", "on")
    assert client.post(f"/findings/{off['id']}/heal").status_code == 409, "not twice so soon"
    assert client.post(f"/findings/{disk['id']}/heal").status_code == 409, "an operator's"
    assert "off again" in client.post(f"/findings/{off['id']}/undo").json()["said"]
    assert client.post(f"/findings/{off['id']}/undo").status_code == 409
    assert [row["id"] for row in client.get(f"/findings/{off['id']}/healings").json()] == [healed["id"]]
    muted = client.post(f"/findings/{disk['id']}/mute", json={"seconds": 3600}).json()
    assert muted["muted_until"] is not None
    assert client.post(f"/findings/{disk['id']}/mute", json={"seconds": 0}).json()["muted_until"] is None
    with console.database.transaction() as conn:
        conn.execute("update finding set closed_at = now() where id = %s", (disk["id"],))
        verbs = {verb for (verb,) in conn.execute("select verb from audit where via = 'api'").fetchall()}
    assert [row["id"] for row in client.get("/findings/closed").json()] == [disk["id"]]
    assert client.post(f"/findings/{disk['id']}/mute", json={"seconds": 60}).status_code == 409
    assert client.get("/findings/999999").status_code == 404
    assert {"doctor.heal", "doctor.undo", "doctor.mute"} <= verbs
    checks = client.get("/checks").json()
    assert {"pointer.late", "process.missing"} <= {check["name"] for check in checks}
    assert not [check for check in checks if check["name"].startswith("feed.")], "those are a mid's"


def test_supervisors_are_added_tested_muted_and_removed(client: httpx2.Client, scene: Scene) -> None:
    wanted = {"name": "ops", "channel": "webhook", "address": "http://127.0.0.1:9/T0KEN", "quiet": "22:00-07:00"}
    made = client.post("/supervisors", json=wanted)
    assert (made.status_code, made.json()["address"]) == (201, "http://127.0.0.1:9")
    assert len(made.json()["secret"]) > 30
    assert client.post("/supervisors", json=wanted).status_code == 409
    assert client.post("/supervisors", json=wanted | {"name": "two", "quiet": "never"}).status_code == 422
    tested = client.post("/supervisors/ops/test")
    assert (tested.status_code, "no public address" in tested.json()["cause"]) == (409, True)
    assert client.post("/supervisors/ops/mute", json={"seconds": 60}).json()["muted_until"] is not None
    (listed,) = client.get("/supervisors").json()
    assert (listed["failures"], listed["quiet_from"], "secret" in listed) == (1, "22:00", False)
    assert client.delete("/supervisors/ops").json()["name"] == "ops"
    assert client.delete("/supervisors/ops").status_code == 404


def test_people_segments_options_and_workflows(client: httpx2.Client, console: Console, scene: Scene) -> None:
    page = client.get("/recipients", params={"limit": 2}).json()
    email = page["recipients"][0]["email"]
    assert (page["total"], len(page["recipients"])) == (1_000, 2)
    assert client.get("/recipients/of-address", params={"email": email}).json()[0]["email"] == email
    assert client.request("DELETE", "/recipients/of-address", params={"email": email}).json()["people"] == 1
    assert client.get("/recipients/of-address", params={"email": email}).status_code == 404
    assert client.post("/segments", json={"name": "french", "expression": "language = 'fr'"}).status_code == 201
    assert client.post("/segments/preview", json={"expression": "nonsense ="}).status_code == 422
    assert client.put("/options/NmsEmail_RetryCount", json={"value": "7"}).status_code == 200
    assert client.get("/options/NmsEmail_RetryCount").json()["value"] == "7"
    assert client.get("/options/NmsNothing").status_code == 404
    names = [row["name"] for row in client.get("/workflows").json()]
    assert "defaultMidSourcingDlv" in names
    assert client.get("/workflows/defaultMidSourcingDlv/journal").status_code == 200
    assert client.post("/workflows/defaultMidSourcingDlv/pause").json()["state"] == "paused"
    assert client.get("/workflows/defaultMidSourcingDlv").json()["held_by"].startswith("key:")
    assert client.post("/workflow-restarts", json={"dry_run": True}).json()["restarted"] == {}
    left = client.post("/workflow-restarts", json={"scheduled": True, "dry_run": True}).json()["left"]
    assert "defaultMidSourcingDlv" in left
    assert client.get("/instance").json()["role"] == "marketing"


def test_a_session_changes_something_only_with_its_csrf(console: Console, scene: Scene) -> None:
    with console.browser(accept="application/json") as browser:
        assert browser.get(f"{PATH}/deliveries").status_code == 200
        refused = browser.post(f"{PATH}/segments", json={"name": "x", "expression": "email is empty"})
        assert (refused.status_code, refused.json()["code"]) == (403, "MS-431")


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {"content-type": "application/json"}, 422),
        (b'{"label": 7}', {"content-type": "application/json"}, 422),
        (b'{"label": "x", "colour": "red"}', {"content-type": "application/json"}, 422),
        (b'{"label": "\\u0000"}', {"content-type": "application/json"}, 422),
        (b"label=x", {"content-type": "application/x-www-form-urlencoded"}, 422),
        (b" " * (MAX_BODY_BYTES + 1), {"content-type": "application/json"}, 413),
    ],
)
def test_what_is_no_request_is_a_problem(
    client: httpx2.Client, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = client.post("/deliveries", content=body, headers=headers)
    assert answer.status_code == status
    assert set(answer.json()) == {"code", "cause", "remedy"}
    assert client.get("/nothing").json()["code"] == "MS-120"
    wrong = client.put("/deliveries")
    assert (wrong.json()["code"], wrong.headers["allow"]) == ("MS-121", "GET, POST")


def test_an_ended_key_is_none(console: Console) -> None:
    now = SystemClock().now()
    with console.database.transaction() as conn:
        key = api_keys.issue(
            conn, OPERATOR, "short", [Permission.SEE], now - timedelta(days=2), now - timedelta(days=1)
        )
    headers = {"authorization": f"Bearer {key}"}
    assert httpx2.get(f"{console.address}{PATH}/instance", headers=headers, trust_env=False).status_code == 401


def test_a_mid_has_what_makes_sense_there(make_database: Callable[..., str], tmp_path: Path, free_port: int) -> None:
    instance = InstanceConfig("mid1", "mid", port=free_port)
    with Database("mid1", make_database(), application="tests", max_connections=4) as database:
        migrate.upgrade(database, "mid")
        with database.transaction() as conn:
            migrate.describe_instance(conn, "mid1", "mid")
        headers: dict[str, Any] = {"authorization": f"Bearer {key_of(database)}"}
        with (
            serving(Config(tmp_path, instances=(instance,)), instance, database) as address,
            httpx2.Client(base_url=address + PATH, headers=headers, trust_env=False) as client,
        ):
            assert client.get("/instance").json()["role"] == "mid"
            assert client.get("/workflows").status_code == 200
            assert client.get("/deliveries").status_code == 404
