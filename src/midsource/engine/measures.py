"""What the tables of the engine say: jobs and technical workflows, for ``/metrics``. See store/measures.py for the shape."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from midsource.model.metrics import RECENT_HOURS, Sample
from midsource.model.workflow import WorkflowState
from midsource.store.database import Connection


def jobs(conn: Connection, now: datetime) -> Iterator[Sample]:
    """Yield unfinished jobs, and those that ended lately by outcome."""
    open_jobs = conn.execute(
        "select kind, case when started_at is null then 'waiting' else 'running' end, count(*) from job "
        "where finished_at is null group by 1, 2"
    )
    for kind, state, count in open_jobs:
        yield Sample("midsource_jobs_unfinished", count, (kind, state))
    ended = conn.execute(
        "select kind, outcome, count(*) from job where finished_at > %s group by 1, 2", (_lately(now),)
    )
    for kind, outcome, count in ended:
        yield Sample("midsource_jobs_ended", count, (kind, outcome))


def workflows(conn: Connection, now: datetime) -> Iterator[Sample]:
    """Yield state, flag, freshness and next run of each technical workflow, and what its runs came to."""
    rows = conn.execute(
        "select name, state, failed, consecutive_failures, coalesce(last_success_at, created_at), "
        "coalesce(not_before, next_at) from workflow order by name"
    )
    for name, number, failed, failures, success, next_at in rows:
        state = WorkflowState(number)
        yield Sample("midsource_workflow_state", 1, (name, state.label))
        yield Sample("midsource_workflow_failed", failed, (name,))
        yield Sample("midsource_workflow_failures_in_a_row", failures, (name,))
        yield Sample("midsource_workflow_success_age_seconds", (now - success).total_seconds(), (name,))
        if next_at is not None and state.is_on_schedule:
            yield Sample("midsource_workflow_next_run_seconds", (next_at - now).total_seconds(), (name,))
    ended = conn.execute(
        "select workflow, outcome, count(*) from workflow_run where finished_at > %s group by 1, 2", (_lately(now),)
    )
    for name, outcome, count in ended:
        yield Sample("midsource_workflow_runs_ended", count, (name, outcome))


def _lately(now: datetime) -> datetime:
    return now - timedelta(hours=RECENT_HOURS)
