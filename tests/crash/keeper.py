"""A mail server that keeps each message and lets the test say what it answers to the final dot, and when."""

from __future__ import annotations

import socketserver
import threading
from collections import Counter
from collections.abc import Callable


class Keeper:
    """Serves SMTP on a loopback port. ``answer(recipient, copy)`` is called for each message after its dot.

    It may block: the sender then waits for the reply. The ``copy`` counts from 1. Without PIPELINING, so that there is one
    message under way on a connection.
    """

    def __init__(self, answer: Callable[[str, int], str]) -> None:
        self.kept: Counter[str] = Counter()
        self._answer = answer
        self._lock = threading.Lock()
        keeper = self

        class Session(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                keeper._talk(self)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", 0), Session)
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Keeper:
        """Serve."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()

    def _talk(self, session: socketserver.StreamRequestHandler) -> None:
        def say(line: str) -> None:
            session.wfile.write(line.encode() + b"\r\n")

        recipient = ""
        say("220 keeper.test ESMTP")
        while line := session.rfile.readline():
            verb = line.decode("ascii", "replace").strip().upper()
            if verb.startswith("RCPT TO:"):
                recipient = line.decode("ascii").split("<")[1].split(">")[0]
            if verb == "DATA":
                say("354 go on")
                while session.rfile.readline() not in (b".\r\n", b""):
                    pass
                with self._lock:
                    self.kept[recipient] += 1
                    copy = self.kept[recipient]
                say(self._answer(recipient, copy))
            elif verb == "QUIT":
                say("221 bye")
                return
            else:
                say("250 ok")
