"""A tour through every page of both consoles with 0, 1 and 1 000 000 rows, the other half down: ``make tour``.

The pages are found by following links from the menu, one for each kind of page (numbers and names apart), so that a new page
is toured without being listed. Each is asked for over and over, then looked at in each width, language and colour scheme by a
real browser and by axe. Pictures of all of them lie in the folder TOUR names (default: tour) for somebody to look at, each
console's beside its ``times.md``. Not part of ``make test``: a million rows take minutes; its name keeps it from being collected.
"""

from __future__ import annotations

import re
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

import pytest
from playwright.sync_api import Browser
from tests.web.console_axe import violations
from tests.web.console_looks import faults
from tests.web.console_scene import fill
from tests.web.console_served import Console, serving
from tests.web.console_window import HEIGHTS, signed_in
from tests.web.test_pages_mid import batch, deliver

from midsource.cli.worker import works_of
from midsource.config import Config, InstanceConfig, environment
from midsource.mid import accounts
from midsource.net.clock import SystemClock
from midsource.store.database import Database
from midsource.web.console.catalogue import LANGUAGES

pytestmark = pytest.mark.timeout(3_600)
ROWS = (0, 1, int(environment().get("ROWS", "1000000")))
FOLDER = Path(environment().get("TOUR", "tour"))
MAX_SECONDS = 0.2
"""Of the median of TIMES answers: what a page may take."""
TIMES = 5
MAX_PAGES = 120
"""Of one console; there are some seventy."""
STATES = 5
"""Deliveries, and workflows, of different states: their pages look different."""
FILLING_SECONDS = 1_200
_LINK = re.compile(r'href="(/[^"#]*)"')
_OWN = re.compile(
    r"\d{3,}|(?<=/)\d+(?=/|$|\?)|(?<=workflows/)[^/?]+|(?<=options/)[^/?]+|(?<=brands/)[^/?]+|(?<==)[^&]+"
)
"""What differs between pages of one kind: numbers and names."""
_MANY_FACES = ("/deliveries/·", "/workflows/·")
_LEAVES = ("/static", "/log-out", "/api/v1/openapi", "/export", "/metrics", "/healthz", "/readyz")
"""No pages, or the way out."""


@dataclass(frozen=True, slots=True)
class Tour:
    """A console with so many rows, and the page of each kind that links lead to."""

    name: str
    console: Console
    paths: tuple[str, ...]


@pytest.fixture(scope="module", params=[(role, rows) for role in ("marketing", "mid") for rows in ROWS], ids=str)
def tour(
    request: pytest.FixtureRequest,
    make_database: Callable[..., str],
    migrated: str,
    migrated_mid: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Tour]:
    role, rows = request.param
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    name = "marketing" if role == "marketing" else "mid1"
    home, instance = tmp_path_factory.mktemp("home"), InstanceConfig(name, role, port=port)
    url = make_database(migrated if role == "marketing" else migrated_mid)
    with Database(name, f"{url}", application="tests", max_connections=4) as database:
        _fill(database, role, rows)
        with serving(Config(home, instances=(instance,)), instance, database) as address:
            console = Console(home, database, address)
            yield Tour(f"{role}-{rows}", console, tuple(_found(console)))


def _fill(database: Database, role: Literal["marketing", "mid"], rows: int) -> None:
    if rows and role == "marketing":
        fill(database, SystemClock().now(), rows, seconds=FILLING_SECONDS)
    elif rows:
        with database.transaction(statement_seconds=FILLING_SECONDS) as conn:
            account, _ = accounts.create(conn, "brand")
            number = deliver(conn, account, 1, 55, rows)
            batch(conn, account, number, "gmail.example", range(1, min(rows, 500) + 1), wait=60)
    with database.connection() as conn:
        for module in works_of(role).workflows:  # as a worker does when it starts
            conn.execute(
                "insert into workflow (name, schedule) values (%s, %s) on conflict do nothing",
                (module.NAME, module.SCHEDULE),
            )
        conn.execute("vacuum analyze")


def _found(console: Console) -> list[str]:
    """Follow every link of the console; return the first page of each kind, in the order found."""
    found: dict[str, str] = {}
    seen: Counter[str] = Counter()
    with console.browser() as client:
        waiting = deque(["/"])
        while waiting and len(found) < MAX_PAGES:
            path = waiting.popleft()
            kind = _OWN.sub("·", path)
            if path in found or path.startswith(_LEAVES) or seen[kind] >= (STATES if kind in _MANY_FACES else 1):
                continue
            answer = client.get(path)
            assert answer.status_code == 200, f"{path}: {answer.status_code}"
            if not answer.headers["content-type"].startswith("text/html"):
                continue
            found[path] = kind
            seen[kind] += 1
            waiting += [link.replace("&amp;", "&") for link in _LINK.findall(answer.text) if "lang=" not in link]
    assert len(found) < MAX_PAGES, "more pages than the tour has room for"
    return list(found)


def test_each_page_is_answered_in_time(tour: Tour) -> None:
    lines, late = [f"# {tour.name}\n\n| page | ms, median of {TIMES} | kB |\n|---|---:|---:|"], []
    with tour.console.browser() as client:
        for path in tour.paths:
            seconds = []
            for _ in range(TIMES):
                began = time.monotonic()
                answer = client.get(path)
                seconds.append(time.monotonic() - began)
            lines.append(f"| `{path}` | {median(seconds) * 1_000:.0f} | {len(answer.content) / 1_000:.0f} |")
            if median(seconds) > MAX_SECONDS:
                late.append(lines[-1])
    folder = FOLDER / tour.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "times.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert not late, f"longer than {MAX_SECONDS} s: {late}"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("width", HEIGHTS, ids=lambda width: f"{width}px")
def test_each_page_fits_and_is_readable(tour: Tour, chromium: Browser, width: int, language: str) -> None:
    folder = FOLDER / tour.name / f"{width}-{language}"
    folder.mkdir(parents=True, exist_ok=True)
    wrong = []
    page = signed_in(chromium, tour.console, width)
    for number, path in enumerate(tour.paths):
        answer = page.goto(f"{tour.console.address}{path}{'&' if '?' in path else '?'}lang={language}")
        assert answer is not None
        found = [f"status {answer.status}"] if answer.status != 200 else [*faults(page), *violations(page)]
        wrong += [f"{path}: {line}" for line in found]
        page.screenshot(path=folder / f"{number:03}.png", animations="disabled")
    page.context.close()
    assert not wrong, "\n".join(wrong)
