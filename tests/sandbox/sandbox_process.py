"""A sandbox in a process of its own, as an operator runs it."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import smtplib
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_MAIN = """
import sys, resource
if sys.argv[3] == "plain":
    sys.modules["uvloop"] = None
from pathlib import Path
from midsource.sandbox.app import run
if int(sys.argv[2]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
run(Path(sys.argv[1]), ready=lambda smtp, http: print(f"ready {smtp} {http}", flush=True))
"""


@dataclass(slots=True)
class RunningSandbox:
    """A sandbox process and how to talk to it."""

    home: Path
    process: subprocess.Popen[str]
    smtp_port: int
    http_port: int

    def client(self) -> smtplib.SMTP:
        """Return a connected client that has said EHLO."""
        client = smtplib.SMTP("127.0.0.1", self.smtp_port, timeout=20)
        client.ehlo("test.example")
        return client

    def send(self, rcpt: str, body: bytes = b"Subject: hello\r\n\r\nhi\r\n", sender: str = "news@brand.example") -> str:
        """Send one message on a connection of its own; return the reply, or 'lost'."""
        client = self.client()
        try:
            code, text = client.mail(sender)
            if code < 400:
                code, text = client.rcpt(rcpt)
            if code < 400:
                code, text = client.data(body)
            return f"{code} {text.decode()}"
        except smtplib.SMTPServerDisconnected:
            return "lost"
        finally:
            client.close()

    def get(
        self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET"
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers in lower case, content."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=20)) as connection:
            connection.request(method, path, headers=dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def json(self, path: str) -> Any:
        """Return what a JSON path answers."""
        status, _, content = self.get(path)
        assert status == 200, content
        return json.loads(content)

    def truth(self, delivery: str = "") -> list[dict[str, Any]]:
        """Return the sink's own account."""
        return [json.loads(line) for line in self.get(f"/truth.ndjson?delivery={delivery}")[2].splitlines()]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End the process; return its exit status."""
        self.process.send_signal(how)
        return self.process.wait(20)


StartSandbox = Callable[..., RunningSandbox]


@contextlib.contextmanager
def sandbox_starter() -> Iterator[StartSandbox]:
    running: list[RunningSandbox] = []

    def start(home: Path, *, file_limit: int = 0, loop: str = "best") -> RunningSandbox:
        process = subprocess.Popen(
            [sys.executable, "-c", _MAIN, str(home), str(file_limit), loop], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if line.startswith("ready "):
                break
        else:
            pytest.fail(f"the sandbox ended with {process.wait(20)}: {''.join(seen)}")
        _, smtp, pages = seen[-1].split()
        running.append(RunningSandbox(home, process, int(smtp), int(pages)))
        return running[-1]

    yield start
    for one in running:
        one.process.kill()
        one.process.wait(20)
        if one.process.stdout:
            one.process.stdout.close()
