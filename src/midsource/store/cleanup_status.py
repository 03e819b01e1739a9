"""What each step of `cleanup` did last: one row a step, written by the run as it goes, each write a transaction of its own.

A run is one or more slices. ``open_steps`` says which steps of a run are not over; a slice that was cut goes on there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from midsource.store.cleanup import Removed
from midsource.store.database import Connection, scalar

MAX_ERROR_TEXT = 1_000


@dataclass(frozen=True, slots=True)
class StepStatus:
    """What a step did in the last run that took it up. ``outcome`` None: that run is not done with it."""

    name: str
    began_at: datetime
    ended_at: datetime | None
    rows: int
    bytes: int
    seconds: float
    outcome: str | None
    error: str
    rows_before: int | None
    rows_after: int | None
    last_success_at: datetime | None
    failures: int
    error_class: str = ""


_COLUMNS = (
    "name, began_at, ended_at, rows, bytes, seconds, outcome, error, rows_before, rows_after, last_success_at, failures, "
    "error_class"
)


def unfinished_run(conn: Connection) -> int:
    """Return the run of `cleanup` that is under way, 0 where it is called without one."""
    return int(scalar(conn, "select id from workflow_run where workflow = 'cleanup' and finished_at is null") or 0)


def ask(conn: Connection, run_id: int, step: str) -> None:
    """Let a run do this step (and others asked for) only. In the transaction that asks for the run."""
    conn.execute("insert into cleanup_ask (run_id, step) values (%s, %s) on conflict do nothing", (run_id, step))


def asked(conn: Connection, run_id: int) -> list[str]:
    """Return the steps a run was asked for by name; none: it does all."""
    return [row[0] for row in conn.execute("select step from cleanup_ask where run_id = %s", (run_id,)).fetchall()]


def open_steps(conn: Connection, run_id: int, names: Sequence[str], now: datetime) -> list[str]:
    """Return which of the steps this run is not done with, in their order; steps it has not taken up begin here."""
    conn.execute(
        "insert into cleanup_step as s (name, run_id, began_at) select n, %(run)s, %(now)s from unnest(%(names)s::text[]) n "
        "on conflict (name) do update set run_id = excluded.run_id, began_at = excluded.began_at, ended_at = null, "
        "outcome = null, error = '', error_class = '', rows = 0, bytes = 0, seconds = 0, rows_before = null, rows_after = null "
        "where s.run_id <> excluded.run_id or (s.run_id = 0 and s.ended_at is not null)",
        {"run": run_id, "now": now, "names": list(names)},
    )
    found = conn.execute("select name from cleanup_step where run_id = %s and ended_at is null", (run_id,)).fetchall()
    waiting = {row[0] for row in found}
    return [name for name in names if name in waiting]


def before(conn: Connection, name: str, rows: int) -> None:
    """Note how many rows a step found when it began."""
    conn.execute("update cleanup_step set rows_before = %s where name = %s and rows_before is null", (rows, name))


def page(conn: Connection, name: str, removed: Removed, seconds: float) -> float:
    """Add a page; return the seconds that the step has used in this run."""
    return float(
        scalar(
            conn,
            "update cleanup_step set rows = rows + %s, bytes = bytes + %s, seconds = seconds + %s where name = %s "
            "returning seconds",
            (removed.rows, removed.bytes, seconds, name),
        )
    )


def end(
    conn: Connection,
    name: str,
    now: datetime,
    outcome: str,
    *,
    error: str = "",
    error_class: str = "",
    rows_after: int | None = None,
) -> None:
    """Note how a step ended: 'finished', 'failed' (with what error), 'out of time' (the rest is the next run's)."""
    conn.execute(
        "update cleanup_step set ended_at = %(now)s, outcome = %(outcome)s, error = %(error)s, error_class = %(class)s, "
        "rows_after = %(after)s, "
        "failures = case when %(outcome)s = 'failed' then failures + 1 else 0 end, "
        "last_success_at = case when %(outcome)s = 'failed' then last_success_at else %(now)s end where name = %(name)s",
        {
            "name": name,
            "now": now,
            "outcome": outcome,
            "error": error[:MAX_ERROR_TEXT],
            "class": error_class,
            "after": rows_after,
        },
    )


def failed(conn: Connection, run_id: int) -> list[tuple[str, str, str]]:
    """Return (step, error, its class) of what failed in a run."""
    found = conn.execute(
        "select name, error, error_class from cleanup_step where run_id = %s and outcome = 'failed' order by name",
        (run_id,),
    )
    return [(name, error, kind) for name, error, kind in found]


def listing(conn: Connection) -> dict[str, StepStatus]:
    """Return what each step did last, by name; steps that never ran are not in it."""
    rows = conn.execute(f"select {_COLUMNS} from cleanup_step").fetchall()  # noqa: S608 - constant
    return {row[0]: StepStatus(*row) for row in rows}
