"""One instance's database: a bounded pool of psycopg connections, transactions with limits, errors as sentences.

Every statement runs under READ COMMITTED with a statement time-out, a lock time-out and an idle-in-transaction time-out,
so no caller can hang or hold an old snapshot open without end. A transaction is durable when its ``with`` block ends.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import psycopg
from psycopg import errors as pg
from psycopg import sql
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
GROW_SECONDS = 1.0
"""A pool that lost its connections is asked again this often. By itself it tries each one anew after 1, 2, 4 … seconds, so a
server that was away for ten seconds was found again only after half a minute; and it begins a new one only when asked."""
REGROW_SECONDS = 0.5
"""How long the pool goes on with one connection that cannot be made."""
CONNECT_SECONDS = 5
"""Longest wait for a server to answer at all; a pool by itself would wait its whole time for one that refuses at once."""
LINE: dict[str, Any] = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""A server whose machine is gone is noticed in a minute (without: after up to two hours). No effect on a local socket."""


MAX_NAME = 63
"""Bytes of a name of a session that PostgreSQL keeps."""


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
        self._application = application[:MAX_NAME]
        self._statement_seconds: int | None = None
        self._fence: Callable[[Connection], None] | None = None
        self._in_vain: Counter[str] = Counter()
        self._pool = ConnectionPool(
            dsn,
            min_size=0,
            max_size=max_connections,
            timeout=wait_seconds,
            reconnect_timeout=REGROW_SECONDS,
            max_idle=120,
            open=False,
            kwargs={
                **LINE,
                "autocommit": True,
                "connect_timeout": CONNECT_SECONDS,
                "application_name": self._application,
                "options": f"-c statement_timeout={STATEMENT_SECONDS}s -c lock_timeout={LOCK_SECONDS}s "
                f"-c idle_in_transaction_session_timeout={IDLE_SECONDS}s -c timezone=UTC {_options(dsn)}",
            },
        )

    def close(self) -> None:
        """Give every connection back to the server; the object cannot be used afterwards."""
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
        with said_plainly(self.name), ExitStack() as lent:
            if self._pool.closed:
                self._ask()
                self._pool.open()
            conn = lent.enter_context(self._lent())
            if conn.info.parameter_status("application_name") != self._application:
                conn.execute(self._manners())
            yield conn

    @contextmanager
    def _lent(self) -> Iterator[Connection]:
        """Lend a connection of the pool. Raises PoolTimeout, or what the server says where it takes none."""
        deadline = time.monotonic() + self._pool.timeout
        with ExitStack() as lent:
            while True:
                left = max(0.0, deadline - time.monotonic())
                try:
                    conn = lent.enter_context(self._pool.connection(timeout=min(GROW_SECONDS, left) or 0.001))
                    break
                except PoolTimeout:
                    if time.monotonic() >= deadline:
                        self._in_vain["requests"] += 1
                        self._ask()
                        raise
            yield conn

    def _manners(self) -> sql.Composed:
        """Return what gives a session our name and our time limit; without one of ours it is what the session began with."""
        limit: sql.Composable = sql.SQL("reset statement_timeout")
        if self._statement_seconds is not None:
            limit = sql.SQL("set statement_timeout = {}").format(sql.Literal(f"{self._statement_seconds}s"))
        return sql.SQL("set application_name = {}; {}").format(sql.Literal(self._application), limit)

    def on_behalf_of(
        self, work: str, fence: Callable[[Connection], None] | None = None, statement_seconds: int | None = None
    ) -> Database:
        """Return the same pool for one piece of work, whose name its sessions bear in `pg_stat_activity` while it uses them.

        ``fence`` is called in each transaction just before it commits; what it raises rolls the transaction back.
        """
        other = copy.copy(self)
        other._application = f"{self._application[: MAX_NAME - len(work) - 1]} {work}"
        other._statement_seconds = statement_seconds
        other._fence = fence
        return other

    def pool_figures(self) -> dict[str, int]:
        """Return how the pool stands: connections open, idle and allowed, how often one was asked for, who waits, and waits in vain."""
        now = self._pool.get_stats()
        return {
            "open": now["pool_size"],
            "idle": now["pool_available"],
            "most": now["pool_max"],
            "asked": now.get("requests_num", 0),
            "waiting": now["requests_waiting"],
            "failures": self._in_vain["requests"],
        }

    def _ask(self) -> None:
        """Connect once beside the pool, which never says why it has no connection. Raises what the server says."""
        psycopg.connect(self.dsn, **LINE, connect_timeout=CONNECT_SECONDS).close()

    @contextmanager
    def transaction(self, *, statement_seconds: float | None = None) -> Iterator[Connection]:
        """Lend a connection inside one transaction, committed at the end of the block, rolled back by any exception.

        Work that was given a longer limit for all its statements (``on_behalf_of``) has that, where ``statement_seconds`` is less.
        """
        with self.connection() as conn, conn.transaction():
            if statement_seconds is not None:
                statement_seconds = max(statement_seconds, self._statement_seconds or 0)
                conn.execute(f"set local statement_timeout = {round(statement_seconds * 1000)}")
            yield conn
            if self._fence is not None:
                self._fence(conn)


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
    except pg.ReadOnlySqlTransaction as exc:
        raise Unhealthy(
            f"the database of {name} takes no writes ({_first_line(exc)})", "let its URL lead to the primary server"
        ) from exc
    except (psycopg.OperationalError, pg.IdleInTransactionSessionTimeout) as exc:
        raise Unhealthy(
            f"the database of {name} cannot be reached ({_first_line(exc)})", _remedy(name, str(exc))
        ) from exc


class StorageFull(Failed):
    """The disk is full; nothing of the transaction is kept."""

    code = "MS-322"
    http_status = 507


class StatementTimeout(Failed):
    """A statement was cancelled at its time limit; a smaller window or batch may pass."""

    code = "MS-310"


@contextmanager
def in_key_order(conn: Connection) -> Iterator[None]:
    """Have the next rows by a key found by walking its index. In a transaction; for statements that are planned anew.

    Without statistics, which rows just written and a database just restored lack, the planner takes all that is left for a
    handful, and reads and sorts it for each page.
    """
    ways = "select set_config('enable_sort', %(on)s, true), set_config('enable_bitmapscan', %(on)s, true)"
    conn.execute(ways, {"on": "off"})
    yield
    conn.execute(ways, {"on": "on"})  # not after an exception: the transaction ends, and this with it


def _remedy(name: str, said: str) -> str:
    """Return what an operator does about a server's refusal to be connected to."""
    if "authentication failed" in said or "no password supplied" in said or "pg_hba.conf" in said:
        return f"correct user and password in instances.{name}.database_url"
    if "does not exist" in said:
        return f"create it, or correct instances.{name}.database_url"
    if "too many" in said or "connection slots" in said:
        return (
            "see `midsource ps --who` for what holds its connections, and raise max_connections or run fewer processes"
        )
    return "check `midsource status`; `midsource up` starts the embedded server, an external one is its operator's"


def _options(dsn: str) -> str:
    """Return the settings that the URL itself asks for; they come last, so they win: a DBA may ask for shorter limits."""
    return str(psycopg.conninfo.conninfo_to_dict(dsn).get("options") or "")


def _first_line(exc: BaseException) -> str:
    text = str(exc).strip()
    return text.splitlines()[0][:200] if text else type(exc).__name__


def scalar(conn: Connection, statement: Any, params: Any = None) -> Any:
    """Return the first column of the first row, or None where there is no row."""
    row = conn.execute(statement, params).fetchone()
    return row[0] if row else None
