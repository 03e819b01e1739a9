"""What pages read with: a connection of its own for each page, read-only by the server, every statement in one snapshot.

The pool of the process is not used: when the database is away it waits and backs off, and a page must say so at once and
find it again at once. Bounds: PAGES_AT_ONCE connections, CONNECT_SECONDS, STATEMENT_SECONDS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import psycopg
from anyio import CapacityLimiter, to_thread

from midsource.store.database import Connection, Database, said_plainly

PAGES_AT_ONCE = 4
"""Pages read at the same time; a page takes some milliseconds, so this is hundreds a second."""
CONNECT_SECONDS = 2
"""psycopg counts whole seconds and takes 2 at least."""
STATEMENT_SECONDS = 5

T = TypeVar("T")


class Reader:
    """Reads one instance's database for pages."""

    def __init__(self, database: Database) -> None:
        self._name = database.name
        self._dsn = database.dsn
        self._threads = CapacityLimiter(PAGES_AT_ONCE)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Return what ``query`` finds, in a thread. Raises Unhealthy, StatementTimeout, and what the query raises."""
        return await to_thread.run_sync(self._read, query, limiter=self._threads)

    def _read(self, query: Callable[[Connection], T]) -> T:
        with said_plainly(self._name), self._connection() as conn:
            return query(conn)

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        options = (
            f"-c statement_timeout={STATEMENT_SECONDS}s -c idle_in_transaction_session_timeout={STATEMENT_SECONDS}s "
            "-c default_transaction_read_only=on -c default_transaction_isolation=repeatable\\ read -c timezone=UTC"
        )
        with psycopg.connect(
            self._dsn, connect_timeout=CONNECT_SECONDS, application_name=f"console@{self._name}"[:63], options=options
        ) as conn:
            yield conn
