"""A proxy before PostgreSQL that makes the fate of a COMMIT unknown: the connection goes before its answer is heard.

It passes bytes between a loopback port and the server's unix socket, and looks for COMMIT on its way in. ``fate`` says
for each one (counted from 1) what happens: it passes, it never arrives, or it is done and its answer is swallowed.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from enum import StrEnum
from urllib.parse import quote

import psycopg

from midsource.testing.listener import Listener

BUFFER = 65_536


class CommitFate(StrEnum):
    """What becomes of a COMMIT."""

    PASS = "pass"  # noqa: S105 - not a password
    LOST = "lost"  # it never arrives: the server rolls back
    DONE = "done"  # it is committed, and nobody hears of it


class PostgresProxy:
    """Use as a context; ``dsn`` leads through it to the database of the DSN it was made with (a unix socket's)."""

    def __init__(self, dsn: str, fate: Callable[[int], CommitFate]) -> None:
        about = psycopg.conninfo.conninfo_to_dict(dsn)
        self._upstream = f"{about['host']}/.s.PGSQL.{about['port']}"
        self._fate = fate
        self._lock = threading.Lock()
        self._listener = Listener(self._serve)
        self.commits = 0
        password, port = quote(str(about["password"]), safe=""), self._listener.port
        self.dsn = f"postgresql://{about['user']}:{password}@127.0.0.1:{port}/{about['dbname']}?sslmode=disable&gssencmode=disable"

    def __enter__(self) -> PostgresProxy:
        """Listen."""
        self._listener.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Refuse connections from now on; those that are open go on."""
        self._listener.__exit__()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(self._upstream)
            mute = threading.Event()
            back = threading.Thread(target=_pass_answers, args=(server, client, mute), daemon=True)
            back.start()
            while data := client.recv(BUFFER):
                fate = self._judge() if b"COMMIT" in data else CommitFate.PASS
                if fate is CommitFate.LOST:
                    break
                if fate is CommitFate.DONE:
                    mute.set()
                    server.sendall(data)
                    back.join()
                    break
                server.sendall(data)
            _cut(client)
            _cut(server)
            back.join()

    def _judge(self) -> CommitFate:
        with self._lock:
            self.commits += 1
            return self._fate(self.commits)


def _pass_answers(server: socket.socket, client: socket.socket, mute: threading.Event) -> None:
    """Pass what the server says, until it is to be swallowed: the first answer then ends the connection."""
    with contextlib.suppress(OSError):
        while data := server.recv(BUFFER):
            if mute.is_set():
                break
            client.sendall(data)
    _cut(client)


def _cut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
