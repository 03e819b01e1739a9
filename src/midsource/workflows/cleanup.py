"""Database cleanup: what is kept for its time and no longer, every night, each step on its own.

*Reads* and *removes*, on a marketing instance: log rows of expired deliveries (closed), delivery logs, stored parts, failed
calls, rejects of imports, sessions, audit, runs and journals. On a mid: waiting messages of expired deliveries (closed),
results, the ledger, leftovers of sending, journals. The steps are values, in `marketing/cleanup.py` and `mid/cleanup.py`;
`midsource cleanup --dry-run` shows what each would remove. *Writes* `cleanup_step`: what each step did, and, when all did
theirs, the option `NmsCleanup_LastCleanup`. *Pointer*: none; a step looks for what is too old.

*Bounds*: a page is one transaction of at most 10 000 rows, or one partition; a slice ends after 50 s, the next goes on with the
step where it stopped; a step uses 600 s of one run at most, the rest is the next run's. After each page it rests four times as long
as the page took: whoever sends has the disk and the cores.

*When it fails*: a step that fails is set aside with its error and the others are done; then the run is marked failed and names it. A
step that was cut goes on with the next page. Nothing that is sent, leased or not pulled yet is touched.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from midsource.config import InstanceConfig
from midsource.engine import admin, circuit
from midsource.engine.work import Cancelled, Context, Report
from midsource.marketing import cleanup as of_marketing
from midsource.marketing.options import TABLE as MARKETING_OPTIONS
from midsource.mid import cleanup as of_mid
from midsource.mid.options import TABLE as MID_OPTIONS
from midsource.model.errors import Bug, MidsourceError, NotFound, first_line
from midsource.model.options import LAST_CLEANUP
from midsource.policy.position import show
from midsource.store import cleanup_status as status
from midsource.store import options
from midsource.store.cleanup import Removable, Removed, Scene, Step
from midsource.store.cleanup_status import StepStatus
from midsource.store.database import Connection, Database, StatementTimeout, scalar
from midsource.store.options import OptionTable

NAME = "cleanup"
LABEL = "Database cleanup"
SCHEDULE = "daily at 04:00"
ROLES = ("marketing", "mid")
SLICE_SECONDS = 50.0
"""Below the engine's 60 s, so that the last page's own time fits in."""
RESTS = 4
"""Times as long as a page took it rests after it: beside ten million rows removed at half a core two mta processes sent 18 % less."""
REST_SECONDS = 5.0
"""Longest rest after a page."""

_STEPS: Mapping[str, Sequence[Step]] = {"marketing": of_marketing.STEPS, "mid": of_mid.STEPS}
_OPTIONS: Mapping[str, OptionTable] = {"marketing": MARKETING_OPTIONS, "mid": MID_OPTIONS}


@dataclass(frozen=True, slots=True)
class Settings:
    """What may be set for it. ``steps``: names of the steps to do; empty: those the run was asked for, as a rule all."""

    steps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StepView:
    """One step as the console and the command line show it. ``last`` None: it never ran."""

    name: str
    removes: str
    option: str
    kept: timedelta
    last: StepStatus | None
    forecast: Removable


def run_once(context: Context, settings: Settings | None = None) -> Report:
    """Do one slice. Raises Failed naming the steps that failed, once everything else is done; what they all wait for, where they do."""
    with context.database.transaction() as conn:
        role = str(scalar(conn, "select role from instance"))
        run_id = status.unfinished_run(conn)
        asked = (settings or Settings()).steps or tuple(status.asked(conn, run_id))
        steps = {step.name: step for step in steps_of(role) if not asked or step.name in asked}
        waiting = status.open_steps(conn, run_id, tuple(steps), context.clock.now())
    slice_ = _Slice(context, role, context.clock.boot_seconds() + SLICE_SECONDS)
    for name in waiting:
        if not slice_.do(steps[name]):
            return Report(rows_read=slice_.rows, rows_written=slice_.rows, more_after_seconds=0)
    return _finish(context, slice_, run_id, whole=not asked)


def _finish(context: Context, slice_: _Slice, run_id: int, *, whole: bool) -> Report:
    """End the run; what the last slice removed is reported before a failure is raised in a slice of its own."""
    with context.database.connection() as conn:
        failed = status.failed(conn, run_id)
    if failed and slice_.rows and run_id:
        return Report(rows_read=slice_.rows, rows_written=slice_.rows, more_after_seconds=0)
    if failed:
        told = "; ".join(f"{name}: {error.rstrip('.')}" for name, error, _ in failed)
        raise circuit.common(kind for *_, kind in failed)(
            f"{len(failed)} steps of cleanup failed and the others are done: {told}", "it is tried again by itself"
        )
    if whole:
        with context.database.transaction() as conn:
            options.write(conn, LAST_CLEANUP, show(context.clock.now()), by=NAME)
    return Report(rows_read=slice_.rows, rows_written=slice_.rows)


def ask(conn: Connection, role: str, by: str, step: str = "") -> int:
    """Ask for a run at once, of one step or of all; return its id. One that is under way takes the step in.

    Raises NotFound for a step that is none, Conflict where the workflow is held.
    """
    if step:
        step_of(role, step)
    before = status.unfinished_run(conn)
    run_id = admin.run_now(conn, NAME, by)
    if step and (run_id != before or status.asked(conn, run_id)):
        status.ask(conn, run_id, step)
    return run_id


def steps_of(role: str) -> Sequence[Step]:
    """Return the steps of an instance of ``role`` in their order."""
    return _STEPS[role]


def step_of(role: str, name: str) -> Step:
    """Return a step by its name; raises NotFound naming those there are."""
    for step in steps_of(role):
        if step.name == name:
            return step
    known = ", ".join(step.name for step in steps_of(role))
    raise NotFound(f"there is no step {name[:40]!r} of cleanup on a {role} instance", f"there are: {known}")


def overview(
    database: Database, home: Path, instance: InstanceConfig, now: datetime, *, only: str = ""
) -> list[StepView]:
    """Return each step with what it did last, and what it would remove now; changes nothing. Raises NotFound for ``only``."""
    with database.connection() as conn:
        done = status.listing(conn)
    found = []
    for step in steps_of(instance.role) if not only else [step_of(instance.role, only)]:
        scene = _scene(database, home, instance.name, instance.role, step, now)
        found.append(
            StepView(step.name, step.removes, step.option, scene.kept, done.get(step.name), _forecast(step, scene))
        )
    return found


def _forecast(step: Step, scene: Scene) -> Removable:
    try:
        return step.count(scene)
    except MidsourceError as exc:
        return Removable(note=f"not counted: {exc.cause}")


def _counted(step: Step, scene: Scene) -> int | None:
    """Count what is there; None where that takes too long, which stops no step."""
    try:
        return step.count(scene).rows
    except StatementTimeout:
        return None


def _scene(database: Database, home: Path, instance: str, role: str, step: Step, now: datetime) -> Scene:
    kept = step.kept
    if step.option:
        with database.connection() as conn:
            kept = timedelta(seconds=_OPTIONS[role].seconds(conn, step.option))
    return Scene(database, home, instance, now, kept)


class _Slice:
    """One slice: does steps until its time is over."""

    def __init__(self, context: Context, role: str, deadline: float) -> None:
        self.rows = 0
        self._context = context
        self._role = role
        self._deadline = deadline
        self._rest = threading.Event()

    def do(self, step: Step) -> bool:
        """Do pages of a step until it is over; False when the slice is over before that."""
        try:
            scene = self._scene(step)
            self._before(step, scene)
            outcome = self._pages(step, scene)
        except Cancelled:
            raise
        except MidsourceError as exc:
            self._fail(step, exc)
        except Exception as exc:  # noqa: BLE001 - invariant 9: whatever a step raises ends that step only
            self._fail(step, Bug(first_line(exc)[:500], "please report it with the journal"))
        else:
            if outcome is None:
                return False
            self._end(step, scene, outcome)
        return True

    def _before(self, step: Step, scene: Scene) -> None:
        found = _counted(step, scene)
        if found is not None:
            with self._context.database.connection() as conn:
                status.before(conn, step.name, found)

    def _pages(self, step: Step, scene: Scene) -> str | None:
        """Return how the step ended, None when the slice is over before it."""
        while True:
            self._context.beat()
            if self._now() >= self._deadline:
                return None
            began = self._now()
            removed = step.page(scene)
            took = self._now() - began
            used = self._note(step, removed, took)
            if not removed.more:
                return "finished"
            if used >= step.seconds:
                return "out of time"
            self._rest.wait(min(took * RESTS, REST_SECONDS))

    def _note(self, step: Step, removed: Removed, seconds: float) -> float:
        self.rows += removed.rows
        for line in removed.said:
            self._context.say("warning", f"{step.name}: {line}")
        with self._context.database.connection() as conn:
            return status.page(conn, step.name, removed, seconds)

    def _end(self, step: Step, scene: Scene, outcome: str) -> None:
        left = _counted(step, scene)
        with self._context.database.connection() as conn:
            status.end(conn, step.name, self._context.clock.now(), outcome, rows_after=left)
            done = status.listing(conn)[step.name]
        if done.rows:
            self._context.say("info", f"{step.name}: removed {done.rows} rows in {done.seconds:.1f} s")
        if outcome == "out of time":
            self._context.say(
                "warning", f"{step.name}: its time of {step.seconds:.0f} s is over; the rest is the next run's"
            )

    def _fail(self, step: Step, exc: MidsourceError) -> None:
        self._context.say("error", f"{step.name}: {exc}")
        with self._context.database.connection() as conn:
            kind = type(exc).__name__
            status.end(conn, step.name, self._context.clock.now(), "failed", error=str(exc), error_class=kind)

    def _scene(self, step: Step) -> Scene:
        context = self._context
        return _scene(context.database, context.home, context.instance, self._role, step, context.clock.now())

    def _now(self) -> float:
        return self._context.clock.boot_seconds()
