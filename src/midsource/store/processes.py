"""Who is alive: one row a life of a process, beaten every few seconds, read by `ps`, the reaper and who needs a worker.

A killed process is started again under its name within a second, long before its earlier life counts as dead. So a life
is known by its executor, never by its name: what the earlier one held is handed on by that.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from midsource.store.database import Connection

Kind = Literal["web", "worker", "mta", "inbound"]
BEAT_SECONDS = 5.0
DEAD_AFTER_SECONDS = 30
"""Six missed beats: a busy machine may miss one or two, a living process not six."""


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """One process as it last reported itself."""

    name: str
    kind: str
    host: str
    pid: int
    executor: str
    started_at: datetime
    beat_at: datetime
    alive: bool


def beat(conn: Connection, name: str, kind: Kind, executor: str) -> None:
    """Report that process ``name`` lives, as ``executor`` (unique per start). Durable at once on an autocommit connection."""
    conn.execute(
        """
        insert into process (name, kind, host, pid, executor) values (%s, %s, %s, %s, %s)
        on conflict (executor) do update set beat_at = now()
        """,
        (name, kind, socket.gethostname(), os.getpid(), executor),
    )


def leave(conn: Connection, name: str, executor: str) -> None:
    """Say goodbye: a process that stopped by itself is not a dead one."""
    conn.execute("delete from process where name = %s and executor = %s", (name, executor))


def bury(conn: Connection, name: str) -> list[str]:
    """Forget earlier lives of ``name`` on this host whose process is gone, and return their executors.

    A name is one process at a time, so whoever starts under it knows before anybody else that the one before it is dead.
    Where several machines call themselves the same a living one may be taken for dead: what it held is then done by
    another, and its own later writes are refused, as for one that missed its beats.
    """
    rows = conn.execute(
        "select executor, pid from process where name = %s and host = %s", (name, socket.gethostname())
    ).fetchall()
    gone = [executor for executor, pid in rows if not _lives(pid)]
    conn.execute("delete from process where executor = any(%s)", (gone,))
    return gone


def listing(conn: Connection) -> list[ProcessRow]:
    """Return every process that reported itself in the last day, living and dead, each host's by its latest life."""
    rows = conn.execute(
        """
        select distinct on (name, host) name, kind, host, pid, executor, started_at, beat_at,
               beat_at > now() - make_interval(secs => %s)
          from process where beat_at > now() - interval '1 day' order by name, host, beat_at desc limit 500
        """,
        (DEAD_AFTER_SECONDS,),
    ).fetchall()
    return [ProcessRow(*row) for row in rows]


def alive_executors(conn: Connection, kind: Kind) -> list[str]:
    """Return the lives of processes of ``kind`` that go on; whatever another life holds is held by a dead one."""
    rows = conn.execute(
        "select executor from process where kind = %s and beat_at > now() - make_interval(secs => %s)",
        (kind, DEAD_AFTER_SECONDS),
    ).fetchall()
    return [executor for (executor,) in rows]


def no_worker(instance: str) -> tuple[str, str]:
    """Return cause and remedy of the refusal to ask for what no living worker would do."""
    return (
        f"no worker of {instance} is alive, so nothing would do this",
        "start the processes with `midsource up`, then repeat",
    )


def forget(conn: Connection) -> None:
    """Forget lives that ended more than a day ago."""
    conn.execute("delete from process where beat_at < now() - interval '1 day'")


def any_alive(conn: Connection, kind: Kind) -> bool:
    """Tell whether a process of ``kind`` lives."""
    return any(row.alive and row.kind == kind for row in listing(conn))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
