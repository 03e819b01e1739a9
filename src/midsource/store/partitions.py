"""Partitions that are over go whole: no row is deleted, nothing is left to vacuum, and nobody waits for it.

Order of events of ``drop``: (1) ``DETACH … CONCURRENTLY``: the parent is never locked against reading or writing; the server waits
until transactions that still see the partition are over; (2) in one transaction: look once more whether it is over (a
row may have come between the first look and the detaching) and drop it; if it is not, attach it again. Each wait for a
lock ends after LOCK_SECONDS and is tried again, LOCK_TRIES times; what is left then is the next run's: a partition whose
detaching was cut, or that was detached and not dropped, is found by ``listing`` and gone on with, whether it is still over or not:
its rows are invisible meanwhile, and nothing can be written to it. Where no run comes, the leader attaches it (``attach_left``).
One process at a time does either with a parent's partitions; a session lock says so, which ends with the process.

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
from midsource.store.cleanup import Removed, Scene
from midsource.store.database import Connection, Database, StatementTimeout, scalar

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
    def is_left(self) -> bool:
        """Whether a drop began with it and did not end."""
        return self.pending or self.detached

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


def drop_next(
    scene: Scene,
    parent: str,
    is_over: Callable[[Connection, Partition], bool],
    mark: Callable[[Connection, Partition], None] | None = None,
) -> Removed:
    """Drop the oldest partition that is over. What a cut drop left comes first, over or not: it is dropped or attached again.

    ``mark`` notes, in the transaction that drops, that its rows are gone.
    """
    with scene.database.connection() as conn:
        found = listing(conn, parent)
        due = [one for one in found if one.is_left]
        due += [one for one in found if not one.is_left and is_over(conn, one)]
    if not due:
        return Removed()
    next_, more = due[0], len(due) > 1

    def closed(conn: Connection) -> bool:
        if not is_over(conn, next_):
            return False
        if mark is not None:
            mark(conn, next_)
        return True

    if drop(scene.database, next_, closed):
        return Removed(next_.rows, next_.bytes, more=more)
    if next_.is_left:
        return Removed(
            said=(
                f"{next_.name} was left by a drop that was cut, and is kept for longer by now: it is attached again",
            ),
            more=more,
        )
    return Removed(said=(f"{next_.name} came into use again while it was dropped: it stays",))


def drop(database: Database, partition: Partition, is_over: Callable[[Connection], bool]) -> bool:
    """Drop a partition that is over; False where it turned out to be in use (it is attached again then).

    ``is_over`` is asked in the transaction that drops, and may write what is to be kept of it. Raises Conflict where locks
    were not had.
    """
    with _alone(database, partition.parent, wait=True):
        with database.connection() as conn:  # the leader may have attached it meanwhile
            now = next((found for found in listing(conn, partition.parent) if found.name == partition.name), None)
        return now is None or _end(database, now, is_over, LOCK_TRIES)


def attach_left(database: Database, parent: str) -> list[str]:
    """Attach again what cut drops left of the partitions of ``parent``; return their names. Nothing is done while a drop goes on.

    What is over nevertheless is dropped by the next run of `cleanup`. Each lock is asked for once: raises Conflict.
    """
    with _alone(database, parent, wait=False) as had:
        if not had:
            return []
        with database.connection() as conn:
            left = [found for found in listing(conn, parent) if found.is_left]
        for partition in left:
            _end(database, partition, _never, 1)
        return [partition.name for partition in left]


def _end(database: Database, partition: Partition, is_over: Callable[[Connection], bool], tries: int) -> bool:
    if not partition.detached:
        _detach(database, partition, tries)
    return _patiently(lambda: _drop_detached(database, partition, is_over), tries)


def _never(_conn: Connection) -> bool:
    return False


@contextmanager
def _alone(database: Database, parent: str, *, wait: bool) -> Iterator[bool]:
    """Keep every other process from the partitions of ``parent``; False where another one has them and ``wait`` is not set."""
    key = f"drop of partitions:{parent}"
    with _briefly(database) as conn:
        if wait:
            conn.execute("select pg_advisory_lock(hashtext(%s))", (key,))
        had = wait or bool(scalar(conn, "select pg_try_advisory_lock(hashtext(%s))", (key,)))
        try:
            yield had
        finally:
            if had and not conn.closed:
                conn.execute("select pg_advisory_unlock(hashtext(%s))", (key,))


def _detach(database: Database, partition: Partition, tries: int) -> None:
    """Detach without locking anybody out; a detaching that was cut before is finalised."""
    begun = partition.pending
    for attempt in range(1, tries + 1):
        how = "finalize" if begun else "concurrently"
        statement = sql.SQL("alter table {} detach partition {} {}").format(
            sql.Identifier(partition.parent), sql.Identifier(partition.name), sql.SQL(how)
        )
        try:
            with _briefly(database) as conn:
                conn.execute(statement, prepare=False)
        except (Conflict, StatementTimeout):
            if attempt == tries:
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


def _patiently(act: Callable[[], bool], tries: int) -> bool:
    for attempt in range(1, tries + 1):
        try:
            return act()
        except Conflict:
            if attempt == tries:
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
