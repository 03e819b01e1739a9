"""Database maintenance: vacuum, analyse and rebuild what needs it, in the hours of low activity, never in anybody's way.

*Reads* the catalogue and the statistics of this instance's database, the options `Maintenance_*` and `XtkCleanup_NoStats`.
*Writes* no row of anybody else: it runs VACUUM, ANALYZE, REINDEX INDEX CONCURRENTLY, one at a time, and records each in
`maintenance_action` with sizes before and after. What operators asked for by name comes first and at any hour; then the
plan (policy/maintenance.py), measured anew before each action, so that an index is judged after its table was vacuumed.
In mode *advise* nothing is executed: the plan is stored with its SQL.

*Bounds*: nothing begins that the window does not hold; a statement ends with the window, an ordered one after four hours.
A statement may outlast a slice: the slice beats while it runs (store/maintenance/session.py). *Pointer*: none.

*When it fails*: an action fails alone, is recorded with its error, and the others go on. A run that is killed cancels its
statement; a worker that dies leaves at most an invalid index, which the next run drops. A run outside the window ends at once,
and the next tick comes when the window opens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import psycopg

from midsource.engine import admin
from midsource.engine.work import SLICE_SECONDS, Cancelled, Context, Report
from midsource.model.errors import MidsourceError, said
from midsource.model.maintenance import Act, Measures, Outcome, Step
from midsource.policy import maintenance as policy
from midsource.policy.checks import spoken
from midsource.policy.sizes import size
from midsource.store.database import StatementTimeout
from midsource.store.maintenance import actions, measuring, settings
from midsource.store.maintenance.session import Maintained, MaintenanceSession

NAME = "databaseMaintenance"
LABEL = "Database maintenance"
SCHEDULE = "weekly on sunday at 02:00"
ROLES = ("marketing", "mid")

SLICE_SHARE = 0.75
"""Part of a slice's time after which no further action begins in it."""
BUSY_SECONDS = 10
"""Another session may be that of a worker which died a moment ago: its statement ends within some seconds."""
TRANSACTION_SECONDS = 300
"""A long transaction is looked at again after this, while the window lasts."""
BY_SCHEDULE = "schedule"
SAID = 20
"""Actions that are not done, named one by one in the journal."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What may be set for it; hours and mode are options of the instance (`Maintenance_…`)."""

    ordered_seconds: int = 4 * 3600
    """Longest statement of an action that an operator ordered; one of the plan ends with the window."""


def run_once(context: Context, settings: Settings | None = None) -> Report:
    """Do one slice."""
    with context.database.connection() as conn:
        row = conn.execute(
            "select id, asked_by from workflow_run where workflow = %s and finished_at is null", (NAME,)
        ).fetchone()
    run, by = (row[0], "" if row[1] == BY_SCHEDULE else str(row[1])) if row is not None else (None, "")
    work = admin.session_name(run) if run is not None else ""
    try:
        with MaintenanceSession(context.instance, context.database.dsn, work) as session:
            return _Slice(context, session, settings or Settings(), run, by).work()
    except Maintained as exc:
        context.say("info", str(exc))
        return Report(more_after_seconds=BUSY_SECONDS)


