"""A console served at a socket, and browsers for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from midsource.config import Config, InstanceConfig
from midsource.net.clock import SystemClock
from midsource.security import access
from midsource.store.database import Database
from midsource.web.serve import compose, listening, server

STOP_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Console:
    """A served console: its home, database and address."""

    home: Path
    database: Database
    address: str

    @contextmanager
    def browser(self, *, token: str | None = None, accept: str = "text/html") -> Iterator[httpx2.Client]:
        """Open a client that has traded the token (None: the right one, '': none) for its cookie."""
        given = access.token(self.home) if token is None else token
        headers = {"accept": accept}
        with httpx2.Client(base_url=self.address, headers=headers, trust_env=False, follow_redirects=True) as client:
            if given:
                client.get("/", params={"token": given})
            yield client


@contextmanager
def serving(config: Config, instance: InstanceConfig, database: Database) -> Iterator[str]:
    """Serve in a thread; yields the address."""
    with listening(instance) as listener:
        served = server(compose(config, instance, database, SystemClock()))
        thread = threading.Thread(target=served.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{instance.port}"
        finally:
            served.should_exit = True
            thread.join(STOP_SECONDS)
            assert not thread.is_alive()
