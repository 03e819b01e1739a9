"""Restart several technical workflows: which of them, which not and why, and their starts spread over time.

`restart --scheduled --failed` is what an operator asks for after an outage. What somebody paused or stopped is left, and said.
Each is restarted in a transaction of its own, so one that cannot be holds up no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from midsource.engine import admin, circuit, records
from midsource.engine.records import WorkflowRow
from midsource.model.errors import MidsourceError
from midsource.model.workflow import WorkflowState
from midsource.store.database import Connection, Database

SPREAD_SECONDS = 5
"""Between the starts of workflows that are restarted together, so that they do not ask for the same rows at once (F43)."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is to be restarted, and what is left with the reason."""

    rows: Sequence[WorkflowRow]
    left: Sequence[tuple[WorkflowRow, str]]


@dataclass(frozen=True, slots=True)
class Restart:
    """One restart. ``run`` None: it was not done, because of ``problem`` or because it was only looked at."""

    name: str
    after_seconds: int
    different: str
    run: int | None = None
    problem: str = ""


def choose(conn: Connection, names: Sequence[str], *, failed: bool, scheduled: bool) -> Chosen:
    """Choose those of the flags, and those named whatever their state. Raises NotFound for a name that is not there."""
    chosen, left = candidates(records.listing(conn), failed=failed, scheduled=scheduled)
    known = {row.name for row in chosen}
    chosen += [records.get(conn, name) for name in dict.fromkeys(names) if name not in known]
    return Chosen(chosen, [(row, why) for row, why in left if row.name not in names])


def look(conn: Connection, rows: Sequence[WorkflowRow]) -> list[Restart]:
    """Say what a restart of ``rows`` would do."""
    return [
        Restart(
            row.name,
            index * SPREAD_SECONDS,
            circuit.different(row, records.runs(conn, row.name, circuit.RUNS_LOOKED_AT)),
        )
        for index, row in enumerate(rows)
    ]


def restart_all(
    database: Database,
    rows: Sequence[WorkflowRow],
    by: str,
    now: datetime,
    record: Callable[[Connection, str, int], None],
) -> Iterator[Restart]:
    """Restart each of ``rows``; ``record`` writes its row of the audit in the same transaction."""
    with database.connection() as conn:
        looked = look(conn, rows)
    for one in looked:
        try:
            with database.transaction() as conn:
                run = admin.restart(conn, one.name, by, now, after_seconds=one.after_seconds)
                record(conn, one.name, run)
            yield Restart(one.name, one.after_seconds, one.different, run)
        except MidsourceError as exc:
            yield Restart(one.name, one.after_seconds, one.different, problem=str(exc))


def candidates(
    rows: list[WorkflowRow], *, failed: bool, scheduled: bool
) -> tuple[list[WorkflowRow], list[tuple[WorkflowRow, str]]]:
    """Choose what `restart --failed --scheduled` restarts, and what it leaves, with the reason. Pure.

    What an operator paused or stopped is left, also where it had failed: somebody holds it on purpose.
    """
    chosen, left = [], []
    for row in rows:
        if not row.state.is_on_schedule:
            left.append((row, _held(row)))
        elif scheduled or (failed and row.failed):
            chosen.append(row)
        else:
            left.append((row, "not failed"))
    return chosen, left


def _held(row: WorkflowRow) -> str:
    if row.state is WorkflowState.EDITED:
        return "never started"
    who = row.held_by or admin.OPERATOR
    since = f"{row.held_at:%Y-%m-%d %H:%M} UTC" if row.held_at else "an unknown time"
    is_paused = row.state is WorkflowState.PAUSED
    held = f"paused by {who} since {since}" if is_paused else f"stopped by {who} since {since}"
    return f"{held}; it had failed before" if row.failed else held
