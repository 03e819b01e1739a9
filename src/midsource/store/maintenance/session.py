"""The session that carries out maintenance: a connection of its own, one long statement at a time, watched by its caller.

Order of events: connect → take the maintenance lock (one session among all machines) → for each statement: run it in a
thread; meanwhile ``beat`` every ``BEAT_SECONDS``, which renews the run's lease however long the statement takes, and cancels
the statement as soon as the run is stopped, killed or taken over.

Never in the way: no statement waits longer than ``LOCK_SECONDS`` for a table, VACUUM pauses as autovacuum does, one core at
most. A worker that dies leaves nothing running: the server looks every ``CLIENT_SECONDS`` whether its client lives. What a
cut REINDEX CONCURRENTLY leaves (an invalid index) is found by the next measuring.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

import psycopg
from psycopg import sql

from midsource.model.errors import Conflict, MidsourceError
from midsource.model.maintenance import Act, Step
from midsource.store.database import LINE, Connection, said_plainly
from midsource.store.maintenance.server import SESSION
from midsource.store.maintenance.statements import statement

LOCK = 0x6D69647372630004
"""Advisory lock key: 'midsrc' and a number. One maintenance session a database."""
BEAT_SECONDS = 3.0
"""Within it a killed run cancels its statement; a worker that stops has 15 s."""
MISSED_BEATS = 20
"""A database too busy for a beat for a minute ends the statement."""
LOCK_SECONDS = 10
"""Wait for a table that somebody alters: the next step has its turn then."""
REINDEX_LOCK_SECONDS = 900
"""REINDEX CONCURRENTLY waits for every transaction that began before it, holding nobody up; ours last 600 s at most."""
CLIENT_SECONDS = 5
CANCEL_TRIES = 6
CANCEL_SECONDS = 5.0
_OPTIONS = (
    "-c vacuum_cost_delay=2ms -c vacuum_cost_limit=2000 -c max_parallel_maintenance_workers=0 -c maintenance_work_mem=64MB "
    f"-c idle_session_timeout=300s -c client_connection_check_interval={CLIENT_SECONDS}s -c timezone=UTC"
)
"""Reads and writes 100 MB a second at most while it vacuums, builds indexes on one core with memory that a small server has."""


class Maintained(Conflict):
    """Another session maintains this database just now."""


class MaintenanceSession:
    """Use as a context. ``work``: what the engine calls sessions of this run, so that a kill from any machine finds it. Entering raises Maintained while another session maintains this database, Unhealthy without a server."""

    def __init__(self, name: str, dsn: str, work: str = "") -> None:
        self._name = name
        self._application = f"{SESSION}{name} {work}".strip()[:63]
        self._dsn = dsn
        self._conn: Connection | None = None

    def __enter__(self) -> MaintenanceSession:
        """Connect and take the lock."""
        with said_plainly(self._name):
            conn = psycopg.connect(
                self._dsn,
                autocommit=True,
                connect_timeout=10,
                application_name=self._application,
                options=_OPTIONS,
                **LINE,
            )
            row = conn.execute("select pg_try_advisory_lock(%s)", (LOCK,)).fetchone()
        if row is None or not row[0]:
            conn.close()
            raise Maintained(f"another session maintains the database of {self._name}", "it is tried again")
        self._conn = conn
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect, which gives the lock back."""
        if self._conn is not None:
            self._conn.close()

    @property
    def is_lost(self) -> bool:
        """Whether the connection has ended, and the lock with it."""
        return self._conn is None or self._conn.closed

    def run(self, step: Step, seconds: float, beat: Callable[[], None]) -> None:
        """Carry out ``step`` within ``seconds``. Raises what ``beat`` raises, and the server's refusal as one of our errors."""
        assert self._conn is not None
        conn = self._conn
        lock_seconds = REINDEX_LOCK_SECONDS if step.act is Act.REINDEX else LOCK_SECONDS
        with said_plainly(self._name):
            conn.execute(f"set statement_timeout = {max(1, round(seconds * 1000))}")
            conn.execute(f"set lock_timeout = '{lock_seconds}s'")
            self._watched(conn, statement(step), beat)

    def _watched(self, conn: Connection, text: str, beat: Callable[[], None]) -> None:
        ended, failure = threading.Event(), list[BaseException]()

        def work() -> None:
            try:
                conn.execute(sql.SQL(text))
            except BaseException as exc:  # noqa: BLE001 - handed to the caller
                failure.append(exc)
            finally:
                ended.set()

        thread = threading.Thread(target=work, name="maintenance", daemon=True)
        thread.start()
        missed = 0
        try:
            while not ended.wait(BEAT_SECONDS):
                try:
                    beat()
                    missed = 0
                except MidsourceError:
                    missed += 1
                    if missed >= MISSED_BEATS:
                        raise
        except BaseException:
            _cancel(conn, ended)
            raise
        finally:
            thread.join(CANCEL_SECONDS)
        if failure:
            raise failure[0]


def _cancel(conn: Connection, ended: threading.Event) -> None:
    """Cancel what ``conn`` runs; where that is of no avail, cut the connection: the server notices and cancels it."""
    for _ in range(CANCEL_TRIES):
        try:
            conn.cancel_safe(timeout=CANCEL_SECONDS)
        except psycopg.Error:
            break
        if ended.wait(1.0):
            return
    conn.close()
