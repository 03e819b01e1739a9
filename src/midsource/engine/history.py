"""Forget what the engine needs no more: slices and jobs that ended long ago, a bounded number of rows a time.

Called by `cleanup` alone (engine/cleanup.py).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from midsource.store.database import Connection, Database, scalar

KEPT = timedelta(days=7)
COUNTED_AT_MOST = 1_000_000


def forget(database: Database, before: datetime, rows: int) -> int:
    """Delete at most ``rows`` of each kind that ended before ``before``; return how many went of the kind that had more."""
    with database.transaction() as conn:
        slices = 0
        if _has_engine(conn):
            slices = conn.execute(
                "delete from dbos.workflow_status where workflow_uuid in (select workflow_uuid from dbos.workflow_status "
                "where status in ('SUCCESS', 'ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED') and updated_at < %s limit %s)",
                (int(before.timestamp() * 1000), rows),
            ).rowcount
        jobs = conn.execute(
            "delete from job where id in (select id from job where finished_at < %s limit %s)", (before, rows)
        ).rowcount
    return max(slices, jobs)


def waiting(conn: Connection, before: datetime) -> tuple[int, datetime | None]:
    """Return how many rows ended before ``before``, and when the oldest that is kept ended."""
    rows = scalar(
        conn,
        "select count(*) from (select from job where finished_at < %s limit %s) j",
        (before, COUNTED_AT_MOST),
    )
    oldest = scalar(conn, "select min(finished_at) from job where finished_at is not null")
    if _has_engine(conn):
        rows += scalar(
            conn,
            "select count(*) from (select from dbos.workflow_status "
            "where status in ('SUCCESS', 'ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED') and updated_at < %s limit %s) s",
            (int(before.timestamp() * 1000), COUNTED_AT_MOST),
        )
    return int(rows), oldest


def _has_engine(conn: Connection) -> bool:
    """Whether a worker ever ran here: the engine makes its tables at its first start."""
    return scalar(conn, "select to_regclass('dbos.workflow_status')") is not None
