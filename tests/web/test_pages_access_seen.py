"""Log-in, operators, keys and audit in a real browser: by keyboard, at three widths, in three languages, with axe."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.web.console_axe import violations
from tests.web.console_looks import faults, walk
from tests.web.console_scene import HOSTILE
from tests.web.console_served import Console
from tests.web.console_window import HEIGHTS, window

from midsource.net.clock import SystemClock
from midsource.security import api_keys, audit, operators
from midsource.security.passwords import Hashing
from midsource.security.roles import SYSTEM, Permission, Role, at_command_line
from midsource.store.database import Database
from midsource.web.console.catalogue import texts

PASSWORD = "a sentence of mine"
PATHS = (
    "/login",
    "/me",
    "/operators",
    "/operators/new",
    "/operators/paula.wagner@atelier.example",
    "/keys",
    "/keys/{key}/revoke",
    "/audit",
    "/api/v1/docs",
)
LANGUAGE = {390: "pt", 768: "fr", 1280: "en"}
"""Each width in another language: the longest words on the narrowest screen."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A console with operators, keys and an audit."""

    console: Console
    key: str


@pytest.fixture(scope="module")
def stage(stood: Console) -> Stage:
    return Stage(stood, _filled(stood.database))


def _filled(database: Database) -> str:
    now, hashed, me = SystemClock().now(), Hashing().hash(PASSWORD), at_command_line("operator")
    with database.transaction() as conn:
        operators.add(conn, me, "alice", [Role.ADMIN], hashed)
        operators.add(conn, me, "paula.wagner@atelier.example", [Role.MANAGER, Role.SUPERVISOR], hashed)
        operators.add(conn, me, "left", [Role.READER], hashed)
        operators.disable(conn, me, "left", now)
        api_keys.issue(conn, me, "Monitoring of the data centre in Vila Nova de Gaia", [Permission.METRICS], now)
        key = api_keys.issue(conn, me, f"Orders {HOSTILE}", [Permission.SEE, Permission.DELIVER], now)
        audit.record(
            conn,
            SYSTEM,
            "option.set",
            "NmsMidSourcing_LastBroadLog_defaultEmailMid",
            old="2020-01-01T00:00:00Z",
            new="x" * 300,
        )
        for number in range(45):
            audit.record(
                conn, me, "delivery.send", 870_000_000_000_000 + number, state="start pending", job=f"order:{number}"
            )
    return key.partition(".")[0]


def log_in(page: Page, stage: Stage) -> None:
    page.goto(f"{stage.console.address}/login")
    page.locator("#name").fill("alice")
    page.locator("#password").fill(PASSWORD)
    page.locator("main button").click()


def test_one_logs_in_and_out_by_keyboard_alone(chromium: Browser, stage: Stage) -> None:
    page = window(chromium, 1280)
    answer = page.goto(f"{stage.console.address}/operators?lang=en")
    assert answer is not None
    assert answer.status == 401
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "name":
            break
    page.keyboard.type("alice")
    page.keyboard.press("Tab")
    page.keyboard.type("wrong password")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text(texts("en")["login.wrong"])
    expect(page.locator("#name")).to_have_value("alice")
    assert violations(page) == []
    page.locator("#password").focus()
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text(texts("en")["nav.operators"])
    assert page.url.endswith("/operators?lang=en")
    page.get_by_role("button", name=texts("en")["login.out"]).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text(texts("en")["said.logged_out"])
    page.context.close()


@pytest.mark.parametrize("width", HEIGHTS)
def test_the_pages_fit_are_readable_and_reached_by_keyboard(chromium: Browser, stage: Stage, width: int) -> None:
    page, language = window(chromium, width), LANGUAGE[width]
    log_in(page, stage)
    wrong: dict[str, list[str]] = {}
    for path in PATHS:
        page.goto(f"{stage.console.address}{path.format(key=stage.key)}?lang={language}")
        expect(page.locator("html")).to_have_attribute("lang", language)
        found = faults(page) + violations(page) + (walk(page) if width == 390 else [])
        if found:
            wrong[path] = found
    page.context.close()
    assert wrong == {}


def test_an_operator_and_a_key_are_made_without_scripts(chromium: Browser, stage: Stage) -> None:
    page, words = window(chromium, 390, scripts=False), texts("en")
    log_in(page, stage)
    page.goto(f"{stage.console.address}/operators/new?lang=en")
    page.get_by_label(words["login.name"]).fill("carol")
    page.get_by_label(words["operators.password"], exact=True).fill(PASSWORD)
    page.get_by_label(words["operators.again"]).fill(PASSWORD)
    page.get_by_role("button", name=words["operators.add"]).click()
    expect(page.locator("h1")).to_have_text("carol")
    page.goto(f"{stage.console.address}/keys")
    page.get_by_label(words["keys.label"]).fill("Scraper")
    page.get_by_role("checkbox", name=words["permission.metrics"]).check()
    page.get_by_role("button", name=words["keys.make"]).click()
    expect(page.locator(".secret")).to_contain_text(".")
    page.context.close()
