"""One time limit for a whole HTTP exchange: waiting for a connection, connecting, TLS, sending, headers and body of the answer.

The library limits each single read and write, takes any number of answers 100 and 100 kB of headers: a byte now and then would hold a
thread for ever. Here what is left of the whole is the limit of each step. With a request the *read* time-out says the whole, *connect* how
much of it connecting may take. What is not in our hands is the look-up of a name: the system's resolver has limits of its own.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterable
from typing import Any

import httpcore2
import httpx2

from midsource.model.clock import Clock

MOST_ADDRESSES = 8
"""Addresses of one host that are tried; more only wait for what is left."""


class WholeTransport(httpx2.HTTPTransport):
    """Give it to a client as ``transport``; ``verify`` None is for plain HTTP only.

    For several threads: the limit is that of the thread's own exchange.
    """

    def __init__(self, clock: Clock, verify: ssl.SSLContext | None, limits: httpx2.Limits | None = None) -> None:
        super().__init__(verify=verify or False, trust_env=False, limits=limits or httpx2.Limits())
        self._left = _Left(clock)
        # A pool takes the maker of its sockets, and the library has no other way to hand it over; a test holds its deadline.
        self._pool._network_backend = _Backend(self._left)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Begin an exchange; its time runs until its answer is read."""
        self._left.begin(request.extensions["timeout"]["read"])
        return super().handle_request(request)


class _Left(threading.local):
    """What is left of the exchange of this thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = 0.0

    def begin(self, seconds: float) -> None:
        self._until = self._clock.boot_seconds() + seconds

    def of(self, timeout: float | None, over: type[httpcore2.TimeoutException]) -> float:
        """Return how long the next step may take, more than 0; raises ``over`` where nothing is left."""
        left = self._until - self._clock.boot_seconds()
        if left <= 0:
            raise over("the time for the whole exchange is over")
        return left if timeout is None else min(timeout, left)


class _Backend(httpcore2.NetworkBackend):
    """Opens the sockets of a pool."""

    def __init__(self, left: _Left) -> None:
        self._left = left
        self._plain = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first address that takes the connection."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as exc:
            raise httpcore2.ConnectError(str(exc)) from exc
        failure: Exception = httpcore2.ConnectError(f"{host} has no address")
        for address in [str(entry[4][0]) for entry in found[:MOST_ADDRESSES]]:
            seconds = self._left.of(timeout, httpcore2.ConnectTimeout)
            try:
                stream = self._plain.connect_tcp(address, port, seconds, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as exc:
                failure = exc
            else:
                return _Stream(stream, self._left)
        raise failure


class _Stream(httpcore2.NetworkStream):
    """A connection; whichever exchange uses it, its steps have what is left of that one."""

    def __init__(self, plain: httpcore2.NetworkStream, left: _Left) -> None:
        self._plain = plain
        self._left = left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there."""
        return self._plain.read(max_bytes, self._left.of(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of it; the library would give each piece that the system takes the whole time."""
        sock = self._plain.get_extra_info("socket")
        view = memoryview(buffer)
        while view:
            sock.settimeout(self._left.of(timeout, httpcore2.WriteTimeout))
            try:
                view = view[sock.send(view) :]
            except TimeoutError as exc:
                raise httpcore2.WriteTimeout(str(exc)) from exc
            except OSError as exc:
                raise httpcore2.WriteError(str(exc)) from exc

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """Shake hands: one step, whose time is that of all its reads and writes."""
        seconds = self._left.of(timeout, httpcore2.ConnectTimeout)
        return _Stream(self._plain.start_tls(ssl_context, server_hostname, seconds), self._left)

    def close(self) -> None:
        """Close it."""
        self._plain.close()

    def get_extra_info(self, info: str) -> Any:
        """Return what the library asks of its sockets."""
        return self._plain.get_extra_info(info)
