"""Supervisors in the console: added, tested, muted and removed there, by whoever may; and looked at as people see them."""

from __future__ import annotations

import hmac
import html
import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import httpx2
import pytest
from playwright.sync_api import Browser, expect
from tests.hook import Hook, receiving
from tests.web.console_axe import violations
from tests.web.console_looks import faults, walk
from tests.web.console_scene import HOSTILE
from tests.web.console_served import Console
from tests.web.console_window import HEIGHTS, signed_in, window

from midsource.config import EgressConfig
from midsource.doctor import supervisors
from midsource.doctor.channels import SIGNATURE, TIMESTAMP
from midsource.doctor.supervisors import Channel, Draft
from midsource.model.finding import Severity
from midsource.net.clock import SystemClock
from midsource.security import access, operators, sessions
from midsource.security.roles import SYSTEM, Role
from midsource.web.console.catalogue import texts
from midsource.web.console.pages.supervisors import FIELDS, read

HOOK = {"name": "oncall", "channel": "webhook", "severity": "error", "language": "fr", "zone": "Europe/Paris"}
LANGUAGE = {390: "pt", 768: "fr", 1280: "en"}


@pytest.fixture
def hook() -> Iterator[Hook]:
    with receiving("/T0KEN") as server:
        yield server


@pytest.fixture(params=["marketing", "mid"])
def console(request: pytest.FixtureRequest, serve_console: Callable[..., Console]) -> Console:
    """Serve the console of either role, in a home that may post to private networks."""
    return serve_console("here", request.param, egress=EgressConfig(private_networks=True))


@pytest.fixture
def browser(console: Console) -> Iterator[httpx2.Client]:
    with console.browser() as client:
        client.get("/?lang=en")
        yield client


@contextmanager
def signed(console: Console, role: Role) -> Iterator[httpx2.Client]:
    """Open the browser of an operator who has just this role."""
    with console.database.transaction() as conn:
        number = operators.add(conn, SYSTEM, str(role), [role], "$argon2id$none")
        cookie = sessions.start(conn, number, SystemClock().now()).cookie
    with console.browser(token="") as client:
        client.cookies.set("midsource_console_here", cookie)
        yield client


def seen(answer: httpx2.Response) -> str:
    assert HOSTILE not in answer.text
    text = re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", answer.text.replace("<wbr>", ""), flags=re.DOTALL)
    return " ".join(html.unescape(text).split())


def post(browser: httpx2.Client, path: str, **form: str) -> httpx2.Response:
    found = re.search(r'name="csrf" value="([^"]+)"', browser.get("/me").text)
    return browser.post(path, data={"csrf": found[1] if found else "", **form})


def add(browser: httpx2.Client, **form: str) -> httpx2.Response:
    return post(browser, "/add-supervisor", **form)


def audited(console: Console) -> list[tuple[str, str]]:
    with console.database.connection() as conn:
        return [(row[0], row[1]) for row in conn.execute("select verb, subject from audit order by id").fetchall()]


def problems(answer: httpx2.Response) -> dict[str, str]:
    """Return the sentences beside the fields of a form."""
    found = re.findall(r'id="(\w+)-problem"><span class="said" lang="en">(.*?)</span>', answer.text)
    return {field: html.unescape(sentence) for field, sentence in found}


def test_a_webhook_is_added_with_its_secret_shown_once_and_tested(
    console: Console, browser: httpx2.Client, hook: Hook
) -> None:
    assert "Nobody is told of findings and failed workflows." in seen(browser.get("/supervisors"))
    made = add(browser, **HOOK, address=hook.url, quiet="22:00-07:00", digest="07:30")
    assert made.status_code == 200
    found = re.search(r'class="secret" translate="no">([^<]+)<', made.text)
    assert found is not None
    listed, shown = browser.get("/supervisors"), browser.get("/supervisors/oncall")
    for page in (listed, shown, browser.get("/findings"), browser.get("/audit")):
        assert found[1] not in page.text
        assert "T0KEN" not in page.text
    words = "error and worse Français 22:00–07:00 Europe/Paris digest 07:30 never"
    assert words in seen(listed)
    assert words in seen(browser.get("/findings"))
    again = add(browser, **HOOK, address=hook.url)
    assert (again.status_code, list(problems(again))) == (409, ["name"])

    tried = post(browser, "/supervisors/oncall/test")
    assert "It was told: HTTP 204" in seen(tried)
    _, headers, body = hook.seen[0]
    assert json.loads(body)["kind"] == "test"
    signed = hmac.new(found[1].encode(), f"{headers[TIMESTAMP]}.".encode() + body, "sha256").hexdigest()
    assert headers[SIGNATURE] == f"v1={signed}"
    assert "0 s ago" in seen(browser.get("/supervisors")) or "1 s ago" in seen(browser.get("/supervisors"))
    assert audited(console) == [("supervisor.add", "oncall"), ("supervisor.test", "oncall")]


