"""A receiver of webhooks on a real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hook(ThreadingHTTPServer):
    """Answers as told, and keeps what it was sent: path, headers and body of each request. ``path``: where its ``url`` leads."""

    def __init__(self, path: str) -> None:
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.status, self.answer = 204, b""
        self._path = path
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.seen.append((self.path, dict(self.headers), body))
                self.send_response(hook.status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(hook.answer)))
                self.end_headers()
                self.wfile.write(hook.answer)

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def documents(self) -> list[Any]:
        """The bodies, read as JSON."""
        return [json.loads(body) for _, _, body in self.seen]

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}{self._path}"


@contextmanager
def receiving(path: str) -> Iterator[Hook]:
    """Receive in a thread."""
    with Hook(path) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