class _Slice:
    """One slice: actions one after the other, each decided by new measures."""

    def __init__(
        self, context: Context, session: MaintenanceSession, limits: Settings, run: int | None, by: str
    ) -> None:
        self._context = context
        self._session = session
        self._limits = limits
        self._began = context.clock.boot_seconds()
        self._run = run
        self._by = by
        self._dealt: set[tuple[str, str]] = set()
        self._done = self._refused = self._measured = 0

    def work(self) -> Report:
        """Carry out what is due until nothing is, or until the slice's time is over."""
        self._open()
        while self._context.clock.boot_seconds() - self._began < SLICE_SECONDS * SLICE_SHARE:
            self._context.beat()
            with self._context.database.connection() as conn:
                chosen, _ = settings.read(conn)
                measures = measuring.measure(conn, self._context.clock.now())
                asked = actions.asked(conn)
                plans = not self._by or not actions.is_ordered(conn, self._run)
            self._measured = len(measures.tables) + len(measures.indexes)
            if asked:
                self._ordered(asked[0], measures, chosen)
            elif not plans:
                return self._report()
            elif chosen.advises:
                return self._advise(measures, chosen)
            elif (step := self._first(measures, chosen)) is not None:
                seconds = self._limits.ordered_seconds if self._by else self._until_closed(measures, chosen)
                self._carry_out(step, seconds)
            else:
                return self._leave(measures, chosen)
        return self._report(more_after_seconds=0)

    def _open(self) -> None:
        """Clear up after a slice whose worker died, and say who overrides the window."""
        with self._context.database.connection() as conn:
            cut = actions.cut_running(conn)
            self._dealt = actions.done_in(conn, self._run)
            window = settings.read(conn)[0].window
            actions.forget(conn, self._context.clock.now())
        for relation in cut:
            self._context.say("warning", f"what was done to {relation} was cut: the worker ended while it ran")
        if self._by and not self._dealt and not window.is_open(self._context.clock.now()):
            self._context.say("info", f"ordered by {self._by} outside the window {window} ({window.zone})")

    def _first(self, measures: Measures, chosen: policy.Settings) -> Step | None:
        """Return the first step of the plan that may be done now and was not dealt with in this run."""
        return next((step for step in self._due(measures, chosen) if not step.why_not), None)

    def _due(self, measures: Measures, chosen: policy.Settings) -> list[Step]:
        steps = policy.plan(measures, chosen, by=self._by)
        return [step for step in steps if (step.act, step.relation) not in self._dealt]

    def _ordered(self, row: actions.ActionRow, measures: Measures, chosen: policy.Settings) -> None:
        """Do what an operator asked for, or record why not."""
        due = [*policy.plan(measures, chosen, by=row.asked_by), *policy.of(measures, [row.relation], Act(row.act))]
        step = next((step for step in due if (step.act, step.relation) == (row.act, row.relation)), None)
        if step is None:
            step = Step(Act(row.act), row.relation, row.relation, row.reason, 0, 0, why_not="it is not there any more")
        why = (
            "this instance only advises" if chosen.advises else policy.obstacle(step, measures, chosen, by=row.asked_by)
        )
        if why:
            self._skip(replace(step, why_not=why), row.id)
        else:
            self._carry_out(step, self._limits.ordered_seconds, row)

    def _carry_out(self, step: Step, seconds: float, row: actions.ActionRow | None = None) -> None:
        """Run one statement and record it. A failure is its own; Cancelled and a lost session go up."""
        self._dealt.add((step.act, step.relation))
        with self._context.database.connection() as conn:
            action = actions.begin(conn, step, self._run, self._by, row.id if row else None)
        try:
            self._session.run(step, seconds, self._context.beat)
        except Cancelled:
            self._end(action, step, Outcome.CUT, "the run was stopped")
            raise
        except StatementTimeout:
            self._end(action, step, Outcome.CUT, f"it was cancelled, or not done within {spoken(seconds)}")
        except (MidsourceError, psycopg.Error) as exc:
            self._end(action, step, Outcome.FAILED, said(exc))
            if self._session.is_lost:
                raise
        else:
            self._end(action, step, Outcome.DONE)

    def _end(self, action: int, step: Step, outcome: Outcome, error: str = "") -> None:
        with self._context.database.connection() as conn:
            row = actions.end(conn, action, step.relation, outcome, error)
        self._done += outcome is Outcome.DONE
        self._refused += outcome is not Outcome.DONE
        sizes = f"{size(row.bytes_before or 0)} before, {size(row.bytes_after or 0)} after, {row.seconds or 0:.1f} s"
        ended = f": {outcome}: {error}" if error else ""
        self._context.say(
            "info" if outcome is Outcome.DONE else "warning",
            f"{step.act} {step.relation} ({step.reason}): {sizes}{ended}",
        )

    def _skip(self, step: Step, action: int | None = None, *, is_said: bool = True) -> None:
        self._dealt.add((step.act, step.relation))
        self._refused += 1
        with self._context.database.connection() as conn:
            actions.skip(conn, step, self._run, action)
        if is_said:
            self._context.say("warning", f"{step.act} {step.relation} ({step.reason}) is not done: {step.why_not}")

    def _advise(self, measures: Measures, chosen: policy.Settings) -> Report:
        """Store the plan for the DBA instead of carrying it out."""
        with self._context.database.transaction() as conn:
            kept = actions.advise(conn, policy.plan(measures, chosen, by=self._by), "", self._run)
        self._context.say("info", f"mode advise: {kept} statements are kept for the DBA, nothing is executed")
        return self._report()

    def _leave(self, measures: Measures, chosen: policy.Settings) -> Report:
        """End the run: nothing can be done now. What waits for an hour or a transaction is come back to."""
        left, now, window = self._due(measures, chosen), measures.at, chosen.window
        waiting = [step for step in left if policy.waits_for_window(step, measures, chosen)]
        held_up = [step for step in left if policy.waits_for_transaction(step, measures)]
        if held_up and not self._by and self._until_closed(measures, chosen) > TRANSACTION_SECONDS:
            self._context.say("info", f"{len(held_up)} actions wait: {held_up[0].why_not}")
            return self._report(more_after_seconds=TRANSACTION_SECONDS)
        if waiting:
            opens = window.opens_at(now if not window.is_open(now) else window.closes_at(now))
            with self._context.database.connection() as conn:
                admin.bring_forward(conn, NAME, opens)
            self._context.say(
                "info",
                f"{len(waiting)} actions wait for the window {window} ({window.zone}), which opens at {opens:%Y-%m-%d %H:%MZ}",
            )
        for position, step in enumerate(step for step in left if step not in waiting):
            self._skip(step, is_said=position < SAID)
        if not left and not self._dealt:
            self._context.say("info", f"nothing is due: {self._measured} tables and indexes looked at")
        return self._report()

    @staticmethod
    def _until_closed(measures: Measures, chosen: policy.Settings) -> float:
        """Return the seconds that are left of the window; 0 where it is not open."""
        if not chosen.window.is_open(measures.at):
            return 0.0
        return max(timedelta(0), chosen.window.closes_at(measures.at) - measures.at).total_seconds()

    def _report(self, more_after_seconds: float | None = None) -> Report:
        return Report(
            rows_read=self._measured,
            rows_written=self._done,
            rows_refused=self._refused,
            more_after_seconds=more_after_seconds,
        )