def test_one_that_cannot_be_told_says_so_and_counts(console: Console, browser: httpx2.Client, hook: Hook) -> None:
    add(browser, **HOOK, address=hook.url)
    hook.status = 500
    for _ in range(2):
        assert "answered HTTP 500: see its own log." in seen(post(browser, "/supervisors/oncall/test"))
    for path in ("/supervisors", "/supervisors/oncall", "/findings"):
        assert re.search(r"Could not be told 2 times in a row, since \d s ago: .*HTTP 500", seen(browser.get(path)))
    assert [verb for verb, _ in audited(console)] == ["supervisor.add", *["supervisor.test"] * 2]
    hook.status = 204
    post(browser, "/supervisors/oncall/test")
    assert "Could not be told" not in seen(browser.get("/supervisors"))


def test_a_line_by_udp_says_what_it_cannot_say(browser: httpx2.Client) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        address = f"udp://127.0.0.1:{server.getsockname()[1]}"
        kept = add(browser, name="log", channel="syslog", address=address, severity="warning", language="en")
        assert "The supervisor is added. Test it now." in seen(kept)
        assert 'class="secret"' not in kept.text, "only webhooks are signed"
        tried = seen(post(browser, "/supervisors/log/test"))
        assert "It was told: 1 line sent UDP tells nothing of its arrival: look whether the line is there." in tried
        assert b"test" in server.recv(4096)


def test_each_mistake_stands_beside_its_field_and_nothing_typed_is_lost(
    console: Console, browser: httpx2.Client
) -> None:
    typed = {
        "name": HOSTILE, "channel": "smtp", "address": "smtp://relay.example/", "severity": "critical", "quiet": "",
        "digest": "07:30", "zone": "Europe", "language": "pt",
    }  # fmt: skip
    refused = add(browser, **typed)
    assert refused.status_code == 422
    assert problems(refused) == {
        "name": f"{HOSTILE!r} cannot be a name: use up to 63 letters, digits, '_', '.' and '-', starting with a letter.",
        "address": "'smtp://relay.example/' is no relay: write it like "
        "smtp://relay.example:25/?to=ops@example.com&from=midsource@example.com.",
        "digest": "a digest is of quiet hours, and there are none: give quiet hours as well, like 22:00-07:00.",
        "zone": "'Europe' is not a time zone: use an IANA name, as in Europe/Paris.",
    }
    seen(refused)
    for field in ("name", "address", "digest", "zone"):
        assert f'id="{field}" name="{field}" type="text" value="{html.escape(typed[field])}"'.replace(
            "&#x27;", "&#39;"
        ) in (refused.text)
    for value in ("critical", "pt"):
        assert f'<option value="{value}" selected>' in refused.text
    assert re.search(r'value="smtp" required checked>', refused.text)
    assert (add(browser).status_code, audited(console)) == (422, [])
    chosen = add(browser, **typed | {"channel": "pigeon", "severity": "info"})
    assert set(problems(chosen)) == {"channel", "severity"}


def test_the_form_is_read_into_a_draft_or_sentences() -> None:
    typed = dict.fromkeys(FIELDS, "") | HOOK | {"address": "https://a.example/", "zone": ""}
    draft = Draft("oncall", Channel.WEBHOOK, "https://a.example/", Severity.ERROR, language="fr")
    assert read(typed) == (draft, {})
    assert read(typed | {"channel": ""})[0] is None
    assert list(read(typed | {"language": "de"})[1]) == ["language"]


def test_one_is_muted_told_again_and_removed(console: Console, browser: httpx2.Client) -> None:
    add(browser, **HOOK, address="https://hooks.example/x")
    assert "It is muted." in seen(post(browser, "/supervisors/oncall/mute", hours="8"))
    assert re.search(r"oncall muted until \d+ \w+ \d+, [\d:]+ \(home\)", seen(browser.get("/supervisors")))
    assert "It is told again." in seen(post(browser, "/supervisors/oncall/mute", hours="0"))
    assert "muted until" not in seen(browser.get("/supervisors"))
    assert post(browser, "/supervisors/oncall/mute", hours=str(24 * 90)).status_code == 200
    for wrong in ("2161", "9" * 18, "-1", "x", ""):
        assert post(browser, "/supervisors/oncall/mute", hours=wrong).status_code == 422
    with console.database.transaction() as conn:
        conn.execute(
            "with n as (insert into notification (kind, severity, subject, document) values ('opened', 'error', 'x', '{}') returning id) "
            "insert into telling (notification_id, supervisor, due_at) select id, 'oncall', now() from n"
        )
    assert "1 change that it was not told yet" in seen(browser.get("/supervisors/oncall/remove"))
    assert [one for one, _ in audited(console)] == ["supervisor.add", *["supervisor.mute"] * 3], (
        "looking removes nothing"
    )
    assert "The supervisor is removed." in seen(post(browser, "/supervisors/oncall/remove"))
    for path in ("/supervisors/oncall", "/supervisors/oncall/remove"):
        assert browser.get(path).status_code == 404
    for verb in ("test", "mute", "remove"):
        assert post(browser, f"/supervisors/oncall/{verb}", hours="1").status_code == 404
    assert audited(console)[-1] == ("supervisor.remove", "oncall")


