"""The console of a marketing instance, composed as for the world and served at a socket, and a browser that is signed in."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser
from tests.web.console_scene import Scene, fill
from tests.web.console_served import Console, serving
from tests.web.console_window import launched

from midsource.config import Config, EgressConfig, InstanceConfig, Role
from midsource.net.clock import SystemClock
from midsource.store import migrate
from midsource.store.database import Database


@pytest.fixture(scope="session")
def migrated(make_database: Callable[..., str]) -> str:
    """Give the URL of an empty marketing database, to be copied: migrating takes a second."""
    url = make_database()
    with Database("marketing", url, application="tests", max_connections=1) as database:
        migrate.upgrade(database, "marketing")
        with database.transaction() as conn:
            migrate.describe_instance(conn, "marketing", "marketing")
    return url


@pytest.fixture(scope="session")
def migrated_mid(make_database: Callable[..., str]) -> str:
    """Give the URL of an empty mid's database, to be copied."""
    url = make_database()
    with Database("mid1", url, application="tests", max_connections=1) as database:
        migrate.upgrade(database, "mid")
        with database.transaction() as conn:
            migrate.describe_instance(conn, "mid1", "mid")
    return url


@pytest.fixture
def serve_console(
    make_database: Callable[..., str], migrated: str, migrated_mid: str, tmp_path: Path, free_port: int
) -> Iterator[Callable[..., Console]]:
    """Give ``serve(name, role, egress=…)``: it serves the console of an empty instance, once, until the test ends."""
    with ExitStack() as stack:

        def serve(name: str, role: Role, egress: EgressConfig | None = None) -> Console:
            instance = InstanceConfig(name, role, port=free_port)
            config = Config(tmp_path, instances=(instance,), egress=egress or EgressConfig())
            url = make_database(migrated if role == "marketing" else migrated_mid)
            database = stack.enter_context(Database(name, url, application="tests", max_connections=4))
            return Console(tmp_path, database, stack.enter_context(serving(config, instance, database)))

        yield serve


@pytest.fixture
def console(serve_console: Callable[..., Console]) -> Console:
    """Serve the console of an empty marketing instance."""
    return serve_console("marketing", "marketing")


@pytest.fixture(scope="module")
def stood(
    make_database: Callable[..., str], migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Console]:
    """Serve the console of an empty marketing instance to all the tests of one file, which fill it once."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    home, instance = tmp_path_factory.mktemp("home"), InstanceConfig("marketing", "marketing", port=port)
    with (
        Database("marketing", make_database(migrated), application="tests", max_connections=4) as database,
        serving(Config(home, instances=(instance,)), instance, database) as address,
    ):
        yield Console(home, database, address)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Give the browser of this machine to the tests of one file."""
    with launched() as browser:
        yield browser


@pytest.fixture
def free_port() -> int:
    """Give a port that is free."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


@pytest.fixture
def scene(console: Console) -> Scene:
    """Fill the console's database with a history."""
    return fill(console.database, SystemClock().now())


@pytest.fixture
def browser(console: Console) -> Iterator[httpx2.Client]:
    """Give a browser that is signed in."""
    with console.browser() as client:
        yield client
