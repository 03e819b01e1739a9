"""The console in a real browser: Chromium, at the widths of a phone, a tablet and a desk, in each language.

One browser for all, one page for each width. A browser is never downloaded: where there is none, these tests are skipped
and say so; ``.ci/run`` installs one where it can.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect
from tests.web.console_looks import WITNESS, faults, tab, walk
from tests.web.console_scene import Scene, fill
from tests.web.console_served import Console
from tests.web.console_window import HEIGHTS, PATIENCE_MS

from midsource.net.clock import SystemClock
from midsource.security import access
from midsource.web.console.catalogue import LANGUAGES, texts
from midsource.web.console.frame import REFRESH_SECONDS

PAGES = (
    "/",
    "/deliveries",
    "/deliveries/{running}",
    "/deliveries/{running}/log?state=61",
    "/deliveries/{cut}",
    "/sandbox",
)
REFRESHED_MS = REFRESH_SECONDS * 1_000 + PATIENCE_MS


@dataclass(frozen=True, slots=True)
class Stage:
    """A console with a history and a sandbox that does not answer."""

    console: Console
    scene: Scene

    def address(self, path: str, language: str) -> str:
        """Return the address of a page of ``PAGES`` in a language."""
        filled = path.format(running=self.scene.running, cut=self.scene.cut)
        return f"{self.console.address}{filled}{'&' if '?' in filled else '?'}lang={language}"

    def sign_in(self, page: Page) -> None:
        """Trade the token for a cookie, as whoever opens the printed address."""
        page.goto(f"{self.console.address}/?token={access.token(self.console.home)}")


@dataclass(frozen=True, slots=True)
class Window:
    """A page of one width that is signed in, and what it complained about."""

    stage: Stage
    page: Page
    complaints: list[str]

    def open(self, path: str, language: str = "en", *, status: int = 200) -> Page:
        """Open a page of the console."""
        self.complaints.clear()
        answer = self.page.goto(self.stage.address(path, language))
        assert answer is not None
        assert answer.status == status
        return self.page

    @contextmanager
    def signed_out(self) -> Iterator[None]:
        """Be a stranger for a while."""
        kept = self.page.context.cookies()
        self.page.context.clear_cookies()
        try:
            yield
        finally:
            self.page.context.clear_cookies()
            self.page.context.add_cookies(kept)  # type: ignore[arg-type]  # what it gave is what it takes


@pytest.fixture(scope="module")
def stage(stood: Console) -> Stage:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobodys = taken.getsockname()[1]
    (stood.home / "sandbox").mkdir()
    (stood.home / "sandbox" / "ports.json").write_text(json.dumps({"http": nobodys, "smtp": nobodys}))
    return Stage(stood, fill(stood.database, SystemClock().now()))


@contextmanager
def opened(chromium: Browser, stage: Stage, width: int) -> Iterator[Window]:
    context: BrowserContext = chromium.new_context(viewport={"width": width, "height": HEIGHTS[width]})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    complaints: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(f"{message.type}: {message.text}")

    def on_failure(request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # the browser gave it up itself, to open the next page
            complaints.append(f"{request.failure}: {request.url}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: complaints.append(f"thrown: {error}"))
    page.on("requestfailed", on_failure)
    page.add_init_script(WITNESS)
    stage.sign_in(page)
    yield Window(stage, page, complaints)
    context.close()


@pytest.fixture(scope="module", params=HEIGHTS, ids=lambda width: f"{width}px")
def window(request: pytest.FixtureRequest, chromium: Browser, stage: Stage) -> Iterator[Window]:
    with opened(chromium, stage, request.param) as found:
        yield found


@pytest.fixture(scope="module")
def phone(chromium: Browser, stage: Stage) -> Iterator[Window]:
    with opened(chromium, stage, 390) as found:
        yield found


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("path", PAGES)
def test_a_page_fits_and_is_readable(window: Window, path: str, language: str) -> None:
    page = window.open(path, language)
    expect(page.locator("html")).to_have_attribute("lang", language)
    expect(page.locator("nav").first).to_contain_text(texts(language)["nav.deliveries"])
    assert faults(page) == []
    assert window.complaints == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_that_refuses_fits_and_is_readable(window: Window, language: str) -> None:
    with window.signed_out():
        page = window.open("/", language, status=401)
        expect(page.locator("html")).to_have_attribute("lang", language)
        expect(page.locator("h1")).to_have_text(texts(language)["login.title"])
        assert faults(page) == []
        assert walk(page) == []
    told = [line for line in window.complaints if "401 (Unauthorized)" not in line]
    assert told == []
    assert len(window.complaints) == 1, "the refusal of the page itself, which the browser notes"


@pytest.mark.parametrize("path", PAGES)
def test_the_keyboard_reaches_everything_in_sight(window: Window, path: str) -> None:
    page = window.open(path)
    assert walk(page) == []


@pytest.mark.parametrize("path", PAGES)
def test_the_skip_link_leads_past_the_navigation(window: Window, path: str) -> None:
    page = window.open(path)
    first = tab(page)
    assert first is not None
    assert first["name"] == texts("en")["frame.skip"]
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    following = tab(page)
    assert following is not None
    assert "<nav" not in following["html"]
    assert following["inMain"] or path == "/sandbox", "a sandbox that is away leaves no link to follow"


def test_a_changed_row_appears_without_a_reload_and_leaves_the_reader_where_they_are(phone: Window) -> None:
    number = phone.stage.scene.running
    page = phone.open("/deliveries")
    page.locator("input[name=label]").fill("half a lab")
    link = page.locator(f"#live a[href='/deliveries/{number}']")
    link.focus()
    page.evaluate("window.sameDocument = true")
    with phone.stage.console.database.transaction() as conn:
        row = conn.execute(
            "update delivery set figures = jsonb_set(figures, '{sent}', to_jsonb((figures->>'sent')::int + 1)) "
            "where id = %s returning (figures->>'sent')::int", (number,),
        ).fetchone()  # fmt: skip
    assert row is not None
    line = page.locator(".deliveries li", has=page.locator(f"a[href='/deliveries/{number}']"))
    sent = line.locator(".counts div").filter(has_text=re.compile(r"^\s*sent"))
    expect(sent.locator("dd")).to_have_text(str(row[0]), timeout=REFRESHED_MS)
    assert page.evaluate("window.sameDocument")
    expect(link).to_be_focused()
    expect(page.locator("input[name=label]")).to_have_value("half a lab")
    assert faults(page) == []
    assert phone.complaints == []


def test_figures_that_are_no_longer_fresh_are_said_to_be(phone: Window) -> None:
    page = phone.open("/", "pt")
    stale = page.get_by_text(texts("pt")["frame.stale"])
    expect(stale).to_be_hidden()
    page.context.set_offline(True)
    expect(stale).to_be_visible(timeout=REFRESHED_MS)
    page.context.set_offline(False)
    expect(stale).to_be_hidden(timeout=REFRESHED_MS)


def test_the_log_is_searched_with_its_form(phone: Window) -> None:
    page = phone.open("/deliveries/{running}/log", "fr")
    words = texts("fr")
    page.get_by_label(words["log.state"]).select_option(label=words["message_state.2"])
    page.get_by_role("button", name=words["log.find"]).click()
    expect(page).to_have_url(re.compile(r"\?state=2&reason=&email=$"))
    found = page.locator(f"table.log td[data-label='{words['log.state']}']")
    assert set(found.all_inner_texts()) == {words["message_state.2"]}
    page.get_by_role("link", name=LANGUAGES["pt"]).click()
    expect(page.locator("html")).to_have_attribute("lang", "pt")
    expect(page.get_by_label(texts("pt")["log.state"])).to_have_value("2")
    assert phone.complaints == []


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("document.querySelector('h1').style.minWidth = '900px'", "900 px|in a window of 390"),
        ("document.querySelector('h1').style.color = '#777'; document.body.style.background = '#777'", "light: 1.00:1 H1"),
        ("document.querySelector('h1').insertAdjacentHTML('afterend', '<p style=\"color: red\">x')", "policy: style-src-attr"),
        ("document.querySelector('.brand').replaceChildren()", "nothing says where it leads"),
        ("document.querySelector('h2').style.width = '1rem'", "broken within a word"),
        ("document.querySelector('h1').remove()", "0 h1"),
        ("document.images[0].removeAttribute('alt')", "no alt"),
    ],
)  # fmt: skip
def test_what_is_wrong_would_be_found(phone: Window, planted: str, found: str) -> None:
    page = phone.open("/")
    page.evaluate(planted)
    assert re.search(found, " ".join(faults(page)))


def test_a_link_that_the_keyboard_cannot_reach_would_be_found(phone: Window) -> None:
    page = phone.open("/")
    page.evaluate(
        "document.querySelector('.brand').tabIndex = -1; document.querySelector('#main a').style.outline = 'none'"
    )
    wrong = walk(page)
    assert [line.partition(":")[0] for line in wrong] == ["no ring", "not reached"]
