"""Technical workflows: list, show, journal, run now, start, pause, resume, stop, restart."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from midsource.engine import admin, records
from midsource.security.roles import Permission
from midsource.store.database import Connection
from midsource.web.api import shapes
from midsource.web.api.operations import Api, Caller, Name, needs, refusals
from midsource.workflows import WORKFLOWS

MAX_LINES = 5_000
LABELS = {module.NAME: module.LABEL for module in WORKFLOWS}
CONFLICT = refusals("Not in its present state.")
SEE, SUPERVISE = needs(Permission.SEE), needs(Permission.SUPERVISE)


def router(api: Api) -> APIRouter:
    """Return the operations of this family."""
    made = APIRouter(tags=["technical workflows"])

    @made.get("/workflows", dependencies=[SEE])
    def list_workflows() -> list[shapes.Workflow]:
        """List the technical workflows with state, last success and next run."""
        with api.database.connection() as conn:
            return [_workflow(row) for row in records.listing(conn)]

    @made.get("/workflows/{name}", dependencies=[SEE], responses=CONFLICT)
    def show_workflow(name: Name) -> shapes.WorkflowDetail:
        """Show one workflow and its last runs."""
        with api.database.connection() as conn:
            row, runs = records.get(conn, name), records.runs(conn, name)
        return shapes.WorkflowDetail(
            **_workflow(row).model_dump(), runs=[shapes.Run.model_validate(run) for run in runs]
        )

    @made.get("/workflows/{name}/journal", dependencies=[SEE], responses=CONFLICT)
    def read_journal(name: Name, lines: Annotated[int, Query(ge=1, le=MAX_LINES)] = 50) -> list[shapes.JournalLine]:
        """Read the last lines of its journal, the oldest of them first."""
        with api.database.connection() as conn:
            records.get(conn, name)
            found = records.journal(conn, name, lines)
        return [shapes.JournalLine(at=at, level=level, line=line) for at, level, line in found]

    _add_verbs(made, api)
    return made


def _add_verbs(made: APIRouter, api: Api) -> None:
    @made.post("/workflows/{name}/run-now", dependencies=[SUPERVISE], status_code=202, responses=CONFLICT)
    def run_workflow_now(name: Name, visitor: Caller) -> shapes.RunAsked:
        """Ask for a run at once."""
        api.need_worker()
        with api.change(visitor, "workflow.run-now", name) as conn:
            return shapes.RunAsked(run=admin.run_now(conn, name, visitor.name))

    @made.post("/workflows/{name}/start", dependencies=[SUPERVISE], responses=CONFLICT)
    def start_workflow(name: Name, visitor: Caller) -> shapes.Workflow:
        """Put a paused or stopped workflow back on its schedule."""
        with api.change(visitor, "workflow.start", name) as conn:
            return _workflow(admin.start(conn, name, api.clock.now()))

    @made.post("/workflows/{name}/pause", dependencies=[SUPERVISE], responses=CONFLICT)
    def pause_workflow(name: Name, visitor: Caller) -> shapes.Workflow:
        """Hold a workflow: the page under way is finished, then it waits for start."""
        with api.change(visitor, "workflow.pause", name) as conn:
            return _workflow(admin.pause(conn, name))

    @made.post("/workflows/{name}/stop", dependencies=[SUPERVISE], responses=CONFLICT)
    def stop_workflow(name: Name, visitor: Caller) -> shapes.Workflow:
        """End a workflow: its run is aborted after the page under way, no tick comes any more."""
        with api.change(visitor, "workflow.stop", name) as conn:
            return _workflow(admin.stop(conn, name))

    @made.post("/workflow-restarts", dependencies=[SUPERVISE], responses=CONFLICT)
    def restart_workflows(body: shapes.RestartIn, visitor: Caller) -> shapes.Restarted:
        """Restart workflows: clear flag and back-off, abort what is unfinished, run at once."""
        if not body.dry_run:
            api.need_worker()
        with api.database.connection() as conn:
            chosen, left = _chosen(conn, body)
        restarted: dict[str, int | None] = {}
        for row in chosen:
            restarted[row.name] = None
            if not body.dry_run:
                with api.change(visitor, "workflow.restart", row.name) as conn:
                    restarted[row.name] = admin.restart(conn, row.name, visitor.name, api.clock.now())
        return shapes.Restarted(restarted=restarted, left=left)


def _chosen(conn: Connection, asked: shapes.RestartIn) -> tuple[list[records.WorkflowRow], dict[str, str]]:
    chosen, left = admin.restart_candidates(records.listing(conn), failed=asked.failed, scheduled=asked.scheduled)
    known = {row.name for row in chosen}
    chosen += [records.get(conn, name) for name in dict.fromkeys(asked.names) if name not in known]
    return chosen, {row.name: why for row, why in left if row.name not in asked.names}


def _workflow(row: records.WorkflowRow) -> shapes.Workflow:
    return shapes.Workflow(
        name=row.name, label=LABELS.get(row.name, ""), state=row.state.label, failed=row.failed,
        schedule=row.schedule, zone=row.zone, last_run=row.last_run_at, last_success=row.last_success_at,
        next_run=row.next_run, consecutive_failures=row.consecutive_failures, last_error=row.last_error,
    )  # fmt: skip
