"""The sandbox page over a real sandbox: another process, real mail."""

from __future__ import annotations

import asyncio
import json
import re
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import httpx2
import pytest
from tests.web.console_scene import HOSTILE
from tests.web.console_served import Console

from midsource.config import Config, InstanceConfig, SandboxConfig
from midsource.web.console.pages.inbox import Inbox, Unreachable

SANDBOX = "import sys; from pathlib import Path; from midsource.sandbox.app import run; run(Path(sys.argv[1]))"
START_SECONDS = 30


@pytest.fixture
def smtp_port(console: Console) -> Iterator[int]:
    """Run the sandbox of the console's home."""
    ports = console.home / "sandbox" / "ports.json"
    with subprocess.Popen([sys.executable, "-c", SANDBOX, str(console.home)], stdout=subprocess.DEVNULL) as process:
        try:
            yield _smtp_port(ports, process)
        finally:
            process.terminate()
    assert process.returncode == 0


def _smtp_port(ports: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + START_SECONDS
    while not ports.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    port: int = json.loads(ports.read_text())["smtp"]
    return port


def post(port: int, *recipients: str, alternative: str = "") -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as smtp:
        for number, recipient in enumerate(recipients):
            message = EmailMessage()
            message["From"], message["To"] = "news@brand.example", recipient
            message["Subject"] = f"Olá <b>{number}</b>"
            message["Message-ID"] = f"<{number}@brand.example>"
            message.set_content("Hello")
            if alternative:
                message.add_alternative(alternative, subtype="html")
            smtp.send_message(message)


def test_what_the_sandbox_holds_is_shown_and_found_again(
    console: Console, browser: httpx2.Client, smtp_port: int
) -> None:
    assert "No message yet." in browser.get("/sandbox?lang=en").text
    post(smtp_port, "a@gmail.example", "b@gmail.example", "c@orange.example")
    page = browser.get("/sandbox?lang=en").text
    assert page.index("c@orange.example") < page.index("b@gmail.example"), "newest first"
    assert "Olá &lt;b&gt;2&lt;/b&gt;" in page
    assert re.search(r'href="/sandbox\?domain=gmail.example">gmail.example</a></th><td class="n">2</td>', page)
    assert re.search(r'takes everything</th><td class="n">3</td>', page)
    assert "3 messages held" in browser.get("/").text
    found = browser.get("/sandbox", params={"q": "A@GMAIL", "domain": "gmail.example"}).text
    assert 'value="A@GMAIL"' in found
    assert re.findall(r'href="(/sandbox/\d+)"', found) == ["/sandbox/1"]
    assert "No message matches" in browser.get("/sandbox", params={"q": HOSTILE}).text
    assert HOSTILE not in browser.get("/sandbox", params={"q": HOSTILE}).text
    older = browser.get("/sandbox", params={"after": "3"}).text
    assert re.findall(r'href="(/sandbox/\d+)"', older) == ["/sandbox/2", "/sandbox/1"]
    assert browser.get("/sandbox", params={"after": "x"}).status_code == 422


def test_one_message_is_shown_in_a_frame_without_any_right(
    console: Console, browser: httpx2.Client, smtp_port: int
) -> None:
    post(smtp_port, "a@gmail.example", alternative=f"<p>Bonjour</p>{HOSTILE}<img src='https://far.example/x.png'>")
    page = browser.get("/sandbox/1?lang=en")
    assert page.status_code == 200
    assert HOSTILE not in page.text
    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in page.text
    assert "frame-src 'self'" in page.headers["content-security-policy"]
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "&lt;0@brand.example&gt;" in page.text
    framed = browser.get("/sandbox/1/html")
    policy = framed.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-popups")
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert "frame-ancestors 'self'" in policy
    assert "<p>Bonjour</p>" in framed.text
    raw = browser.get("/sandbox/1/raw")
    assert raw.headers["content-type"].startswith("text/plain")
    assert "Message-ID: <0@brand.example>" in raw.text
    for absent in ("/sandbox/2", "/sandbox/2/html", "/sandbox/2/raw"):
        assert browser.get(absent).status_code == 404
    assert browser.get("/sandbox/x").status_code == 422


def test_a_sandbox_that_has_gone_is_said(console: Console, browser: httpx2.Client, smtp_port: int) -> None:
    ports = (console.home / "sandbox" / "ports.json").read_text()
    assert "Distinct messages" in browser.get("/sandbox?lang=en").text
    (console.home / "sandbox" / "ports.json").write_text(ports.replace(str(json.loads(ports)["http"]), "1"))
    assert "The sandbox does not answer: the connection is refused." in browser.get("/sandbox").text


@pytest.mark.parametrize("is_enabled", [True, False])
def test_a_sandbox_that_was_stopped_is_told_from_none(tmp_path: Path, is_enabled: bool) -> None:
    mid = InstanceConfig("mid1", "mid", port=1)
    found = asyncio.run(Inbox(Config(tmp_path, instances=(mid,), sandbox=SandboxConfig(is_enabled))).look(None))
    assert found == (Unreachable("stopped", {"name": "sandbox@mid1"}) if is_enabled else Unreachable("absent", {}))
