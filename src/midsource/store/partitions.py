"""Partitions that are over go whole: no row is deleted, nothing is left to vacuum, and nobody waits for it.

Order of events of ``drop``: (1) ``DETACH … CONCURRENTLY``: the parent is never locked against reading or writing; the server waits
until transactions that still see the partition are over; (2) in one transaction: look once more whether it is over (a
row may have come between the first look and the detaching) and drop it; if it is not, attach it again. Each wait for a
lock ends after LOCK_SECONDS and is tried again, LOCK_TRIES times; what is left then is the next run's: a partition whose
detaching was cut, or that was detached and not dropped, is found by ``listing`` and gone on with.

A partition is named ``<parent>_<suffix>`` (ensure_month, ensure_day); nothing else is ever touched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from psycopg import sql

from midsource.model.errors import Conflict
from midsource.model.ids import Month
from midsource.store.database import Connection, Database, StatementTimeout

LOCK_SECONDS = 2
LOCK_TRIES = 5
PAUSE_SECONDS = 0.2
"""Between two tries: whoever waited behind us goes first."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition, or what a cut drop left of one. ``low`` to ``high``: its bounds, the upper one excluded.

    ``rows`` is PostgreSQL's estimate. ``pending``: its detaching was begun and not ended; ``detached``: it was detached.
    """

    parent: str
    name: str
    low: int | date
    high: int | date
    rows: int
    bytes: int
    pending: bool = False
    detached: bool = False

    @property
    def ends_at(self) -> date:
        """The first day after it: of its month, or the day after its own."""
        if isinstance(self.high, date):
            return self.high
        year, month = divmod(self.high >> 32, 100)
        return date(year, month, 1)


def listing(conn: Connection, parent: str) -> list[Partition]:
    """Return the partitions of ``parent`` (broad_log, message, outcome), the oldest first, leftovers of cut drops among them."""
    rows = conn.execute(
        "select c.relname, greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid), "
        "coalesce(i.inhdetachpending, false), i.inhrelid is null "
        "from pg_class c left join pg_inherits i on i.inhrelid = c.oid "
        "where c.relkind = 'r' and c.relnamespace = (select relnamespace from pg_class where oid = %(parent)s::regclass) "
        "and c.relname ~ ('^' || %(parent)s || '_[0-9]+$') order by c.relname",
        {"parent": parent},
    ).fetchall()
    return [Partition(parent, name, *_bounds(name), *rest) for name, *rest in rows]


def drop(database: Database, partition: Partition, is_over: Callable[[Connection], bool]) -> bool:
    """Drop a partition that is over; False where it turned out to be in use (it is attached again then).

    ``is_over`` is asked in the transaction that drops, and may write what is to be kept of it. Raises Conflict where locks
    were not had.
    """
    if not partition.detached:
        _detach(database, partition)
    return _patiently(lambda: _drop_detached(database, partition, is_over))


def _detach(database: Database, partition: Partition) -> None:
    """Detach without locking anybody out; a detaching that was cut before is finalised."""
    begun = partition.pending
    for attempt in range(1, LOCK_TRIES + 1):
        how = "finalize" if begun else "concurrently"
        statement = sql.SQL("alter table {} detach partition {} {}").format(
            sql.Identifier(partition.parent), sql.Identifier(partition.name), sql.SQL(how)
        )
        try:
            with _briefly(database) as conn:
                conn.execute(statement, prepare=False)
        except (Conflict, StatementTimeout):
            if attempt == LOCK_TRIES:
                raise
            time.sleep(PAUSE_SECONDS)
            with database.connection() as conn:
                begun = any(found.pending for found in listing(conn, partition.parent) if found.name == partition.name)
        else:
            return


def _drop_detached(database: Database, partition: Partition, is_over: Callable[[Connection], bool]) -> bool:
    name, parent = sql.Identifier(partition.name), sql.Identifier(partition.parent)
    with database.transaction() as conn:
        conn.execute(f"set local lock_timeout = '{LOCK_SECONDS}s'")
        if is_over(conn):
            conn.execute(sql.SQL("drop table {}").format(name))
            return True
        conn.execute(
            sql.SQL("alter table {} attach partition {} for values from ({}) to ({})").format(
                parent, name, sql.Literal(_bound(partition.low)), sql.Literal(_bound(partition.high))
            )
        )
    return False


def _patiently(act: Callable[[], bool]) -> bool:
    for attempt in range(1, LOCK_TRIES + 1):
        try:
            return act()
        except Conflict:
            if attempt == LOCK_TRIES:
                raise
            time.sleep(PAUSE_SECONDS)
    raise AssertionError("unreachable")


@contextmanager
def _briefly(database: Database) -> Iterator[Connection]:
    """Lend a connection that waits for locks for LOCK_SECONDS only, outside any transaction."""
    with database.connection() as conn:
        conn.execute(f"set lock_timeout = '{LOCK_SECONDS}s'")
        try:
            yield conn
        finally:
            if not conn.closed:
                conn.execute("reset lock_timeout")


def _bounds(name: str) -> tuple[int | date, int | date]:
    suffix = name.rpartition("_")[2]
    if len(suffix) == 8:
        day = datetime.strptime(suffix, "%Y%m%d").date()  # noqa: DTZ007 - a day, no moment
        return day, day + timedelta(days=1)
    month = Month(*divmod(int(suffix), 100))
    return month.first_delivery_id, month.next().first_delivery_id


def _bound(value: int | date) -> int | str:
    return value if isinstance(value, int) else value.isoformat()
