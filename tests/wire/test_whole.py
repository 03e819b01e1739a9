"""The time of a whole exchange, held by both clients against whoever says or takes a little at a time: real sockets."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from midsource.model.errors import RemoteUnavailable
from midsource.net import egress
from midsource.net.clock import SystemClock
from midsource.net.egress import Egress
from midsource.sandbox.certificate import make_tls
from midsource.testing.listener import Listener
from midsource.wire import client
from midsource.wire.client import MidClient, Timeouts

SECONDS = 0.6
GAP = 0.05
Serve = Callable[[socket.socket], None]
Call = Callable[[str, ssl.SSLContext | None], object]


def ask_mid(url: str, verify: ssl.SSLContext | None = None) -> object:
    with MidClient(url, "abc.secret", SystemClock(), timeouts=Timeouts(call=SECONDS), verify=verify) as mid:
        return mid.hello()


def post_hook(url: str, verify: ssl.SSLContext | None = None) -> object:
    return Egress(SystemClock(), private=True, verify=verify).post(url + "/hook", b"{}", {})


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "REQUEST_SECONDS", SECONDS)


@contextmanager
def serving(serve: Serve) -> Iterator[str]:
    """Serve one connection after the other as told; whoever goes away in the middle ends only its own."""

    def guarded(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            serve(connection)

    with Listener(guarded) as listener:
        yield f"http://localhost:{listener.port}"


def drip(pieces: Iterator[bytes]) -> Serve:
    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(GAP)

    return serve


def status_line() -> Iterator[bytes]:
    yield from (bytes([byte]) for byte in b"HTTP/1.1 200 OK\r\n")
    while True:
        yield b"X-More: and more\r\n"


@pytest.mark.parametrize("call", [ask_mid, post_hook])
@pytest.mark.parametrize(
    "pieces",
    [
        status_line,
        lambda: itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
        lambda: itertools.chain([b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"], itertools.repeat(b" ")),
    ],
    ids=["headers", "continue", "body"],
)
def test_a_peer_that_says_a_little_at_a_time(pieces: Callable[[], Iterator[bytes]], call: Call) -> None:
    with serving(drip(pieces())) as url:
        begun = time.monotonic()
        with pytest.raises(RemoteUnavailable, match="did not answer within"):
            call(url, None)
    assert time.monotonic() - begun < 2 * SECONDS


@pytest.mark.parametrize("call", [ask_mid, post_hook])
def test_a_peer_whose_tls_says_a_little_at_a_time(call: Call, tmp_path: Path) -> None:
    """The header of a TLS record, and then its bytes one by one: connecting has its part of the whole, and no more."""
    make_tls(tmp_path, "localhost", SystemClock().now())
    verify = ssl.create_default_context(cafile=str(tmp_path / "tls.pem"))
    with serving(drip(itertools.chain([b"\x16\x03\x03\x40\x00"], itertools.repeat(b"\x02")))) as url:
        begun = time.monotonic()
        with pytest.raises(RemoteUnavailable):
            call(url.replace("http:", "https:"), verify)
    assert time.monotonic() - begun < 2 * SECONDS


def test_a_peer_that_takes_a_little_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece the system takes is progress, and buys no time."""
    monkeypatch.setattr(client, "SLOWEST_BYTES_SECOND", 100_000_000)

    def serve(connection: socket.socket) -> None:
        while connection.recv(50_000):
            time.sleep(GAP / 5)

    body = b"x" * 20_000_000
    with (
        serving(serve) as url,
        MidClient(url, "abc.secret", SystemClock(), timeouts=Timeouts(part=SECONDS)) as mid,
    ):
        begun = time.monotonic()
        with pytest.raises(RemoteUnavailable, match="did not answer within"):
            mid.put_part(1, "1", body, "h")
    assert time.monotonic() - begun < 2 * SECONDS


def test_a_large_part_has_time_for_a_slow_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a body takes at the slowest speed comes on top of the answer's time."""
    monkeypatch.setattr(client, "SLOWEST_BYTES_SECOND", 500_000)
    size = 1_500_000

    def serve(connection: socket.socket) -> None:
        left = size
        while left > 0:
            left -= len(connection.recv(size // 30))
            time.sleep(SECONDS / 15)
        connection.sendall(b"HTTP/1.1 503 later\r\nContent-Length: 0\r\n\r\n")

    begun = time.monotonic()
    with (
        serving(serve) as url,
        MidClient(url, "abc.secret", SystemClock(), timeouts=Timeouts(part=SECONDS)) as mid,
        pytest.raises(RemoteUnavailable, match="HTTP 503"),
    ):
        mid.put_part(1, "1", b"x" * size, "h")
    assert time.monotonic() - begun > SECONDS


def test_each_thread_has_its_own_time() -> None:
    """Two threads with one client: the second begins when half of the first one's time is over, and has all of its own."""

    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        time.sleep(SECONDS * 0.8)
        connection.sendall(b"HTTP/1.1 503 later\r\nContent-Length: 0\r\n\r\n")

    said: list[str] = []

    def ask(mid: MidClient) -> None:
        try:
            mid.hello()
        except RemoteUnavailable as exc:
            said.append(str(exc.status))

    with (
        serving(serve) as url,
        MidClient(url, "abc.secret", SystemClock(), timeouts=Timeouts(call=SECONDS)) as mid,
    ):
        threads = [threading.Thread(target=ask, args=(mid,)) for _ in range(2)]
        for thread in threads:
            thread.start()
            time.sleep(SECONDS / 2)
        for thread in threads:
            thread.join()
    assert said == ["503", "503"]
