"""Windows of a real browser: which one, how large, how patient."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from tests.web.console_looks import WITNESS
from tests.web.console_served import Console

from midsource.security import access

BROWSERS = ("/usr/bin/chromium", "chromium", "google-chrome")
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
HEIGHTS = {390: 844, 768: 1024, 1280: 800}
"""By width."""
PATIENCE_MS = 10_000
"""For what is due at once; a machine under load takes its time."""


@contextmanager
def launched() -> Iterator[Browser]:
    """Open the browser of this machine; skips, loudly, where there is none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"NO BROWSER: these pages are not tested as people see them; install one of {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(ARGUMENTS))
        yield browser
        browser.close()


def window(browser: Browser, width: int, *, scripts: bool = True) -> Page:
    """Open a window of that width, in a context of its own, that notes what the content policy refuses."""
    viewport = {"width": width, "height": HEIGHTS.get(width, 700)}
    context = browser.new_context(viewport=viewport, java_script_enabled=scripts)  # type: ignore[arg-type]  # what it takes
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    if scripts:
        page.add_init_script(WITNESS)
    return page


def signed_in(browser: Browser, console: Console, width: int, *, scripts: bool = True) -> Page:
    """Open a window that has traded the home's token for its cookie and has fetched all of the page that this leads to."""
    page = window(browser, width, scripts=scripts)
    page.goto(f"{console.address}/?token={access.token(console.home)}", wait_until="networkidle")
    return page
