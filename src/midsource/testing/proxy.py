"""A real TCP proxy between the halves of a test, with the faults that links have.

It reads each HTTP/1.1 request whole, asks ``fault`` what is to go wrong with it, and does that with the bytes: answers in
the mid's place, forwards and then answers otherwise (the mid has committed, the sender hears 408), cuts the request or the
answer in mid-body, delays, repeats, or passes. One request a connection. ``down`` closes the port: connections are refused.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

BUFFER = 65_536
SECONDS = 60.0
"""Longest silence on either side: a test that hangs ends by itself."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One request: its number (from 1), its method and its path with query."""

    number: int
    method: str
    path: str
    body_bytes: int


@dataclass(frozen=True, slots=True)
class Pass:
    """Forward, and give the answer back."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Do not forward; answer with this status."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b"the proxy answers\n"
    content_type: str = "text/plain"


@dataclass(frozen=True, slots=True)
class ForwardThenAnswer:
    """Let the mid do it, and tell the sender something else: the 408 after a commit."""

    status: int


@dataclass(frozen=True, slots=True)
class CutRequest:
    """Forward only so many bytes of the request, then cut both connections."""

    after_bytes: int


@dataclass(frozen=True, slots=True)
class CutAnswer:
    """Give back only so many bytes of the answer, then cut: a body larger than the proxy is willing to pass."""

    after_bytes: int


@dataclass(frozen=True, slots=True)
class Delay:
    """Wait before forwarding."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Twice:
    """Forward the request two times and give back the second answer."""


@dataclass(frozen=True, slots=True)
class CutIfLate:
    """Forward, and cut where the answer took longer than ``seconds``; ``note`` hears how long each took."""

    seconds: float
    note: Callable[[float], None]


Fault: TypeAlias = CutIfLate | Pass | Answer | ForwardThenAnswer | CutRequest | CutAnswer | Delay | Twice


def no_fault(_seen: Seen) -> Fault:
    """Let everything pass."""
    return Pass()


class FaultProxy:
    """Use as a context: listens on a loopback port of its own (``url``) and forwards to ``upstream_port``."""

    def __init__(self, upstream_port: int, fault: Callable[[Seen], Fault] = no_fault) -> None:
        self.fault = fault
        self.seen: list[Seen] = []
        self._upstream = ("127.0.0.1", upstream_port)
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """The address to give to the client."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> FaultProxy:
        """Listen."""
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self.down()

    def up(self) -> None:
        """Listen (again, on the same port)."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        listener.listen(64)
        self._port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), name="fault-proxy", daemon=True).start()

    def down(self) -> None:
        """Refuse connections from now on; those that are open go on."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(SECONDS)
        with client, contextlib.suppress(OSError):
            request = _read_request(client)
            if request is None:
                return
            head, body = request
            method, path, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
            with self._lock:
                seen = Seen(len(self.seen) + 1, method, path, len(body))
                self.seen.append(seen)
                fault = self.fault(seen)
            self._carry_out(client, fault, _with_close(head) + body)

    def _carry_out(self, client: socket.socket, fault: Fault, request: bytes) -> None:
        match fault:
            case Answer(status, headers, body, content_type):
                client.sendall(_answer(status, headers, body, content_type))
            case ForwardThenAnswer(status):
                self._forward(request)
                client.sendall(_answer(status, (), b"too late\n", "text/plain"))
            case CutRequest(after_bytes):
                with socket.create_connection(self._upstream, SECONDS) as upstream:
                    upstream.sendall(request[: min(after_bytes, len(request) - 1)])
            case CutAnswer(after_bytes):
                client.sendall(self._forward(request)[:after_bytes])
            case Delay(seconds):
                time.sleep(seconds)
                client.sendall(self._forward(request))
            case CutIfLate(seconds, note):
                began = time.monotonic()
                answer = self._forward(request)
                took = time.monotonic() - began
                note(took)
                if took <= seconds:
                    client.sendall(answer)
            case Twice():
                self._forward(request)
                client.sendall(self._forward(request))
            case Pass():
                client.sendall(self._forward(request))

    def _forward(self, request: bytes) -> bytes:
        with socket.create_connection(self._upstream, SECONDS) as upstream:
            upstream.sendall(request)
            pieces = []
            while piece := upstream.recv(BUFFER):
                pieces.append(piece)
        return b"".join(pieces)


def _read_request(client: socket.socket) -> tuple[bytes, bytes] | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(BUFFER)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    pieces, size = [body], len(body)
    while size < length:
        piece = client.recv(BUFFER)
        if not piece:
            return None
        pieces.append(piece)
        size += len(piece)
    return head, b"".join(pieces)


def _with_close(head: bytes) -> bytes:
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n"


def _answer(status: int, headers: tuple[tuple[str, str], ...], body: bytes, content_type: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status} Proxy",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
