"""Database cleanup: what each step did and would remove now; a run at once."""

from __future__ import annotations

from fastapi import APIRouter

from midsource.security.roles import Permission
from midsource.web.api import workflow_shapes as shapes
from midsource.web.api.operations import Api, Caller, needs, refusals
from midsource.workflows import cleanup
from midsource.workflows.cleanup import StepView


def router(api: Api) -> APIRouter:
    """Return the operations of this family."""
    made = APIRouter(tags=["technical workflows"])

    @made.get("/cleanup", dependencies=[needs(Permission.SUPERVISE)])
    def list_cleanup_steps() -> list[shapes.CleanupStep]:
        """List the steps of the database cleanup: what each did last, and what it would remove now."""
        views = cleanup.overview(api.database, api.config.home, api.instance, api.clock.now())
        return [_step(view) for view in views]

    @made.post(
        "/cleanup", dependencies=[needs(Permission.SUPERVISE)], status_code=202, responses=refusals("It is held.")
    )
    def run_cleanup(body: shapes.CleanupIn, visitor: Caller) -> shapes.RunAsked:
        """Ask for a run at once, of all steps or of one."""
        api.need_worker()
        with api.change(visitor, "workflow.run-now", cleanup.NAME, step=body.step) as conn:
            return shapes.RunAsked(run=cleanup.ask(conn, api.instance.role, visitor.name, body.step))

    return made


def _step(view: StepView) -> shapes.CleanupStep:
    last = None if view.last is None else shapes.CleanupDone.model_validate(view.last)
    return shapes.CleanupStep(
        name=view.name, removes=view.removes, option=view.option, kept_seconds=int(view.kept.total_seconds()),
        rows=view.forecast.rows, bytes=view.forecast.bytes, next_at=view.forecast.next_at, note=view.forecast.note,
        last=last,
    )  # fmt: skip
