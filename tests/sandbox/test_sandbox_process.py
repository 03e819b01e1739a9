"""The process: start, stop, kill -9, a full disk, our own sender."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.sandbox.sandbox_process import RunningSandbox, StartSandbox

from midsource.model.outcome import Attempt, Reply, Stage
from midsource.net.dialer import Endpoint, TcpDialer
from midsource.net.sender import run_connection
from midsource.net.source import TransactionQueue
from midsource.smtp.events import Transaction
from midsource.smtp.session import ClientSession

_BODY = b"Message-ID: <%s@brand.example>\r\nX-Midsource-Id: 9.%s\r\nSubject: x\r\n\r\nhi\r\n"


def _body(name: str) -> bytes:
    return _BODY.replace(b"%s", name.encode())


def test_ports_are_announced_and_gone_after_a_clean_stop(tmp_path: Path, start_sandbox: StartSandbox) -> None:
    sandbox = start_sandbox(tmp_path)
    announced = json.loads((tmp_path / "sandbox" / "ports.json").read_text())
    assert (announced["smtp"], announced["http"]) == (sandbox.smtp_port, sandbox.http_port)
    assert announced["pid"] == sandbox.process.pid
    assert announced["mx"]["gmail.example"] == "gmail-smtp-in.l.gmail.example"
    assert (tmp_path / "sandbox").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "sandbox" / "tls.pem").stat().st_mode & 0o777 == 0o600
    idle = sandbox.client()
    begin = time.monotonic()
    assert sandbox.stop() == 0
    assert time.monotonic() - begin < 5
    assert idle.getreply()[0] == 421
    idle.close()
    assert not (tmp_path / "sandbox" / "ports.json").exists()


def test_a_home_has_one_sandbox(tmp_path: Path, start_sandbox: StartSandbox) -> None:
    start_sandbox(tmp_path)
    second = subprocess.run(
        [sys.executable, "-c", f"from midsource.sandbox.app import run; from pathlib import Path; run(Path({str(tmp_path)!r}))"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert second.returncode == 1
    assert "another sandbox serves" in second.stderr.splitlines()[-1]


def test_a_taken_port_is_said_in_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code = f"from midsource.sandbox.app import run; from pathlib import Path; run(Path({str(tmp_path)!r}), {port})"
        tried = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert tried.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in tried.stderr.splitlines()[-1]


def test_kill_9_under_load_keeps_every_message_that_was_answered(tmp_path: Path, start_sandbox: StartSandbox) -> None:
    sandbox = start_sandbox(tmp_path)
    answered: list[list[str]] = [[] for _ in range(4)]

    def send(names: list[str]) -> None:
        with contextlib.suppress(OSError):  # the kill cuts the connection (SMTPException is an OSError)
            client = sandbox.client()
            for n in range(100_000):
                name = f"{id(names)}-{n}"
                client.sendmail("news@brand.example", "alice@orange.example", _body(name))
                names.append(f"{name}@brand.example")

    threads = [threading.Thread(target=send, args=(names,)) for names in answered]
    for thread in threads:
        thread.start()
    while sum(map(len, answered)) < 300:
        time.sleep(0.01)
    assert sandbox.stop(signal.SIGKILL) == -signal.SIGKILL
    for thread in threads:
        thread.join(20)
    again = start_sandbox(tmp_path)
    held = [line["message_id"] for line in again.truth("9")]
    assert len(held) == len(set(held))
    assert set(held) >= {name for names in answered for name in names}
    assert len(held) <= sum(map(len, answered)) + len(answered)  # at most one unanswered message a connection
    assert again.json("/summary.json")["distinct"] == len(held)
    assert again.send("alice@orange.example", _body("new")) == f"250 2.0.0 kept as {len(held) + 1}"


def test_a_disk_that_is_full_refuses_for_now_and_tears_nothing(tmp_path: Path, start_sandbox: StartSandbox) -> None:
    """A file size limit stands for the full disk: writes fail half-way in the same place."""
    sandbox = start_sandbox(tmp_path, file_limit=200_000)
    large = _body("large") + b"x" * 70_000 + b"\r\n"
    replies = [sandbox.send("alice@orange.example", large)[:9] for _ in range(4)]
    assert replies == ["250 2.0.0", "250 2.0.0", "452 4.3.1", "452 4.3.1"]
    assert sandbox.send("alice@orange.example", _body("small")) == "250 2.0.0 kept as 3"
    assert sandbox.json("/summary.json")["refused_since_start"] == {"storage": 2}
    assert sandbox.get("/inbox/3/raw")[2] == _body("small")
    sandbox.stop()
    assert [line["n"] for line in start_sandbox(tmp_path).truth()] == [1, 2, 3]


def test_an_index_that_cannot_be_written_refuses_what_it_does_not_hold(
    tmp_path: Path, start_sandbox: StartSandbox
) -> None:
    """Index lines are longer than these messages, so the index meets the limit first, with the body already written."""
    sandbox = start_sandbox(tmp_path, file_limit=100_000)
    client = sandbox.client()
    kept = 0
    for n in range(1000):
        client.mail("news@brand.example")
        client.rcpt("alice@orange.example")
        code = client.data(_body(f"n{n}"))[0]
        if code != 250:
            break
        kept += 1
    client.close()
    assert code == 452
    assert 100 < kept < 1000
    assert len(sandbox.truth("9")) == kept == sandbox.json("/summary.json")["distinct"]
    sandbox.stop()
    again = start_sandbox(tmp_path)
    assert len(again.truth("9")) == kept
    assert again.send("alice@orange.example", _body(f"n{kept}")) == f"250 2.0.0 kept as {kept + 1}"
    assert again.truth("9")[-1]["duplicate"] is False
    assert again.get(f"/inbox/{kept + 1}/raw")[2] == _body(f"n{kept}")


def test_a_peer_that_reads_nothing_is_not_read_for_ever(sandbox: RunningSandbox) -> None:
    """Pipelined commands whose replies nobody takes must stop being read, not fill memory."""
    with socket.create_connection(("127.0.0.1", sandbox.smtp_port)) as peer:
        peer.setblocking(False)
        sent, idle_since = 0, time.monotonic()
        while time.monotonic() - idle_since < 0.5 and sent < 100_000_000:
            try:
                sent += peer.send(b"NOOP\r\n" * 10_000)
                idle_since = time.monotonic()
            except BlockingIOError:
                time.sleep(0.01)
        assert sent < 30_000_000
    assert sandbox.send("alice@gmail.example").startswith("250 ")


class _Notes:
    """A recorder that remembers."""

    def __init__(self) -> None:
        self.started_tokens: list[int] = []
        self.attempts: dict[int, Attempt] = {}

    def may_send_body(self, token: int) -> bool:
        return True

    def started(self, token: int, go: Callable[[BaseException | None], None]) -> None:
        self.started_tokens.append(token)
        go(None)

    def finished(self, token: int, attempt: Attempt) -> None:
        self.attempts[token] = attempt


@pytest.mark.parametrize("loop", ["best", "plain"])
def test_our_own_sender_delivers_encrypted_and_the_truth_agrees(
    tmp_path: Path, start_sandbox: StartSandbox, loop: str
) -> None:
    """With uvloop where it is there, and with asyncio's own loop."""
    sandbox = start_sandbox(tmp_path, loop=loop)
    count = 200
    notes = _Notes()
    messages = [
        Transaction(n, "news@brand.example", f"p{n}@tls.example", _body(f"own-{n}").replace(b"9.own-", b"77."))
        for n in range(count)
    ]

    async def send(part: list[Transaction]) -> bool:
        queue = TransactionQueue(part)
        queue.close()
        endpoint = Endpoint("mx.tls.example", "127.0.0.1", sandbox.smtp_port)
        return (await run_connection(TcpDialer(), endpoint, ClientSession("me.example"), queue, notes)).encrypted

    async def send_all() -> list[bool]:
        return await asyncio.gather(*(send(messages[first::20]) for first in range(20)))

    assert asyncio.run(send_all()) == [True] * 20
    answers = [attempt.answer for attempt in notes.attempts.values()]
    assert {answer.code if isinstance(answer, Reply) else 0 for answer in answers} == {250}
    assert {attempt.stage for attempt in notes.attempts.values()} == {Stage.BODY}
    assert {line["id"] for line in sandbox.truth("77")} == {f"77.{n}" for n in range(count)}


