"""Make the runs that are due: the leader's turn over the schedules, each workflow in a transaction of its own.

A workflow is due at the end of its breaker's wait, else at its next tick. One that is new runs at once where it runs every hour
anyway, and waits for its time where it does not. A tick found late is made up once, or skipped and said so, as its range of the day allows
(model/schedule.py); a tick that finds a run unfinished is absorbed by it. A try again after a failure begins where a run may
begin: outside the range of the day it waits for the range's next opening, once the validity is over it is given up; both are
said. Runs made in the same turn begin a few
seconds apart (F43). A schedule that is over ends its workflow with a line that says why.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from midsource.engine import journal, moves, records
from midsource.engine.records import WorkflowRow
from midsource.model.errors import UserError, said
from midsource.model.schedule import Late, Plan
from midsource.model.workflow import WorkflowEvent
from midsource.store.database import Connection, Database

BATCH = 100
"""Workflows looked at in one turn; an instance has some fifteen."""
APART_SECONDS = 3
"""Between runs that are due in the same turn."""
BROKEN_SCHEDULE_WAIT = timedelta(hours=1)
"""A schedule that cannot be read is looked at again after this; `workflow start` looks at once."""
SCHEDULER = "its schedule"
"""Who ends a workflow whose schedule is over."""
_DUE = """
select name from workflow
 where state = any(%s) and coalesce(not_before, next_at, '-infinity') <= %s
   and (coalesce(not_before, next_at) is not null
        or not exists (select from workflow_run where workflow = name and finished_at is null))
 order by coalesce(not_before, next_at), name limit %s
"""

log = structlog.get_logger()


def make_runs(database: Database, now: datetime) -> int:
    """Make the runs that are due at ``now`` and return how many; a workflow that fails here holds up no other."""
    with database.connection() as conn:
        due = conn.execute(_DUE, (moves.ON_SCHEDULE_NUMBERS, now, BATCH)).fetchall()
    made = 0
    for (name,) in due:
        try:
            with database.transaction() as conn:
                made += _turn(conn, name, now, made * APART_SECONDS)
        except Exception as exc:  # noqa: BLE001 - each tick fails alone
            log.warning(
                "tick_failed", action="tick_failed", workflow=name, cause=said(exc)[:500], error=type(exc).__name__
            )
    return made


def _turn(conn: Connection, name: str, now: datetime, after_seconds: int) -> bool:
    """Do what is due for one workflow; tell whether a run was made. Another leader may be just doing so."""
    row = records.locked(conn, name)
    if row is None or not row.state.is_on_schedule:
        return False
    due = row.not_before or row.next_at
    if due is not None and due > now:
        return False
    try:
        plan = row.plan
    except UserError as exc:  # set by hand: this workflow says so, the others go on
        _broken(conn, row, str(exc), now)
        return False
    if due is None:
        return _begin(conn, row, plan, now, after_seconds)
    if row.not_before is not None:
        return _try_again(conn, row, plan, now, after_seconds)
    if plan.late(due, now) is Late.SKIPPED:
        _skip(conn, row, plan, due, now)
        return False
    if plan.late(due, now) is Late.MADE_UP:
        late = timedelta(seconds=int((now - due).total_seconds()))
        journal.write(conn, name, None, "info", f"the run due at {_shown(plan, due)} is made up now, {late} late")
    return _run(conn, row, plan, now, after_seconds)


def _begin(conn: Connection, row: WorkflowRow, plan: Plan, now: datetime, after_seconds: int) -> bool:
    """Put a workflow without a next tick on its schedule, or end it where no tick comes any more."""
    over = plan.why_over(now)
    if over:
        moves.move(conn, row.name, WorkflowEvent.EXPIRE, SCHEDULER)
        remedy = f"give it another schedule with `midsource workflow schedule {row.name}`, then start it"
        journal.write(conn, row.name, None, "warning", f"finished: {over}; {remedy}")
        return False
    if row.last_run_at is None and plan.schedule.is_hourly and plan.allows(now):
        return _run(conn, row, plan, now, after_seconds)
    conn.execute("update workflow set next_at = %s where name = %s", (plan.next_tick(now), row.name))
    return False


def _try_again(conn: Connection, row: WorkflowRow, plan: Plan, now: datetime, after_seconds: int) -> bool:
    """Make the run at the end of a breaker's wait, or let the breaker wait until one may begin; without such a time it is given up."""
    opens = plan.opens(now)
    if opens == now:
        return _run(conn, row, plan, now, after_seconds)
    if opens is None:
        journal.write(
            conn, row.name, None, "warning", "the try again after its failure is given up: its validity is over"
        )
        conn.execute(
            "update workflow set not_before = null, next_at = %s where name = %s", (plan.next_tick(now), row.name)
        )
        return False
    early = plan.valid_from is not None and now < plan.valid_from
    why = "its validity has not begun" if early else f"it is {_shown(plan, now)}, outside {plan.hours}"
    journal.write(
        conn, row.name, None, "warning", f"the try again after its failure waits until {_shown(plan, opens)}: {why}"
    )
    conn.execute("update workflow set not_before = %s where name = %s", (opens, row.name))
    return False


def _run(conn: Connection, row: WorkflowRow, plan: Plan, now: datetime, after_seconds: int) -> bool:
    """Make the run, and move on to the next tick; a try again at the end of a breaker's wait uses up neither tick nor run."""
    made = conn.execute(
        "insert into workflow_run (workflow, asked_by, due_at) values (%s, 'schedule', now() + make_interval(secs => %s)) "
        "on conflict (workflow) where finished_at is null do nothing",
        (row.name, after_seconds),
    ).rowcount
    is_tick = row.not_before is None or (row.next_at is not None and row.next_at <= now)
    left = row.runs_left
    if left and is_tick and made:
        left -= 1
    following = None if left == 0 else plan.next_tick(now)
    conn.execute(
        "update workflow set next_at = %s, runs_left = %s, not_before = null where name = %s",
        (following, left, row.name),
    )
    return bool(made)


def _skip(conn: Connection, row: WorkflowRow, plan: Plan, due: datetime, now: datetime) -> None:
    why = f"it is {_shown(plan, now)}, outside {plan.hours}" if plan.hours else "its validity is over"
    journal.write(conn, row.name, None, "warning", f"the run due at {_shown(plan, due)} is skipped: {why}")
    conn.execute(
        "update workflow set skipped_at = %s, next_at = %s, not_before = null where name = %s",
        (due, plan.next_tick(now), row.name),
    )


def _broken(conn: Connection, row: WorkflowRow, sentence: str, now: datetime) -> None:
    conn.execute(
        "update workflow set failed = true, last_error = %s, error_class = 'UserError', next_at = %s, not_before = null "
        "where name = %s",
        (sentence, now + BROKEN_SCHEDULE_WAIT, row.name),
    )


def _shown(plan: Plan, moment: datetime) -> str:
    return f"{moment.astimezone(plan.zone):%Y-%m-%d %H:%M} ({plan.zone.key})"
