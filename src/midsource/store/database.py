"""One instance's database: a bounded pool of psycopg connections, transactions with limits, errors as sentences.

Every statement runs under READ COMMITTED with a statement time-out, a lock time-out and an idle-in-transaction time-out,
so no caller can hang or hold an old snapshot open without end. A transaction is durable when its ``with`` block ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import psycopg
from psycopg import errors as pg
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool, PoolTimeout

from midsource.model.errors import Conflict, Failed, MidsourceError, Unhealthy

Connection: TypeAlias = psycopg.Connection[TupleRow]

STATEMENT_SECONDS = 60
"""Longest statement of ordinary work; bulk work asks for more by ``transaction(statement_seconds=…)``."""
LOCK_SECONDS = 10
"""Longest wait for a row or table lock: longer than any of our transactions should last."""
IDLE_SECONDS = 60
"""A transaction nobody continues is ended by the server after this."""
POOL_WAIT_SECONDS = 30
"""Longest wait for a free connection before the caller hears that the instance is overloaded."""


class Database:
    """A pool on one database. ``name`` is the instance's, for messages; ``dsn`` a ``postgresql://`` URL.

    Opening is lazy: constructing never fails, the first use may raise Unhealthy.
    """

    def __init__(
        self,
        name: str,
        dsn: str,
        *,
        application: str,
        max_connections: int = 4,
        wait_seconds: float = POOL_WAIT_SECONDS,
    ) -> None:
        self.name = name
        self.dsn = dsn
        self._pool = ConnectionPool(
            dsn,
            min_size=0,
            max_size=max_connections,
            timeout=wait_seconds,
            max_idle=120,
            open=False,
            kwargs={
                "autocommit": True,
                "application_name": application[:63],
                "options": f"-c statement_timeout={STATEMENT_SECONDS}s -c lock_timeout={LOCK_SECONDS}s "
                f"-c idle_in_transaction_session_timeout={IDLE_SECONDS}s -c timezone=UTC",
            },
        )

    def close(self) -> None:
        """Give every connection back to the server; the object can be used again afterwards."""
        self._pool.close()

    def __enter__(self) -> Database:
        """Use as a context: closed at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend an autocommit connection: each statement is its own transaction. Raises Unhealthy, Failed, Conflict."""
        with said_plainly(self.name):
            self._pool.open()
            with self._pool.connection() as conn:
                yield conn

    @contextmanager
    def transaction(self, *, statement_seconds: float | None = None) -> Iterator[Connection]:
        """Lend a connection inside one transaction, committed at the end of the block, rolled back by any exception."""
        with self.connection() as conn, conn.transaction():
            if statement_seconds is not None:
                conn.execute(f"set local statement_timeout = {round(statement_seconds * 1000)}")
            yield conn


@contextmanager
def said_plainly(name: str) -> Iterator[None]:
    """Turn what the driver raises into our errors, each with its remedy; ``name`` says which instance."""
    try:
        yield
    except MidsourceError:
        raise
    except PoolTimeout as exc:
        raise Unhealthy(
            f"the database of {name} gave no connection in time",
            "see `midsource ps --who` for what holds its connections, and `midsource status` for the server",
        ) from exc
    except pg.DiskFull as exc:
        raise StorageFull(
            f"the disk of the database of {name} is full", "free space or move the home folder, then repeat the command"
        ) from exc
    except pg.UndefinedTable as exc:
        raise Unhealthy(
            f"the database of {name} has not the tables this version needs ({_first_line(exc)})",
            "run `midsource migrate`",
        ) from exc
    except (pg.SerializationFailure, pg.DeadlockDetected, pg.LockNotAvailable) as exc:
        raise Conflict(f"another writer held the same rows of {name} ({_first_line(exc)})", "try again") from exc
    except pg.QueryCanceled as exc:
        raise StatementTimeout(
            f"a statement on {name} ran into its time limit", "it is tried again with less; see the doctor"
        ) from exc
    except psycopg.OperationalError as exc:
        raise Unhealthy(
            f"the database of {name} cannot be reached ({_first_line(exc)})",
            "check `midsource status`; `midsource up` starts the embedded server",
        ) from exc


class StorageFull(Failed):
    """The disk is full; nothing of the transaction is kept."""

    code = "MS-322"
    http_status = 507


class StatementTimeout(Failed):
    """A statement was cancelled at its time limit; a smaller window or batch may pass."""

    code = "MS-310"


def _first_line(exc: BaseException) -> str:
    text = str(exc).strip()
    return text.splitlines()[0][:200] if text else type(exc).__name__


def scalar(conn: Connection, statement: Any, params: Any = None) -> Any:
    """Return the first column of the first row, or None where there is no row."""
    row = conn.execute(statement, params).fetchone()
    return row[0] if row else None
