"""Who is alive: one row a process, beaten every few seconds, read by `ps`, the reaper and commands that need a worker."""

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
        on conflict (name) do update
           set beat_at = now(), host = excluded.host, pid = excluded.pid, executor = excluded.executor, kind = excluded.kind,
               started_at = case when process.executor = excluded.executor then process.started_at else now() end
        """,
        (name, kind, socket.gethostname(), os.getpid(), executor),
    )


def leave(conn: Connection, name: str, executor: str) -> None:
    """Say goodbye: a process that stopped by itself is not a dead one."""
    conn.execute("delete from process where name = %s and executor = %s", (name, executor))


def listing(conn: Connection) -> list[ProcessRow]:
    """Return every process that reported itself in the last day, living and dead."""
    rows = conn.execute(
        """
        select name, kind, host, pid, executor, started_at, beat_at, beat_at > now() - make_interval(secs => %s)
          from process where beat_at > now() - interval '1 day' order by name limit 500
        """,
        (DEAD_AFTER_SECONDS,),
    ).fetchall()
    return [ProcessRow(*row) for row in rows]


def any_alive(conn: Connection, kind: Kind) -> bool:
    """Tell whether a process of ``kind`` lives."""
    return any(row.alive and row.kind == kind for row in listing(conn))
