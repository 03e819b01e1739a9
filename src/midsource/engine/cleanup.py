"""Steps of `cleanup` over what the engine leaves behind: runs, journals, jobs, its own history.

The newest twenty runs of a workflow stay whatever their age, as many as a list draws (engine/watch.py): a weekly one would
have none to show otherwise.
"""

from __future__ import annotations

from midsource.engine import history
from midsource.model.options import JOB_LOG_DELAY, WORKFLOW_DELAY
from midsource.store.cleanup import Removable, Removed, Scene, Step, next_time
from midsource.store.cleanup_rows import PAGE_ROWS, matching_rows


def _count_history(scene: Scene) -> Removable:
    with scene.database.connection() as conn:
        rows, oldest = history.waiting(conn, scene.before)
    return Removable(rows, next_at=None if rows else next_time(oldest, scene))


def _page_history(scene: Scene) -> Removed:
    rows = history.forget(scene.database, scene.before, PAGE_ROWS)
    return Removed(rows, more=rows >= PAGE_ROWS)


RUNS = matching_rows(
    "workflow_runs",
    "runs of technical workflows, but the last twenty of each",
    "workflow_run w",
    "finished_at < %(before)s and id < (select coalesce(min(id), 0) from (select id from workflow_run "
    "where workflow = w.workflow order by id desc limit 20) kept)",
    key=("id",),
    option=WORKFLOW_DELAY,
)
JOURNALS = matching_rows(
    "workflow_journals",
    "journal lines of technical workflows",
    "workflow_journal",
    "at < %(before)s and not starts_with(workflow, 'job:')",
    key=("id",),
    option=WORKFLOW_DELAY,
)
JOB_JOURNALS = matching_rows(
    "job_journals",
    "journal lines of jobs",
    "workflow_journal",
    "at < %(before)s and starts_with(workflow, 'job:')",
    key=("id",),
    option=JOB_LOG_DELAY,
)
ASKED = matching_rows(
    "cleanup_asked",
    "steps asked for by name of runs that are over",
    "cleanup_ask a",
    "not exists (select from workflow_run r where r.id = a.run_id and r.finished_at is null)",
    key=("run_id", "step"),
)
HISTORY = Step("engine_history", "slices and jobs that ended", _count_history, _page_history, kept=history.KEPT)

STEPS = (RUNS, JOURNALS, ASKED, HISTORY)
