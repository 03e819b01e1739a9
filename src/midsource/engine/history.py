"""Forget what the engine needs no more: slices and jobs that ended more than 7 days ago, a bounded number of rows a time."""

from __future__ import annotations

from datetime import datetime, timedelta

from midsource.store.database import Database

KEPT = timedelta(days=7)
ROWS_AT_ONCE = 20_000
"""A second's work; a busy instance makes some 10 000 slices a day, so an hourly turn of this never falls behind."""


def forget(database: Database, now: datetime, rows: int = ROWS_AT_ONCE) -> int:
    """Delete at most ``rows`` of each kind that ended more than ``KEPT`` before ``now``; return how many went."""
    before = now - KEPT
    with database.transaction() as conn:
        slices = conn.execute(
            "delete from dbos.workflow_status where workflow_uuid in (select workflow_uuid from dbos.workflow_status "
            "where status in ('SUCCESS', 'ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED') and updated_at < %s limit %s)",
            (int(before.timestamp() * 1000), rows),
        ).rowcount
        jobs = conn.execute(
            "delete from job where id in (select id from job where finished_at < %s limit %s)", (before, rows)
        ).rowcount
    return slices + jobs
