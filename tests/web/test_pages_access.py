"""Log-in, own account, operators, API keys and the audit, as a browser of an operator meets them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from tests.web.console_scene import HOSTILE
from tests.web.console_served import Console, serving

from midsource.config import Config, InstanceConfig
from midsource.security import audit, operators
from midsource.security.passwords import Hashing
from midsource.security.roles import SYSTEM, Role
from midsource.security.throttle import FREE_TRIES
from midsource.store import migrate
from midsource.store.database import Database, scalar
from midsource.web.console.catalogue import texts

PASSWORD = "a sentence of mine"
EN = texts("en")


@pytest.fixture
def alice(console: Console) -> Iterator[httpx2.Client]:
    """Give the browser of Alice, who administers and is logged in."""
    add(console, "alice", Role.ADMIN)
    with console.browser(token="") as client:
        assert log_in(client, "alice").status_code == 200
        yield client


def add(console: Console, name: str, role: Role) -> None:
    with console.database.transaction() as conn:
        operators.add(conn, SYSTEM, name, [role], Hashing().hash(PASSWORD))


def log_in(client: httpx2.Client, name: str, password: str = PASSWORD, target: str = "/me") -> httpx2.Response:
    return client.post("/login", data={"name": name, "password": password, "next": target})


def post(client: httpx2.Client, path: str, page: str = "", **fields: str) -> httpx2.Response:
    """Send the form of a page, with the csrf that stands on it."""
    found = re.search(r'name="csrf" value="([^"]+)"', client.get(page or path).text)
    assert found is not None
    return client.post(path, data={**fields, "csrf": found[1]})


def test_who_logs_in_is_led_to_the_page_that_was_asked_for(console: Console) -> None:
    add(console, "bob", Role.READER)
    with console.browser(token="") as stranger:
        asked = stranger.get("/deliveries?label=x&lang=en")
        assert asked.status_code == 401
        found = re.search(r'name="next" value="([^"]+)"', asked.text)
        assert found is not None
        target = found[1].replace("&amp;", "&")
        assert target == "/deliveries?label=x&lang=en"
        arrived = log_in(stranger, "bob", target=target)
        assert (arrived.status_code, arrived.url.raw_path.decode()) == (200, target)
        assert 'aria-current="page"' in arrived.text
        assert ">bob</a>" in arrived.text


@pytest.mark.parametrize("target", ["//evil.test/", "https://evil.test/", "/\\evil.test", "javascript:alert(1)"])
def test_nobody_is_led_to_another_host(console: Console, target: str) -> None:
    add(console, "bob", Role.READER)
    with console.browser(token="") as stranger:
        assert 'name="next" value="/">' in stranger.get("/login", params={"next": target}).text
        answer = stranger.post(
            "/login", data={"name": "bob", "password": PASSWORD, "next": target}, follow_redirects=False
        )
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_what_is_wrong_is_said_with_what_was_typed_but_the_password(console: Console) -> None:
    with console.browser(token="") as stranger:
        answer = log_in(stranger, HOSTILE, "my secret guess")
        assert answer.status_code == 422
        assert EN["login.wrong"] in answer.text
        assert HOSTILE not in answer.text
        assert 'value="&lt;script&gt;' in answer.text
        assert "my secret guess" not in answer.text
        for _ in range(FREE_TRIES):
            answer = log_in(stranger, HOSTILE, "wrong")
        answer = log_in(stranger, HOSTILE, "wrong")
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert "Try again in" in answer.text


def test_the_cookie_is_new_closed_to_scripts_and_other_sites_and_dies_with_the_log_out(
    console: Console, alice: httpx2.Client
) -> None:
    planted = "fixed-by-somebody"
    with console.browser(token="") as other:
        other.cookies.set("midsource_console_marketing", planted)
        answer = other.post("/login", data={"name": "alice", "password": PASSWORD}, follow_redirects=False)
        given = answer.headers["set-cookie"]
    assert planted not in given
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in given.split(";")}
    kept = alice.cookies["midsource_console_marketing"]
    assert EN["said.logged_out"] in post(alice, "/logout", "/me").text
    alice.cookies.set("midsource_console_marketing", kept)
    assert alice.get("/me").status_code == 401


def test_over_https_the_cookie_is_for_this_host_alone(
    make_database: Callable[..., str], migrated: str, tmp_path: Path, free_port: int
) -> None:
    instance = InstanceConfig("marketing", "marketing", port=free_port, public_url="https://console.brand.example")
    with (
        Database("marketing", make_database(migrated), application="tests") as database,
        serving(Config(tmp_path, instances=(instance,)), instance, database) as address,
    ):
        console = Console(tmp_path, database, address)
        add(console, "bob", Role.READER)
        for headers in ({"host": "console.brand.example"}, {"x-forwarded-proto": "https"}):
            with console.browser(token="") as client:
                fields = {"name": "bob", "password": PASSWORD}
                answer = client.post("/login", data=fields, headers=headers, follow_redirects=False)
            given = answer.headers["set-cookie"]
            assert given.startswith("__Host-midsource_console_marketing=")
            assert "; secure" in given.lower()


@pytest.mark.parametrize(
    "headers", [{"sec-fetch-site": "cross-site"}, {"origin": "https://evil.test"}, {"sec-fetch-site": "same-site"}]
)
def test_no_other_site_logs_anybody_in_or_out(console: Console, alice: httpx2.Client, headers: dict[str, str]) -> None:
    with console.browser(token="") as stranger:
        fields = {"name": "alice", "password": PASSWORD}
        answer = stranger.post("/login", data=fields, headers=headers)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers
    assert alice.post("/logout", headers=headers).status_code == 403
    assert alice.get("/me").status_code == 200


def test_one_changes_ones_password_and_ends_ones_other_sessions(console: Console, alice: httpx2.Client) -> None:
    new = "another sentence"
    wrong = post(alice, "/me/password", "/me", present="no", new=new, again=new)
    assert (wrong.status_code, "the present password is wrong" in wrong.text) == (422, True)
    wrong = post(alice, "/me/password", "/me", present=PASSWORD, new=new, again="other")
    assert (wrong.status_code, "the two are not the same" in wrong.text) == (422, True)
    with console.browser(token="") as other:
        log_in(other, "alice")
        assert (
            EN["said.password_changed"] in post(alice, "/me/password", "/me", present=PASSWORD, new=new, again=new).text
        )
        assert other.get("/me").status_code == 401
        assert log_in(other, "alice", new).status_code == 200
        assert alice.get("/me").text.count('name="ref"') == 1
        assert EN["said.session_ended"] in post(alice, "/me/sessions", "/me").text
        assert other.get("/me").status_code == 401


def test_a_language_is_kept_for_every_browser(console: Console, alice: httpx2.Client) -> None:
    assert texts("pt")["said.language_kept"] in post(alice, "/me/language", "/me", language="pt").text
    with console.browser(token="") as other:
        assert texts("pt")["me.title"] in log_in(other, "alice").text


def test_an_administrator_makes_changes_and_shuts_out_an_operator(console: Console, alice: httpx2.Client) -> None:
    wrong = post(alice, "/operators/new", name="Bob", new="short", again="x")
    assert wrong.status_code == 422
    for sentence in ("cannot name an operator", "needs a role", "12 are needed", "not the same"):
        assert sentence in wrong.text
    made = post(alice, "/operators/new", name="bob", role_manager="on", new=PASSWORD, again=PASSWORD)
    assert EN["said.operator_added"] in made.text
    again = post(alice, "/operators/new", name="bob", role_manager="on", new=PASSWORD, again=PASSWORD)
    assert (again.status_code, "already an operator" in again.text) == (422, True)
    with console.browser(token="") as bob:
        assert log_in(bob, "bob").status_code == 200
        assert bob.get("/operators").status_code == 403
        assert EN["said.roles_changed"] in post(alice, "/operators/bob/roles", "/operators/bob", role_reader="on").text
        assert bob.get("/me").status_code == 401
        log_in(bob, "bob")
        assert EN["said.operator_disabled"] in post(alice, "/operators/bob/access", "/operators/bob", to="disable").text
        assert bob.get("/me").status_code == 401
        assert log_in(bob, "bob").status_code == 422
        post(alice, "/operators/bob/access", "/operators/bob", to="enable")
        assert (
            EN["said.password_set"]
            in post(
                alice, "/operators/bob/password", "/operators/bob", new="another sentence", again="another sentence"
            ).text
        )
        assert log_in(bob, "bob", "another sentence").status_code == 200
    own = post(alice, "/operators/alice/access", "/operators/alice", to="disable")
    assert (own.status_code, "you cannot disable yourself" in own.text) == (409, True)
    own = post(alice, "/operators/alice/roles", "/operators/alice", role_reader="on")
    assert (own.status_code, "take the role admin from yourself" in own.text) == (409, True)
    with console.database.connection() as conn:
        verbs = [entry.verb for entry in audit.page(conn, who="alice", subject="bob").entries]
    assert verbs == [f"operator.{verb}" for verb in ("password", "enable", "disable", "roles", "add")]


def test_a_key_is_shown_once_and_revoked_on_a_page_that_asks(alice: httpx2.Client) -> None:
    wrong = post(alice, "/keys", label=HOSTILE)
    assert (wrong.status_code, "a key needs a scope" in wrong.text) == (422, True)
    assert HOSTILE not in wrong.text
    made = post(alice, "/keys", label=HOSTILE, scope_see="on", days="30")
    found = re.search(r'<code class="secret"[^>]*>([0-9a-f]{16})\.([\w-]{43})</code>', made.text)
    assert found is not None
    key_id, secret = found.groups()
    listed = alice.get("/keys").text
    assert secret not in listed
    assert key_id in listed
    assert HOSTILE not in listed
    assert alice.get("/deliveries", headers={"authorization": f"Bearer {key_id}.{secret}"}).status_code == 200
    asked = alice.get(f"/keys/{key_id}/revoke")
    assert HOSTILE not in asked.text
    assert EN["keys.revoke_how"] in asked.text
    assert EN["said.key_revoked"] in post(alice, f"/keys/{key_id}/revoke").text
    assert key_id not in alice.get("/keys").text
    assert key_id in alice.get("/keys?revoked=1").text
    assert alice.get("/keys/nothing/revoke").status_code == 404


def test_a_key_that_was_revoked_in_the_console_is_refused_at_once(console: Console, alice: httpx2.Client) -> None:
    made = post(alice, "/keys", label="x", scope_see="on").text
    found = re.search(r'translate="no">([^<]+)<', made)
    assert found is not None
    with httpx2.Client(base_url=console.address, trust_env=False) as program:
        program.headers["authorization"] = f"Bearer {found[1]}"
        assert program.get("/deliveries").status_code == 200
        post(alice, f"/keys/{found[1].partition('.')[0]}/revoke")
        assert program.get("/deliveries").status_code == 401


def test_the_audit_is_found_by_who_verb_and_subject_page_by_page(console: Console, alice: httpx2.Client) -> None:
    with console.database.transaction() as conn:
        conn.execute("truncate audit restart identity")
        for number in range(70):
            audit.record(conn, SYSTEM, "delivery.send", number, label=HOSTILE, people=number)
        audit.record(conn, SYSTEM, "option.set", HOSTILE, old="1", new="2")
    first = alice.get("/audit")
    assert HOSTILE not in first.text
    assert "old=1, new=2" in first.text or "new=2, old=1" in first.text
    found = re.search(r'href="(\?before=\d+)"', first.text)
    assert found is not None
    older = alice.get(f"/audit{found[1]}")
    assert older.text.count("delivery.send") == 70 - 49 + 1, "21 rows and the example in the form"
    assert 'href="/audit">' in older.text
    assert alice.get("/audit?verb=option").text.count("option.set") == 1
    assert EN["audit.not_found"] in alice.get("/audit?who=nobody").text
    assert alice.get("/audit?subject=69&verb=delivery").text.count("people=69") == 1
    for wrong in ("before=x", "before=-1", "before=99999999999999999999"):
        assert alice.get(f"/audit?{wrong}").status_code == 422
    assert alice.get("/audit", params={"who": "\0", "subject": "x" * 9_000}).status_code == 200


def test_the_holder_of_the_home_is_told_to_make_an_operator(browser: httpx2.Client) -> None:
    page = browser.get("/me")
    assert "midsource operator add NAME --role admin" in page.text
    assert '<a href="/operators/new">' in page.text
    assert EN["operators.none"].partition("`")[0] in browser.get("/operators").text
    assert EN["said.logged_out"] in post(browser, "/logout", "/me").text
    assert browser.get("/").status_code == 401


def test_a_database_that_is_away_is_said_to_who_logs_in_and_to_who_is_logged_in(tmp_path: Path, free_port: int) -> None:
    instance = InstanceConfig("marketing", "marketing", port=free_port)
    away = "postgresql://nobody@127.0.0.1:1/nothing"
    with (
        Database("marketing", away, application="tests", wait_seconds=1) as database,
        serving(Config(tmp_path, instances=(instance,)), instance, database) as address,
        Console(tmp_path, database, address).browser(token="") as stranger,
    ):
        assert stranger.get("/login").status_code == 200
        for answer in (
            log_in(stranger, "alice"),
            stranger.get("/me", headers={"cookie": "midsource_console_marketing=x"}),
        ):
            assert answer.status_code == 503
            assert "the database of marketing cannot be reached" in answer.text
            assert "Traceback" not in answer.text


def test_a_database_that_comes_back_is_found_at_once(console: Console, alice: httpx2.Client) -> None:
    with console.database.connection() as conn:
        conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name ~ '^access@'"
        )
    assert alice.get("/me").status_code == 200


def test_a_mid_has_the_same_door(make_database: Callable[..., str], tmp_path: Path, free_port: int) -> None:
    instance = InstanceConfig("mid1", "mid", port=free_port)
    with Database("mid1", make_database(), application="tests", max_connections=4) as database:
        migrate.upgrade(database, "mid")
        with database.transaction() as conn:
            migrate.describe_instance(conn, "mid1", "mid")
        with serving(Config(tmp_path, instances=(instance,)), instance, database) as address:
            console = Console(tmp_path, database, address)
            add(console, "alice", Role.ADMIN)
            with console.browser(token="") as client:
                assert client.get("/operators").status_code == 401
                assert log_in(client, "alice").status_code == 200
                for path in ("/operators", "/keys", "/audit", "/me"):
                    assert client.get(path).status_code == 200
        with database.connection() as conn:
            assert scalar(conn, "select count(*) from operator_session") == 1
