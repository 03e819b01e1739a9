"""What the console shows the world: default deny as a page, names it goes by, headers, assets, and a database that is away."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import httpx2
import pytest
from starlette.routing import Route
from tests.web.console_scene import Scene
from tests.web.console_served import Console, serving

from midsource.config import Config, InstanceConfig
from midsource.net.clock import SystemClock
from midsource.security import access
from midsource.store.database import Database
from midsource.web.api.app import ApiMount
from midsource.web.console.catalogue import LANGUAGES, texts
from midsource.web.console.face import POLICY
from midsource.web.console.routes import console_routes
from midsource.web.routing import Open

STATIC = Path(str(files("midsource.web.console"))) / "static"


@pytest.mark.parametrize("path", ["/", "/deliveries", "/deliveries/7", "/sandbox", "/nothing", "/static/x.css"])
@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_stranger_gets_a_page_that_says_how_to_get_in(console: Console, path: str, token: str) -> None:
    with console.browser(token=token) as stranger:
        answer = stranger.get(path, headers={"accept-language": "fr"})
        assert answer.status_code == 401
        assert answer.headers["content-type"].startswith("text/html")
        assert texts("fr")["login.link"].partition("`")[0] in answer.text
        assert stranger.cookies.get("midsource_console_marketing") is None
    with console.browser(token=token, accept="application/json") as program:
        assert program.get(path).json()["code"] == "MS-430"


def test_every_page_is_closed_to_strangers(console: Console) -> None:
    instance = InstanceConfig("marketing", "marketing", port=1)
    pages = console_routes(Config(console.home), instance, console.database, SystemClock())
    assert len(pages) >= 4
    with console.browser(token="") as stranger:
        for page in pages:
            assert isinstance(page, Route | ApiMount)
            if isinstance(page, Open):
                continue
            answer = stranger.get(page.path.replace("{number}", "7"))
            assert answer.status_code == 401, page.path


def test_the_token_lets_in_and_leaves_the_address(console: Console) -> None:
    with console.browser(token="") as browser:
        answer = browser.get("/deliveries", params={"token": _token(console), "lang": "pt"})
        assert (answer.status_code, str(answer.url)) == (200, f"{console.address}/deliveries?lang=pt")
        assert 'lang="pt"' in answer.text
        assert _token(console) not in answer.text
        assert browser.get("/").status_code == 200


def _token(console: Console) -> str:
    return (console.home / "keys" / "console.token").read_text().strip()


def test_only_session_and_language_are_kept_in_cookies(browser: httpx2.Client) -> None:
    answer = browser.get("/?lang=fr")
    assert "httponly" in answer.headers["set-cookie"].lower()
    assert "samesite=strict" in answer.headers["set-cookie"].lower()
    assert set(browser.cookies) == {"midsource_console_marketing", "midsource_language"}
    assert "set-cookie" not in browser.get("/").headers


def test_every_answer_has_the_policy_and_is_not_kept(browser: httpx2.Client, scene: Scene, console: Console) -> None:
    with console.browser(token="") as stranger:
        answers = [
            browser.get(path) for path in ("/", f"/deliveries/{scene.running}", "/sandbox", "/nothing", "/deliveries/x")
        ]
        answers += [stranger.get("/"), browser.post("/"), browser.get("/", headers={"host": "evil.test"})]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 404, 422, 401, 405, 421]
    for answer in answers:
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["content-type"].startswith("text/html")
        assert not re.search(r"""<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=|javascript:""", answer.text)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8100", 200), ("LOCALHOST", 200), ("127.0.0.1", 200), ("192.0.2.7:8100", 200), ("[::1]:8100", 200),
        ("console.brand.example", 200), ("evil.test", 421), ("127.0.0.1.evil.test", 421), ("localhost.evil.test", 421),
        ("[::1", 421), ("", 421), ("127.0.0.1@evil.test", 421), ("2130706433.evil.test", 421),
    ],
)  # fmt: skip
def test_the_names_it_goes_by(
    make_database: Callable[..., str], migrated: str, tmp_path: Path, free_port: int, host: str, status: int
) -> None:
    instance = InstanceConfig("marketing", "marketing", port=free_port, public_url="https://console.brand.example/x")
    with (
        Database("marketing", make_database(migrated), application="tests") as database,
        serving(Config(tmp_path, instances=(instance,)), instance, database) as address,
        Console(tmp_path, database, address).browser(token="") as browser,
    ):
        key = f"Bearer {access.token(tmp_path)}"  # the cookie of the public name is one for https
        assert browser.get("/", headers={"host": host, "authorization": key}).status_code == status


def test_a_foreign_name_gets_nothing_even_with_the_token(console: Console) -> None:
    with console.browser(token="") as browser:
        answer = browser.get("/", params={"token": _token(console)}, headers={"host": "evil.test"})
        assert answer.status_code == 421
        assert "set-cookie" not in answer.headers


def test_assets_are_open_named_by_their_content_and_kept(console: Console, browser: httpx2.Client) -> None:
    found = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', browser.get("/").text))
    assert {re.sub(r"\.[0-9a-f]{12}\.", ".", path) for path in found} == {
        "/static/console.css", "/static/production.css", "/static/console.js", "/static/htmx.min.js", "/static/mark.svg",
    }  # fmt: skip
    with console.browser(token="") as stranger:
        for path in found:
            answer = stranger.get(path)
            assert answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]
            assert hashlib.sha256(answer.content).hexdigest()[:12] in path


def test_the_vendored_file_is_the_one_that_is_recorded() -> None:
    recorded = dict(re.findall(r"\| `([^`]+)` \|.*`([0-9a-f]{64})` \|", (STATIC / "VENDORED.md").read_text()))
    assert recorded == {"htmx.min.js": hashlib.sha256((STATIC / "htmx.min.js").read_bytes()).hexdigest()}
    ours = {"console.js", "mark.svg", "VENDORED.md"} | {file.name for file in STATIC.glob("*.css")}
    assert {file.name for file in STATIC.iterdir()} == ours | recorded.keys()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("path", ["/", "/deliveries", "/deliveries/7"])
def test_a_database_that_is_away_is_said_at_once_with_its_remedy(
    tmp_path: Path, free_port: int, path: str, language: str
) -> None:
    instance = InstanceConfig("marketing", "marketing", port=free_port)
    away = "postgresql://nobody@127.0.0.1:1/nothing"
    with (
        Database("marketing", away, application="tests", wait_seconds=1) as database,
        serving(Config(tmp_path, instances=(instance,)), instance, database) as address,
        Console(tmp_path, database, address).browser() as browser,
    ):
        began = time.monotonic()
        answer = browser.get(path, params={"lang": language})
        assert time.monotonic() - began < 2
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert texts(language)["problem.503_how"] in answer.text
        assert "the database of marketing cannot be reached" in answer.text
        assert "midsource status" in answer.text
        assert browser.get("/sandbox").status_code == 200, "what needs no database is still shown"


def test_a_bug_is_a_page_without_its_traceback(console: Console, browser: httpx2.Client) -> None:
    with console.database.transaction() as conn:
        conn.execute("alter table workflow drop constraint workflow_state_check")
        conn.execute("insert into workflow (name, schedule, state) values ('x', '* * * * *', 31977)")
    answer = browser.get("/", headers={"accept-language": "pt"})
    assert answer.status_code == 500
    assert texts("pt")["problem.500"] in answer.text
    assert "Traceback" not in answer.text
    assert "31977" not in answer.text


@contextmanager
def answering(home: Path, answer: bytes) -> Iterator[None]:
    """Run something at the sandbox's port that says ``answer`` to every connection, and nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        (home / "sandbox").mkdir()
        (home / "sandbox" / "ports.json").write_text(f'{{"http": {listener.getsockname()[1]}}}')
        held = []

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                held.append(peer)
                peer.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for peer in held:
            peer.close()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "slow"),
        (b"220 mail ESMTP\r\n\r\n", "garbled"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}", "garbled"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "garbled"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + b" " * 5_000_000, "garbled"),
    ],
    ids=["silence", "no http", "another status", "another json", "too much"],
)
def test_something_else_at_the_sandboxs_port_is_said(
    console: Console, browser: httpx2.Client, answer: bytes, why: str
) -> None:
    with answering(console.home, answer):
        began = time.monotonic()
        for path in ("/sandbox", "/"):
            page = browser.get(path, params={"lang": "en"})
            assert page.status_code == 200
            assert texts("en")[f"sandbox.{why}"].format(seconds=1) in page.text
        assert time.monotonic() - began < 4
