"""The database cleanup: what each step did last, and, when asked for, what it would remove now.

GET  /cleanup             steps as they went; counts nothing
GET  /cleanup/forecast    the same with the counts of a dry run, until COUNT_SECONDS have passed; ``step=NAME``: of one
POST /cleanup/run         a run at once, of all steps or of ``step``

Counting changes nothing and stops at a million rows a step (store/cleanup.py). Runs are those of the command line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.engine import records
from midsource.engine.records import WorkflowRow
from midsource.model.errors import NotFound
from midsource.model.options import LAST_CLEANUP
from midsource.security import audit
from midsource.security.roles import Permission, Visitor
from midsource.store import cleanup_status
from midsource.store.cleanup import COUNTED_AT_MOST, Removable, Step
from midsource.store.cleanup_status import StepStatus
from midsource.store.database import Connection, Database, scalar
from midsource.web.console.frame import Frame, done
from midsource.web.console.pages.workflows import need_worker
from midsource.web.option_tables import table_of
from midsource.web.routing import Action, Form, Page, visitor_of
from midsource.workflows import cleanup

HERE = "cleanup"
PATH = "/cleanup"
COUNT_SECONDS = 20.0
"""After this no further step is counted: somebody waits for the page."""


@dataclass(frozen=True, slots=True)
class Row:
    """One step. ``last`` None: it never ran; ``forecast`` None: it was not counted."""

    step: Step
    kept: timedelta
    last: StepStatus | None
    forecast: Removable | None = None

    @property
    def is_at_least(self) -> bool:
        """Whether there is more than was counted."""
        return self.forecast is not None and self.forecast.rows >= COUNTED_AT_MOST


@dataclass(frozen=True, slots=True)
class Steps:
    """What the page shows. ``workflow`` None: no worker has registered it yet; ``finished``: when all steps did theirs."""

    rows: Sequence[Row]
    workflow: WorkflowRow | None
    finished: datetime | None

    @property
    def failed(self) -> int:
        """How many steps failed last."""
        return sum(row.last is not None and row.last.outcome == "failed" for row in self.rows)


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""

    async def page(request: Request) -> Response:
        steps = await frame.reader.read(lambda conn: _steps(conn, frame, {}))
        return frame.page(request, "cleanup.html", HERE, steps=steps, counted=False)

    async def forecast(request: Request) -> Response:
        only = request.query_params.get("step", "")
        counted = await frame.work(lambda database: _count(frame, database, only))
        steps = await frame.reader.read(lambda conn: _steps(conn, frame, counted))
        return frame.page(request, "cleanup.html", HERE, steps=steps, counted=True)

    async def run(request: Request, form: Form) -> Response:
        visitor, step = visitor_of(request.scope), form.get("step", "")
        await frame.write(lambda conn: _run(conn, frame, visitor, step))
        return done(PATH, "cleanup_run")

    async def back(_request: Request) -> Response:
        return done(PATH)

    return [
        Page(PATH, page),
        Page(f"{PATH}/forecast", forecast, needs=Permission.SUPERVISE),
        Page(f"{PATH}/run", back),
        Action(f"{PATH}/run", run, needs=Permission.SUPERVISE),
    ]


def _steps(conn: Connection, frame: Frame, counted: Mapping[str, Removable]) -> Steps:
    role, last = frame.instance.role, cleanup_status.listing(conn)
    options = table_of(role)
    rows = []
    for step in cleanup.steps_of(role):
        kept = timedelta(seconds=options.seconds(conn, step.option)) if step.option else step.kept
        rows.append(Row(step, kept, last.get(step.name), counted.get(step.name)))
    try:
        workflow: WorkflowRow | None = records.get(conn, cleanup.NAME)
    except NotFound:
        workflow = None
    finished = scalar(conn, "select value from option where name = %s", (LAST_CLEANUP,))
    return Steps(rows, workflow, _moment(str(finished or "")))


def _moment(text: str) -> datetime | None:
    """Read when all steps were last done; None where somebody wrote something else."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None


def _count(frame: Frame, database: Database, only: str) -> dict[str, Removable]:
    """Count step by step until the time is over. Raises NotFound for a step that is none."""
    now, deadline = frame.clock.now(), frame.clock.boot_seconds() + COUNT_SECONDS
    names = [only] if only else [step.name for step in cleanup.steps_of(frame.instance.role)]
    found: dict[str, Removable] = {}
    for name in names:
        if frame.clock.boot_seconds() > deadline:
            break
        for view in cleanup.overview(database, frame.config.home, frame.instance, now, only=name):
            found[name] = view.forecast
    return found


def _run(conn: Connection, frame: Frame, visitor: Visitor, step: str) -> None:
    need_worker(conn, frame)
    run = cleanup.ask(conn, frame.instance.role, visitor.name, step)
    audit.record(conn, visitor, "workflow.run-now", cleanup.NAME, run=run, step=step)
