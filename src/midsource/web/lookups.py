"""Who asks, looked up before every request: one connection of the process for it, apart from the pool.

The pool waits and backs off when the database is away; here a request must hear it at once and be let in again at once.
One lookup takes some tenths of a millisecond, so they take turns. A connection that broke is opened again, once, by
the request that finds it broken; after a failure the next REST_SECONDS of requests get the same answer untried.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import psycopg

from midsource.model.clock import Clock
from midsource.model.errors import Unhealthy
from midsource.store.database import Connection, Database, said_plainly

CONNECT_SECONDS = 2
"""psycopg counts whole seconds and takes 2 at least."""
STATEMENT_SECONDS = 2
REST_SECONDS = 1.0
OPTIONS = (
    f"-c statement_timeout={STATEMENT_SECONDS}s -c lock_timeout={STATEMENT_SECONDS}s "
    f"-c idle_in_transaction_session_timeout={STATEMENT_SECONDS}s -c timezone=UTC"
)

T = TypeVar("T")


class Lookups:
    """Asks one instance's database; safe to use from several threads."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._name = database.name
        self._dsn = database.dsn
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._failed: Unhealthy | None = None
        self._failed_at = 0.0

    def ask(self, query: Callable[[Connection], T]) -> T:
        """Return what ``query`` finds; it may run twice. Raises Unhealthy, StatementTimeout."""
        with self._lock:
            if self._failed is not None and self._clock.boot_seconds() - self._failed_at < REST_SECONDS:
                raise Unhealthy(self._failed.cause, self._failed.remedy)
            try:
                with said_plainly(self._name):
                    found = self._asked(query)
            except Unhealthy as exc:
                self._failed, self._failed_at = exc, self._clock.boot_seconds()
                raise
            self._failed = None
            return found

    def close(self) -> None:
        """Give the connection back."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _asked(self, query: Callable[[Connection], T]) -> T:
        if self._connection is not None and not self._connection.closed:
            try:
                return query(self._connection)
            except psycopg.OperationalError:
                if not self._connection.broken:
                    raise
        self._connection = psycopg.connect(
            self._dsn,
            connect_timeout=CONNECT_SECONDS,
            autocommit=True,
            application_name=f"access@{self._name}"[:63],
            options=OPTIONS,
        )
        return query(self._connection)
