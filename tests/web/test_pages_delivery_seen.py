"""The pages of deliveries in a real browser: three widths, three languages, axe; an order given by keyboard and without scripts."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, expect
from tests.web.console_axe import violations
from tests.web.console_looks import faults, walk
from tests.web.console_scene import Scene, fill
from tests.web.console_served import Console
from tests.web.console_window import PATIENCE_MS, signed_in

from midsource.net.clock import SystemClock
from midsource.store.database import scalar
from midsource.web.console.catalogue import texts
from midsource.web.console.frame import REFRESH_SECONDS

PATHS = (
    "/deliveries?label=news", "/deliveries/{running}", "/deliveries/{broken}", "/deliveries/{running}/log?state=2",
    "/deliveries/{cut}/trail", "/deliveries/{running}/messages/53", "/deliveries/{running}/stop", "/deliveries/{edited}/send",
)  # fmt: skip
REFRESHED_MS = REFRESH_SECONDS * 1_000 + PATIENCE_MS
LANGUAGE = {320: "fr", 768: "pt", 1280: "en"}
"""Each width in one language: the longest words on the narrowest screens."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A console with a history."""

    console: Console
    scene: Scene

    def address(self, path: str, language: str) -> str:
        """Return the address of one of ``PATHS``."""
        scene = self.scene
        filled = path.format(running=scene.running, cut=scene.cut, broken=scene.broken, edited=scene.edited)
        return f"{self.console.address}{filled}{'&' if '?' in filled else '?'}lang={language}"


@pytest.fixture(scope="module")
def stage(stood: Console) -> Stage:
    return Stage(stood, fill(stood.database, SystemClock().now()))


@pytest.mark.parametrize("width", LANGUAGE)
def test_every_page_fits_is_readable_and_without_barriers(stage: Stage, chromium: Browser, width: int) -> None:
    page = signed_in(chromium, stage.console, width)
    wrong = {}
    for path in PATHS:
        answer = page.goto(stage.address(path, LANGUAGE[width]))
        assert answer is not None
        assert answer.status == 200
        wrong[path] = [*faults(page), *violations(page)]
    page.context.close()
    assert {path: found for path, found in wrong.items() if found} == {}


def ordered(stage: Stage, number: int) -> object:
    with stage.console.database.connection() as conn:
        return scalar(conn, "select ordered from delivery where id = %s", (number,))


def test_stopping_by_keyboard_asks_first(stage: Stage, chromium: Browser) -> None:
    page, words = signed_in(chromium, stage.console, 1280), texts("en")
    page.goto(stage.address("/deliveries/{running}", "en"))
    assert walk(page) == []
    page.get_by_role("link", name=words["order.stop"]).focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text(words["order.stop_title"].format(label="Newsletter of November"))
    assert ordered(stage, stage.scene.running) == "start"
    page.get_by_role("link", name=words["order.not"]).click()
    expect(page.get_by_role("button", name=words["order.pause"])).to_be_visible()
    page.get_by_role("button", name=words["order.pause"]).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text=words["said.delivery_pause"])).to_be_visible()
    assert ordered(stage, stage.scene.running) == "pause"
    page.context.close()


def test_without_scripts_an_order_is_given_all_the_same(stage: Stage, chromium: Browser) -> None:
    page, words = signed_in(chromium, stage.console, 390, scripts=False), texts("fr")
    page.goto(stage.address("/deliveries/{cut}", "fr"))
    page.get_by_role("button", name=words["order.resume"]).click()
    expect(page.get_by_text(words["said.delivery_resume"])).to_be_visible()
    assert ordered(stage, stage.scene.cut) == "resume"
    page.goto(stage.address("/deliveries/{edited}", "fr"))
    page.get_by_role("link", name=words["order.send"]).click()
    page.get_by_role("button", name=words["order.prepare_and_send"]).click()
    expect(page.get_by_text(words["said.delivery_send"])).to_be_visible()
    page.context.close()


def test_the_log_is_downloaded_as_csv(stage: Stage, chromium: Browser) -> None:
    page, words = signed_in(chromium, stage.console, 768), texts("en")
    page.goto(stage.address("/deliveries/{running}/log?state=62", "en"))
    with page.expect_download() as download:
        page.get_by_role("button", name=words["log.export"]).click()
    lines = download.value.path().read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("id,email,status,state")
    assert {line.split(",")[3] for line in lines[1:]} == {"uncertain"}
    page.context.close()


def test_what_was_unfolded_stays_unfolded_when_the_figures_are_refreshed(stage: Stage, chromium: Browser) -> None:
    number, page, words = stage.scene.running, signed_in(chromium, stage.console, 768), texts("en")
    with stage.console.database.transaction() as conn:
        conn.execute("insert into delivery_stat_read (delivery_id, read_at, domains) values (%s, now(), 1)", (number,))
        conn.execute(
            "insert into delivery_stat (delivery_id, domain, state, reason, n) values (%s, 'd.test', 1, 0, 3)",
            (number,),
        )
    page.goto(stage.address("/deliveries/{running}", "en"))
    fold = page.locator("#live details", has=page.get_by_text(words["compared.by_domain"]))
    fold.locator("summary").click()
    first = fold.element_handle()
    assert first is not None
    page.wait_for_function("gone => !gone.isConnected", arg=first, timeout=REFRESHED_MS)
    expect(fold.locator("table")).to_be_visible()
    expect(fold.locator("summary")).to_be_focused()
    page.context.close()
