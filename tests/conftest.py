"""One real PostgreSQL for the whole run, and an empty database of one's own for whoever asks.

The server is the product's embedded one, in a folder of its own, with ``fsync=off``: tests survive no power cut. Nothing
outside that folder is written, by root neither, and nothing is left: the server ends some seconds after the run, also
after a killed one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from midsource.supervise.postgres import EmbeddedPostgres, PostgresUse

FAST = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "1GB"}
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A short folder that any user may pass through (pytest's own are closed to the server's user under root)."""
    folder = Path(tempfile.mkdtemp(prefix="midsource-test-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # where sockets of long paths were; not empty when somebody else uses it
        Path(f"/tmp/midsource-{os.geteuid()}").rmdir()


@pytest.fixture(scope="session")
def postgres(open_folder: Path) -> Iterator[PostgresUse]:
    """The running server of this test run."""
    home = open_folder / "home"
    home.mkdir(mode=0o711)
    server = EmbeddedPostgres(home, settings=FAST, system_folder=open_folder / "system")
    with server.use() as use:
        yield use
    server.stop_now()


@pytest.fixture(scope="session")
def make_database(postgres: PostgresUse) -> Callable[..., str]:
    """Makes databases and returns their URLs: ``make_database()`` is empty, ``make_database(url)`` copies another.

    A copy needs the other to have no connection at that moment. Dropped at the end of the run, with the server.
    """

    def make(template: str = "") -> str:
        source = psycopg.conninfo.conninfo_to_dict(template)["dbname"] if template else "template0"
        name = f"test_{os.getpid()}_{next(_NUMBERS)}"
        with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                    sql.Identifier(name), sql.Identifier(str(source))
                )
            )
        return postgres.dsn(name)

    return make


@pytest.fixture
def database(make_database: Callable[..., str]) -> Callable[..., str]:
    """Makes a fresh empty database and returns its ``postgresql://`` URL; one may ask several times."""
    return make_database
