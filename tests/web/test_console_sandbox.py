"""The sandbox page over a real sandbox: another process, real mail."""

from __future__ import annotations

import json
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import httpx2
import pytest
from tests.web.console_served import Console

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


def post(port: int, *recipients: str) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as smtp:
        for number, recipient in enumerate(recipients):
            message = EmailMessage()
            message["From"], message["To"] = "news@brand.example", recipient
            message["Subject"] = f"Olá <b>{number}</b>"
            message["Message-ID"] = f"<{number}@brand.example>"
            message.set_content("Hello")
            smtp.send_message(message)


def test_what_the_sandbox_holds_is_shown_and_leads_to_its_own_pages(
    console: Console, browser: httpx2.Client, smtp_port: int
) -> None:
    assert "No message yet." in browser.get("/sandbox?lang=en").text
    post(smtp_port, "a@gmail.example", "b@gmail.example", "c@orange.example")
    page = browser.get("/sandbox?lang=en").text
    assert page.index("c@orange.example") < page.index("b@gmail.example"), "newest first"
    assert "Olá &lt;b&gt;2&lt;/b&gt;" in page
    assert '<tr><th scope="row">gmail.example</th><td class="n">2</td></tr>' in page
    assert "3 messages held" in browser.get("/").text
    address = page.partition('href="http://127.0.0.1:')[2].partition('"')[0]
    with httpx2.Client(trust_env=False) as own:
        assert "c@orange.example" in own.get(f"http://127.0.0.1:{address}").text


def test_a_sandbox_that_has_gone_is_said(console: Console, browser: httpx2.Client, smtp_port: int) -> None:
    ports = (console.home / "sandbox" / "ports.json").read_text()
    assert "Distinct messages" in browser.get("/sandbox?lang=en").text
    (console.home / "sandbox" / "ports.json").write_text(ports.replace(str(json.loads(ports)["http"]), "1"))
    assert "The sandbox does not answer: the connection is refused." in browser.get("/sandbox").text
