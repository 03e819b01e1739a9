"""Paused workflows cleanup: warns about technical workflows that were paused and forgotten, and ends them after four warnings.

*Reads* `workflow` of its own instance. *Writes* `warnings` and `warned_at` there, a line in the journal of the workflow that is
warned about, and, when it ends one, what `workflow stop` writes: state *finished*, a line, a row in the audit by *system*.
*Pointer*: none; the counts stand with each workflow and are cleared when it is started.

*Bounds*: an instance has some fifteen workflows; each is judged (policy/paused.py) in a transaction of its own. Option
`NmsServer_PausedWorkflowPeriod` says how long one may be paused without a word.

*When it fails*: a workflow that cannot be judged now is judged at the next run; running it twice warns once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from midsource.engine import admin, journal, records
from midsource.engine.records import WorkflowRow
from midsource.engine.work import Context, Report
from midsource.model.options import PAUSED_PERIOD, WORKFLOW_OPTIONS
from midsource.model.workflow import WorkflowState
from midsource.policy.paused import WARNINGS, Fate, judge
from midsource.security import audit
from midsource.security.roles import SYSTEM
from midsource.store.database import Connection
from midsource.store.options import PAUSED_SECONDS, OptionTable

NAME = "cleanupPausedWorkflows"
LABEL = "Paused workflows cleanup"
SCHEDULE = "weekly on monday at 05:00"
ROLES = ("marketing", "mid")
_OPTIONS = OptionTable(WORKFLOW_OPTIONS, counts={}, delays={PAUSED_PERIOD: PAUSED_SECONDS})


@dataclass(frozen=True, slots=True)
class Settings:
    """What may be set for it. ``period`` None: as the option says."""

    period: timedelta | None = None


def run_once(context: Context, settings: Settings | None = None) -> Report:
    """Judge every paused workflow; it is one slice."""
    with context.database.connection() as conn:
        period = (settings or Settings()).period or timedelta(seconds=_OPTIONS.seconds(conn, PAUSED_PERIOD))
        paused = [row for row in records.listing(conn) if row.state is WorkflowState.PAUSED]
    done = 0
    for row in paused:
        context.beat()
        with context.database.transaction() as conn:
            done += _judge(conn, context, row.name, period)
    return Report(rows_read=len(paused), rows_written=done)


def _judge(conn: Connection, context: Context, name: str, period: timedelta) -> bool:
    """Do what is due for one workflow; tell whether something was."""
    row, now = records.locked(conn, name), context.clock.now()
    if row is None or row.state is not WorkflowState.PAUSED or row.held_at is None:
        return False
    fate = judge(row.held_at, row.warnings, row.warned_at, period, now)
    since = f"paused by {row.held_by or admin.OPERATOR} since {row.held_at:%Y-%m-%d %H:%M} UTC"
    if fate is Fate.WARN:
        conn.execute("update workflow set warnings = warnings + 1, warned_at = %s where name = %s", (now, name))
        _say(conn, context, row, f"{since}: warning {row.warnings + 1} of {WARNINGS}; {_what_next(row)}")
    elif fate is Fate.END:
        admin.stop(conn, name, NAME)
        audit.record(conn, SYSTEM, "workflow.stop", name, why=since, warnings=row.warnings)
        _say(
            conn,
            context,
            row,
            f"{since}, and {row.warnings} warnings: ended; `midsource workflow start {name}` begins it again",
        )
    return fate is not Fate.NOTHING


def _what_next(row: WorkflowRow) -> str:
    left = WARNINGS - row.warnings - 1
    when = "it is ended next week" if left == 0 else f"it is ended in {left + 1} weeks"
    return f"{when} unless it is started (`midsource workflow start {row.name}`)"


def _say(conn: Connection, context: Context, row: WorkflowRow, line: str) -> None:
    """Say it in the journal of the workflow that is meant, with the change, and in the own one."""
    journal.write(conn, row.name, None, "warning", line)
    context.say("warning", f"{row.name} {line}")