def test_who_may_do_what(console: Console, browser: httpx2.Client) -> None:
    add(browser, **HOOK, address="https://hooks.example/x")
    offered: dict[Role, list[str]] = {
        Role.READER: [],
        Role.SUPERVISOR: ["/supervisors/oncall/mute"],
        Role.ADMIN: ["/supervisors/oncall/test", "/supervisors/oncall/mute"],
    }
    for role, forms in offered.items():
        with signed(console, role) as client:
            page = client.get("/supervisors/oncall")
            assert page.status_code == 200
            assert re.findall(r'<form method="post" action="(/super[^"]+)"', page.text) == forms
            assert ("/add-supervisor" in client.get("/supervisors").text) == (role is Role.ADMIN)
            for path in ("/add-supervisor", "/supervisors/oncall/remove"):
                assert client.get(path).status_code == (200 if role is Role.ADMIN else 403)
    with signed(console, Role.MANAGER) as client:
        for verb in ("test", "mute", "remove"):
            assert post(client, f"/supervisors/oncall/{verb}", hours="1").status_code == 403
    assert browser.post("/supervisors/oncall/remove", data={"csrf": "x"}).status_code == 403, "no form of this session"
    assert audited(console)[0] == ("supervisor.add", "oncall")
    assert "supervisor.remove" not in [verb for verb, _ in audited(console)]


def fill(console: Console) -> None:
    """Four supervisors: one that is fine, one that fails, one that is muted, one that is off."""
    now = SystemClock().now()
    relay = (
        "smtp://relay.vila-nova-de-gaia.example:25/?to=equipa.de.plantao@empresa.example&from=midsource@empresa.example"
    )
    with console.database.transaction() as conn:
        for draft in (
            Draft("data-centre.of.the-northern-region", Channel.SMTP, relay, Severity.ERROR, "22:00-07:00", "07:30", "America/Argentina/Buenos_Aires", "pt"),
            Draft("log", Channel.SYSLOG, "udp://logs.example:514"),
            Draft("night", Channel.WEBHOOK, "https://alerts.example/hook", Severity.CRITICAL, "23:00-06:00", "", "Europe/Paris", "fr"),
            Draft("oncall", Channel.WEBHOOK, "https://alerts.example/hook"),
        ):  # fmt: skip
            supervisors.add(conn, console.home, draft, "paula.wagner@atelier.example", now - timedelta(days=3))
        supervisors.told(conn, "log", now - timedelta(minutes=7))
        supervisors.mute(conn, "night", now + timedelta(days=2), "paula.wagner@atelier.example", now)
        for at in (now - timedelta(hours=2), now):
            supervisors.failed(
                conn, "oncall", f"https://alerts.example answered HTTP 500 {HOSTILE}: see its own log.", at
            )
        conn.execute("update supervisor set active = false where name = 'log'")


PATHS = ("/supervisors", "/add-supervisor", "/supervisors/oncall", "/supervisors/night", "/supervisors/night/remove")


@pytest.mark.parametrize("console", ["marketing"], indirect=True)
def test_each_page_fits_is_readable_and_reached_by_keyboard(console: Console, chromium: Browser) -> None:
    fill(console)
    wrong: list[str] = []
    for width in HEIGHTS:
        page = signed_in(chromium, console, width)
        for path in (*PATHS, "/findings"):
            page.goto(f"{console.address}{path}?lang={LANGUAGE[width]}")
            expect(page.locator("html")).to_have_attribute("lang", LANGUAGE[width])
            found = faults(page) + violations(page) + (walk(page) if width == 390 else [])
            wrong += [f"{width} {path}: {fault}" for fault in found]
        page.context.close()
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("console", ["marketing"], indirect=True)
def test_one_is_added_and_tested_without_scripts(console: Console, chromium: Browser, hook: Hook) -> None:
    page, words = window(chromium, 390, scripts=False), texts("en")
    page.goto(f"{console.address}/supervisors?token={access.token(console.home)}&lang=en")
    page.get_by_role("link", name=words["supervisor.new"]).click()
    page.get_by_label(words["supervisor.name"]).fill("oncall")
    page.get_by_label(words["supervisor.address"]).fill("nowhere")
    page.get_by_role("button", name=words["supervisor.add"]).click()
    expect(page.locator("#address-problem")).to_contain_text("is no address of a webhook")
    expect(page.locator("#name")).to_have_value("oncall")
    page.get_by_label(words["supervisor.address"]).fill(hook.url)
    page.get_by_role("button", name=words["supervisor.add"]).click()
    expect(page.locator(".secret")).to_be_visible()
    page.get_by_role("button", name=words["supervisor.test"]).click()
    expect(page.locator(".tested")).to_contain_text("HTTP 204")
    page.context.close()
