"""The record of maintenance: what was asked for, what is advised, what was done with sizes before and after.

An action is ASKED (by an operator) or begins as RUNNING (by the plan), and ends DONE, SKIPPED, FAILED or CUT. ADVISED ones
are the last plan of an instance that only advises; the next plan replaces them. Kept for ``KEEP_DAYS``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from midsource.model.maintenance import Act, Outcome, Step
from midsource.store.database import Connection, scalar
from midsource.store.maintenance.statements import known_rows, statement, total_bytes

KEEP_DAYS = 400
"""A year and a month: what was done at the same season last year can be looked up."""
MAX_ERROR_TEXT = 500
MAX_ASKED = 500
"""Actions waiting at most; an operator who names a parent asks for each of its partitions."""


@dataclass(frozen=True, slots=True)
class ActionRow:
    """One action as lists show it. Sizes in bytes; None where it has none (yet)."""

    id: int
    run_id: int | None
    asked_at: datetime
    asked_by: str
    act: str
    relation: str
    reason: str
    statement: str
    expected_bytes: int
    expected_gain: int
    outcome: str
    began_at: datetime | None
    ended_at: datetime | None
    bytes_before: int | None
    bytes_after: int | None
    error: str

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it is not over."""
        if self.began_at is None or self.ended_at is None:
            return None
        return max(0.0, (self.ended_at - self.began_at).total_seconds())


_COLUMNS = (
    "id, run_id, asked_at, asked_by, act, relation, reason, statement, expected_bytes, expected_gain, outcome, began_at, "
    "ended_at, bytes_before, bytes_after, error"
)


def latest(conn: Connection, limit: int = 50, before: int | None = None) -> list[ActionRow]:
    """Return the newest actions, newest first; with ``before`` those older than that one."""
    return _rows(conn, "where %(before)s::bigint is null or id < %(before)s order by id desc", limit, before=before)


def asked(conn: Connection) -> list[ActionRow]:
    """Return what operators asked for and nobody began yet, in their order."""
    return _rows(conn, "where outcome = 'asked' order by id", MAX_ASKED)


def advised(conn: Connection) -> list[ActionRow]:
    """Return the last plan that was advised, in its order."""
    return _rows(conn, "where outcome = 'advised' order by id", MAX_ASKED)


def of(conn: Connection, ids: Sequence[int]) -> list[ActionRow]:
    """Return these actions, in the order of their ids."""
    return _rows(conn, "where id = any(%(ids)s) order by id", MAX_ASKED, ids=list(ids))


def unmended(conn: Connection, limit: int = 50) -> list[ActionRow]:
    """Return the actions that failed or were cut and whose relation no later one has mended, newest first."""
    return _rows(
        conn,
        "a where outcome in ('failed', 'cut') and not exists (select from maintenance_action b "
        "where b.relation = a.relation and b.act = a.act and b.id > a.id) order by id desc",
        limit,
    )


def ask(conn: Connection, steps: Iterable[Step], by: str) -> list[int]:
    """Store what an operator asked for; what is asked for already keeps its place. Return the ids, in order."""
    waiting = {row.statement: row.id for row in asked(conn)}
    found = []
    for step in list(steps)[:MAX_ASKED]:
        known = waiting.get(statement(step))
        found.append(_insert(conn, step, Outcome.ASKED, by, None) if known is None else known)
    return found


def advise(conn: Connection, steps: Iterable[Step], by: str, run_id: int | None) -> int:
    """Replace the advised plan by ``steps``; return how many."""
    conn.execute("delete from maintenance_action where outcome = 'advised'")
    return len([_insert(conn, step, Outcome.ADVISED, by, run_id) for step in list(steps)[:MAX_ASKED]])


def begin(conn: Connection, step: Step, run_id: int | None, by: str, action: int | None = None) -> int:
    """Record that ``step`` begins, as the asked ``action`` or as one of the plan; return its id."""
    if action is None:
        action = _insert(conn, step, Outcome.RUNNING, by, run_id)
    conn.execute(
        "update maintenance_action set outcome = 'running', run_id = %s, began_at = clock_timestamp(), bytes_before = %s "
        "where id = %s",
        (run_id, total_bytes(conn, step.relation), action),
    )
    return action


def end(conn: Connection, action: int, relation: str, outcome: Outcome, error: str = "") -> ActionRow:
    """Record how an action ended, with what the relation measures now."""
    conn.execute(
        "update maintenance_action set outcome = %s, ended_at = clock_timestamp(), bytes_after = %s, rows_after = %s, "
        "error = %s where id = %s",
        (outcome, total_bytes(conn, relation), known_rows(conn, relation), error[:MAX_ERROR_TEXT], action),
    )
    return _rows(conn, "where id = %(id)s", 1, id=action)[0]


def skip(conn: Connection, step: Step, run_id: int | None, action: int | None = None) -> None:
    """Record that ``step`` was due and why it was not done."""
    if action is None:
        action = _insert(conn, step, Outcome.SKIPPED, "", run_id)
    conn.execute(
        "update maintenance_action set outcome = 'skipped', run_id = %s, ended_at = clock_timestamp(), error = %s where id = %s",
        (run_id, step.why_not[:MAX_ERROR_TEXT], action),
    )


def cut_running(conn: Connection) -> list[str]:
    """Mark as CUT what is recorded as running, when nobody else can be running it; return the relations."""
    rows = conn.execute(
        "update maintenance_action set outcome = 'cut', ended_at = clock_timestamp(), "
        "error = 'the worker ended while it ran' where outcome = 'running' returning relation"
    ).fetchall()
    return [relation for (relation,) in rows]


def is_ordered(conn: Connection, run_id: int | None) -> bool:
    """Tell whether operators ordered actions by name that this run has dealt with: then it is about those alone."""
    return bool(
        scalar(conn, "select exists (select from maintenance_action where run_id = %s and was_asked)", (run_id,))
    )


def done_in(conn: Connection, run_id: int | None) -> set[tuple[str, str]]:
    """Return (act, relation) of everything that this run has dealt with: nothing is done twice in a run."""
    rows = conn.execute(
        "select act, relation from maintenance_action where run_id = %s and outcome <> 'asked'", (run_id,)
    ).fetchall()
    return {(act, relation) for act, relation in rows}


def forget(conn: Connection, now: datetime) -> int:
    """Delete what ended more than ``KEEP_DAYS`` ago; return how many rows."""
    return conn.execute(
        "delete from maintenance_action where asked_at < %s - make_interval(days => %s) and outcome not in ('asked', 'running')",
        (now, KEEP_DAYS),
    ).rowcount


def _insert(conn: Connection, step: Step, outcome: Outcome, by: str, run_id: int | None) -> int:
    row = conn.execute(
        "insert into maintenance_action (run_id, asked_by, act, relation, reason, statement, expected_bytes, expected_gain, "
        "outcome, was_asked) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) returning id",
        (
            run_id, by, Act(step.act), step.relation, step.reason, statement(step), step.cost_bytes, step.gain_bytes, outcome,
            outcome is Outcome.ASKED,
        ),
    ).fetchone()  # fmt: skip
    assert row is not None
    return int(row[0])


def _rows(conn: Connection, condition: str, limit: int, **values: object) -> list[ActionRow]:
    with conn.cursor(row_factory=class_row(ActionRow)) as cursor:
        return cursor.execute(
            f"select {_COLUMNS} from maintenance_action {condition} limit %(limit)s".encode(),  # noqa: S608 - constants
            {**values, "limit": limit},
        ).fetchall()
