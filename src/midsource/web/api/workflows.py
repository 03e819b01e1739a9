"""Technical workflows: list, show, journal, schedule, run now, start, pause, resume, stop, kill, restart, concurrency."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BeforeValidator

from midsource.engine import admin, circuit, heat, records, restarting, scheduling
from midsource.engine.records import WorkflowRow
from midsource.model import technical
from midsource.model.schedule import Plan
from midsource.security import audit
from midsource.security.roles import Permission
from midsource.store.database import Connection
from midsource.web.api import workflow_shapes as shapes
from midsource.web.api.operations import Api, Caller, Name, needs, refusals

MAX_LINES = 5_000
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def _is_day(text: object) -> object:
    """Refuse what is no day as it is written, such as seconds since 1970."""
    if isinstance(text, str) and not _DAY.fullmatch(text):
        raise ValueError("write a day as in 2026-05-04")
    return text


Day = Annotated[date, BeforeValidator(_is_day)]
CONFLICT = refusals("Not in its present state.")
SEE, SUPERVISE = needs(Permission.SEE), needs(Permission.SUPERVISE)


def router(api: Api) -> APIRouter:
    """Return the operations of this family."""
    made = APIRouter(tags=["technical workflows"])

    @made.get("/workflows", dependencies=[SEE])
    def list_workflows() -> list[shapes.Workflow]:
        """List the technical workflows with state, last success and next run."""
        with api.database.connection() as conn:
            return [_workflow(row, api.clock.now()) for row in records.listing(conn)]

    @made.get("/workflows/{name}", dependencies=[SEE], responses=CONFLICT)
    def show_workflow(name: Name) -> shapes.WorkflowDetail:
        """Show one workflow and its last runs."""
        with api.database.connection() as conn:
            row, runs = records.get(conn, name), records.runs(conn, name)
        return shapes.WorkflowDetail(
            **_workflow(row, api.clock.now()).model_dump(), runs=[shapes.Run.model_validate(run) for run in runs]
        )

    @made.get("/workflow-concurrency", dependencies=[SEE])
    def show_concurrency(day: Day | None = None) -> shapes.Concurrency:
        """Count the workflows that ran at once, for each five minutes of a day in UTC; today by default."""
        with api.database.connection() as conn:
            found = heat.of_day(conn, day or api.clock.now().date())
        return shapes.Concurrency(day=found.day, cells=list(found.cells), busiest=list(found.busiest))

    @made.get("/workflows/{name}/journal", dependencies=[SEE], responses=CONFLICT)
    def read_journal(name: Name, lines: Annotated[int, Query(ge=1, le=MAX_LINES)] = 50) -> list[shapes.JournalLine]:
        """Read the last lines of its journal, the oldest of them first."""
        with api.database.connection() as conn:
            records.get(conn, name)
            found = records.journal(conn, name, lines)
        return [shapes.JournalLine(at=at, level=level, line=line) for at, level, line in found]

    _add_verbs(made, api)
    _add_schedule(made, api)
    _add_restarts(made, api)
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
            return _workflow(admin.start(conn, name, api.clock.now()), api.clock.now())

    @made.post("/workflows/{name}/pause", dependencies=[SUPERVISE], responses=CONFLICT)
    def pause_workflow(name: Name, visitor: Caller) -> shapes.Workflow:
        """Hold a workflow: the page under way is finished, then it waits for start."""
        with api.change(visitor, "workflow.pause", name) as conn:
            return _workflow(admin.pause(conn, name, visitor.name), api.clock.now())

    @made.post("/workflows/{name}/stop", dependencies=[SUPERVISE], responses=CONFLICT)
    def stop_workflow(name: Name, visitor: Caller) -> shapes.Workflow:
        """End a workflow: its run is aborted after the page under way, no tick comes any more."""
        with api.change(visitor, "workflow.stop", name) as conn:
            return _workflow(admin.stop(conn, name, visitor.name), api.clock.now())

    @made.post("/workflows/{name}/kill", dependencies=[SUPERVISE], responses=CONFLICT)
    def kill_workflow(name: Name, visitor: Caller) -> shapes.Killed:
        """Stop unconditionally, also where its machine is gone: its run is aborted, its statements are cancelled."""
        with api.change(visitor, "workflow.kill", name) as conn:
            killed = admin.kill(conn, name, visitor.name)
        return shapes.Killed(run=killed.run, sessions=killed.sessions)


def _add_schedule(made: APIRouter, api: Api) -> None:
    @made.get("/workflows/{name}/schedule", dependencies=[SEE], responses=CONFLICT)
    def show_schedule(name: Name) -> shapes.Schedule:
        """Show when it is due, with its next five ticks."""
        with api.database.connection() as conn:
            row = records.get(conn, name)
        return _schedule(row.plan, row.next_ticks(api.clock.now()), saved=False)

    @made.put("/workflows/{name}/schedule", dependencies=[SUPERVISE], responses=CONFLICT)
    def set_schedule(name: Name, body: shapes.ScheduleIn, visitor: Caller) -> shapes.Schedule:
        """Give it another schedule, and show its next five ticks; with `dry_run` they are shown alone."""
        now = api.clock.now()
        with api.database.connection() as conn:
            old = scheduling.described(records.get(conn, name))
        wanted = scheduling.Wanted(
            body.schedule, body.zone, body.valid_from, body.valid_to, body.runs_left, body.between
        )
        proposal = scheduling.propose(wanted, now)
        if not body.dry_run:
            with api.change(visitor, "workflow.schedule", name, old=old, new=body.schedule) as conn:
                scheduling.save(conn, name, proposal.plan, visitor.name, now)
        return _schedule(proposal.plan, proposal.ticks, saved=not body.dry_run)


def _add_restarts(made: APIRouter, api: Api) -> None:
    @made.post("/workflow-restarts", dependencies=[SUPERVISE], responses=CONFLICT)
    def restart_workflows(body: shapes.RestartIn, visitor: Caller) -> shapes.Restarted:
        """Restart workflows: clear flag and back-off, abort what is unfinished, run at once, a few seconds apart."""
        with api.database.connection() as conn:
            chosen = restarting.choose(conn, body.names, failed=body.failed, scheduled=body.scheduled)
            done = restarting.look(conn, chosen.rows)
        if not body.dry_run:
            api.need_worker()

            def record(conn: Connection, name: str, run: int) -> None:
                audit.record(conn, visitor, "workflow.restart", name, run=run)

            done = list(restarting.restart_all(api.database, chosen.rows, visitor.name, api.clock.now(), record))
        return shapes.Restarted(
            restarted={one.name: one.run for one in done},
            left={row.name: why for row, why in chosen.left},
            different={one.name: one.different for one in done if one.different},
            problems={one.name: one.problem for one in done if one.problem},
        )


def _schedule(plan: Plan, ticks: list[datetime], *, saved: bool) -> shapes.Schedule:
    return shapes.Schedule(
        schedule=str(plan.schedule), zone=plan.zone.key, valid_from=plan.valid_from, valid_to=plan.valid_to,
        runs_left=plan.runs_left, between=str(plan.hours) if plan.hours else "", next_ticks=ticks, saved=saved,
    )  # fmt: skip


def _workflow(row: WorkflowRow, now: datetime) -> shapes.Workflow:
    return shapes.Workflow(
        name=row.name, label=technical.label(row.name), state=row.state.label, failed=row.failed,
        schedule=row.schedule, zone=row.zone, last_run=row.last_run_at, last_success=row.last_success_at,
        next_run=row.next_run, next_ticks=row.next_ticks(now), consecutive_failures=row.consecutive_failures,
        last_error=row.last_error, waits=str(circuit.breaker(row, now)), held_at=row.held_at, held_by=row.held_by,
    )  # fmt: skip
