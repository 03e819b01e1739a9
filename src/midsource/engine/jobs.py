"""Jobs: work asked for about one delivery. Asking is one insert in the caller's transaction; the engine does the rest."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from midsource.model.errors import NotFound
from midsource.store.database import Connection


@dataclass(frozen=True, slots=True)
class Job:
    """One job as its row tells it. ``outcome`` None: not finished."""

    id: str
    kind: str
    subject: int
    asked_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    outcome: str | None
    error: str
    progress: dict[str, Any]
    slices: int


_COLUMNS = "id, kind, subject, asked_at, started_at, finished_at, outcome, error, progress, slices"


def ask(conn: Connection, kind: str, subject: int, by: str = "") -> str:
    """Ask for a job and return its id; while one of the same kind and subject is unfinished, return that one's.

    Asked-for work that was waiting for a later slice is made due at once. While a slice runs, which may have looked before
    the caller's transaction commits, the time of asking is kept: `due_at` after `enqueued_at` makes that slice's end ask
    for one more. Durable with the caller's transaction.
    """
    conn.execute(
        """
        insert into job (id, kind, subject, asked_by)
        values (%(kind)s || '-' || %(subject)s || '-' || nextval('job_serial'), %(kind)s, %(subject)s, %(by)s)
        on conflict (kind, subject) where finished_at is null
        do update set due_at = case when job.enqueued_at is null then least(job.due_at, now())
                                    when job.executor is not null then clock_timestamp()
                                    else job.due_at end
        """,
        {"kind": kind, "subject": subject, "by": by},
    )
    row = conn.execute(
        "select id from job where kind = %s and subject = %s and finished_at is null", (kind, subject)
    ).fetchone()
    assert row is not None
    return str(row[0])


def get(conn: Connection, job_id: str) -> Job:
    """Return the job, or raise NotFound."""
    row = conn.execute(f"select {_COLUMNS} from job where id = %s", (job_id,)).fetchone()  # noqa: S608 - constant
    if row is None:
        raise NotFound(f"there is no job {job_id!r}", "its history is kept 7 days; see `midsource delivery show`")
    return Job(*row)


def of_subject(conn: Connection, subject: int, limit: int = 20) -> list[Job]:
    """Return the newest jobs about ``subject``, newest first."""
    rows = conn.execute(
        f"select {_COLUMNS} from job where subject = %s order by asked_at desc limit %s",  # noqa: S608 - constant
        (subject, limit),
    ).fetchall()
    return [Job(*row) for row in rows]
