"""Lines of the journals. A journal never fails, and nothing fails by it (F105, F108): what cannot be written is logged instead."""

from __future__ import annotations

import psycopg
import structlog

from midsource.model.errors import MidsourceError, said
from midsource.store.database import Connection, Database

MAX_LINE = 2_000
LEVELS = ("info", "warning", "error")

log = structlog.get_logger()


def write(conn: Connection, name: str, run_id: int | None, level: str, line: str) -> None:
    """Append a line to the journal of workflow or job ``name``, in the caller's transaction or alone; never raises.

    The insert has a savepoint of its own, so a journal that takes no rows undoes nothing of the caller's.
    """
    try:
        with conn.transaction():
            conn.execute(
                "insert into workflow_journal (workflow, run_id, level, line) values (%s, %s, %s, %s)",
                (name, run_id, level if level in LEVELS else LEVELS[0], line[:MAX_LINE]),
            )
    except psycopg.Error as exc:
        _unwritten(name, line, exc)


def append(database: Database, name: str, run_id: int | None, level: str, line: str) -> None:
    """Do the same on a connection of its own: the line stands whatever becomes of the caller's transaction."""
    try:
        with database.connection() as conn:
            write(conn, name, run_id, level, line)
    except MidsourceError as exc:
        _unwritten(name, line, exc)


def _unwritten(name: str, line: str, exc: Exception) -> None:
    log.warning("journal_unwritten", action="journal_unwritten", name=name, line=line[:MAX_LINE], cause=said(exc)[:500])