@pytest.mark.parametrize("loop", ["best", "plain"])
def test_peers_that_break_off_anywhere_disturb_nobody(tmp_path: Path, start_sandbox: StartSandbox, loop: str) -> None:
    sandbox = start_sandbox(tmp_path, loop=loop)
    dialogue = b"EHLO me\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@slow.example>\r\nDATA\r\nhi\r\n.\r\nSTARTTLS\r\n"
    endings = (b"", b"EHLO me\r\nSTARTTLS\r\n", b"EHLO me\r\nSTARTTLS\r\nnot a handshake\r\n", dialogue, dialogue[:60])
    for resets in (False, True):
        for said in endings:
            for waits in (0.0, 0.02):
                with socket.create_connection(("127.0.0.1", sandbox.smtp_port)) as peer:
                    if resets:
                        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    peer.sendall(said)
                    time.sleep(waits)
    time.sleep(0.7)  # the slow provider's replies to those that left come due
    assert sandbox.process.poll() is None
    assert sandbox.send("alice@gmail.example").startswith("250 ")


def test_a_handshake_that_is_no_handshake_is_ended(sandbox: RunningSandbox) -> None:
    client = sandbox.client()
    assert client.docmd("STARTTLS")[0] == 220
    assert client.sock is not None
    client.sock.sendall(b"MAIL FROM:<evil@x.example>\r\n")
    client.sock.settimeout(10)
    left = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.sock.recv(1000):
            left += piece
    assert b"250" not in left
    client.close()
