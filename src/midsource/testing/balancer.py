"""A TCP balancer before the same web process of two machines: each new connection goes to the next one that takes it.

As an operator has one before two machines (HAProxy, a cloud's): it knows nothing of what passes, and notices that a
machine is gone only by being refused.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Sequence

from midsource.testing.listener import Listener

BUFFER = 65_536
CONNECT_SECONDS = 2.0
SILENCE_SECONDS = 60.0
"""Longest silence on a connection: a test that hangs ends by itself."""


class Balancer:
    """Use as a context; listens on a loopback port of its own (``port``). ``taken`` counts connections by upstream port."""

    def __init__(self, upstreams: Sequence[int]) -> None:
        self._upstreams = list(upstreams)
        self._turn = itertools.count()
        self._listener = Listener(self._serve)
        self.port = self._listener.port
        self.taken = dict.fromkeys(upstreams, 0)

    def __enter__(self) -> Balancer:
        """Listen."""
        self._listener.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Refuse connections from now on; those that are open go on."""
        self._listener.__exit__()

    def _serve(self, client: socket.socket) -> None:
        with client:
            upstream = self._connect()
            if upstream is None:
                return
            with upstream:
                back = threading.Thread(target=_pass_on, args=(upstream, client), daemon=True)
                back.start()
                _pass_on(client, upstream)
                back.join()

    def _connect(self) -> socket.socket | None:
        """Return a connection to the next machine that takes one; None where none does."""
        first = next(self._turn)
        for number in range(len(self._upstreams)):
            port = self._upstreams[(first + number) % len(self._upstreams)]
            with contextlib.suppress(OSError):
                upstream = socket.create_connection(("127.0.0.1", port), CONNECT_SECONDS)
                self.taken[port] += 1
                return upstream
        return None


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    """Copy one direction until it ends, then end the other side's reading."""
    source.settimeout(SILENCE_SECONDS)
    with contextlib.suppress(OSError):
        while data := source.recv(BUFFER):
            target.sendall(data)
    for end, how in ((target, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with contextlib.suppress(OSError):
            end.shutdown(how)
