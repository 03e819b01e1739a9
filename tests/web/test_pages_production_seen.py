"""The pages of production and of a mid in a real browser: three widths, three languages, light and dark, axe."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.web.console_axe import violations
from tests.web.console_looks import WITNESS, faults, walk
from tests.web.console_scene import ACCOUNT, fill
from tests.web.console_served import serving
from tests.web.console_window import HEIGHTS, PATIENCE_MS
from tests.web.test_console_sandbox import SANDBOX, START_SECONDS, post
from tests.web.test_pages_mid import batch, deliver

from midsource.config import Config, InstanceConfig
from midsource.mid import accounts
from midsource.net.clock import SystemClock
from midsource.security import access
from midsource.store.database import Database

PATHS = (
    "/workflows?journal=defaultMidSourcingLog", "/workflows/defaultMidSourcingLog", "/workflows/defaultMidSourcingLog/stop",
    "/workflows/defaultMidSourcingLog/schedule", "/restart-workflows?scheduled=yes", "/concurrency?day=2026-10-25&zone=Europe/Paris", "/options",
    "/options/NmsEmail_RetryPeriod", "/accounts", f"/accounts/{ACCOUNT}", f"/accounts/{ACCOUNT}/off", "/add-account",
    "/processes", "/processes/stop?name=worker@marketing.2", "/sandbox", "/sandbox/1",
)  # fmt: skip
MID_PATHS = ("/", "/deliveries", "/deliveries/brand/{delivery}", "/accounts", "/options")
LANGUAGE = {390: "pt", 768: "fr", 1280: "en"}
"""Each width in another language: the longest words on the narrowest screen."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Both consoles of one home, and a delivery on the mid."""

    home: Path
    marketing: str
    mid: str
    delivery: int

    def addresses(self, language: str) -> list[str]:
        """Return the address of every page."""
        own = [f"{self.marketing}{path}" for path in PATHS]
        mid = [f"{self.mid}{path.format(delivery=self.delivery)}" for path in MID_PATHS]
        return [f"{address}{'&' if '?' in address else '?'}lang={language}" for address in (*own, *mid)]


@contextmanager
def sandbox_of(home: Path) -> Iterator[None]:
    """Run the sandbox of a home, with a message in it."""
    ports = home / "sandbox" / "ports.json"
    with subprocess.Popen([sys.executable, "-c", SANDBOX, str(home)], stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + START_SECONDS
        while not ports.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        post(json.loads(ports.read_text())["smtp"], "ana.de.vasconcelos@sapo.example", alternative="<h1>Bom dia</h1>")
        yield
        process.terminate()


def _waiting(database: Database) -> int:
    with database.transaction() as conn:
        account, _ = accounts.create(conn, "brand")
        number = deliver(conn, account, 1, 55, 900)
        batch(conn, account, number, "gmail.example", range(1, 401), wait=-300)
        batch(conn, account, number, "greylist.example", range(401, 801), wait=600)
        conn.execute("update message set reply = '451 4.7.1 greylisted', state = 61, attempts = 1 where id = 401")
        return number


@pytest.fixture(scope="module")
def stage(
    make_database: Callable[..., str],
    migrated: str,
    migrated_mid: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    home, now = tmp_path_factory.mktemp("home"), SystemClock().now()
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = one.getsockname()[1], other.getsockname()[1]
    ours, theirs = InstanceConfig("marketing", "marketing", port=ports[0]), InstanceConfig("mid1", "mid", port=ports[1])
    config = Config(home, instances=(ours, theirs))
    with (
        Database("marketing", make_database(migrated), application="tests", max_connections=4) as marketing,
        Database("mid1", make_database(migrated_mid), application="tests", max_connections=4) as mid,
        sandbox_of(home),
        serving(config, ours, marketing) as here,
        serving(config, theirs, mid) as there,
    ):
        fill(marketing, now)
        with marketing.transaction() as conn:
            conn.execute(
                "insert into workflow_run (workflow, asked_at, started_at, finished_at, outcome, rows_read, error, error_class) "
                "select 'defaultMidSourcingLog', %(at)s, %(at)s, %(at)s::timestamptz + n * interval '7 s', "
                "case when n %% 5 = 0 then 'failed' else 'finished' end, n * 100000, "
                "case when n %% 5 = 0 then 'the mid did not answer' else '' end, 'LinkFailure' from generate_series(1, 25) n",
                {"at": now - timedelta(hours=1)},
            )
            conn.execute(
                "insert into workflow_journal (workflow, level, line) values ('defaultMidSourcingLog', 'error', 'it failed')"
            )
        yield Stage(home, here, there, _waiting(mid))


@contextmanager
def signed_in(stage: Stage, chromium: Browser, width: int) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": width, "height": HEIGHTS[width]})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.add_init_script(WITNESS)
    for address in (stage.marketing, stage.mid):
        page.goto(f"{address}/?token={access.token(stage.home)}")
    yield page
    context.close()


@pytest.mark.parametrize("width", HEIGHTS)
def test_every_page_fits_and_is_readable(stage: Stage, chromium: Browser, width: int) -> None:
    wrong: list[str] = []
    with signed_in(stage, chromium, width) as page:
        for address in stage.addresses(LANGUAGE[width]):
            answer = page.goto(address)
            assert answer is not None
            assert answer.status == 200, address
            found = faults(page)
            if width == 768:
                found += violations(page)
            wrong += [f"{address}: {fault}" for fault in found]
    assert not wrong, "\n".join(wrong)


def test_the_keyboard_reaches_everything_of_the_fullest_pages(stage: Stage, chromium: Browser) -> None:
    with signed_in(stage, chromium, 1280) as page:
        for path in ("/workflows/defaultMidSourcingLog", f"/accounts/{ACCOUNT}"):
            page.goto(f"{stage.marketing}{path}?lang=en")
            assert walk(page) == []


def test_the_link_is_tried_with_one_press(stage: Stage, chromium: Browser) -> None:
    with signed_in(stage, chromium, 390) as page:
        page.goto(f"{stage.marketing}/accounts/{ACCOUNT}?lang=fr")
        page.get_by_role("button", name="Tester la connexion").click()
        expect(page.get_by_role("heading", name="La connexion, pas à pas")).to_be_visible()
        assert faults(page) == []


def test_a_mail_is_shown_in_its_frame(stage: Stage, chromium: Browser) -> None:
    with signed_in(stage, chromium, 1280) as page:
        page.goto(f"{stage.marketing}/sandbox?lang=en")
        page.get_by_role("link", name="ana.de.vasconcelos@sapo.example").click()
        expect(page.frame_locator("iframe.mail").get_by_role("heading", name="Bom dia")).to_be_visible()
