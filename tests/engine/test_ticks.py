"""Back-off and the choice of restart: pure."""

from __future__ import annotations

from datetime import UTC, datetime

from midsource.engine.records import WorkflowRow
from midsource.engine.restarting import candidates
from midsource.engine.ticks import back_off
from midsource.model.workflow import TRANSITIONS, WorkflowEvent, WorkflowState


def test_back_off_is_short_once_and_then_doubles_to_an_hour() -> None:
    assert [back_off(n).total_seconds() for n in (0, 1, 2, 3, 4, 8, 9, 500)] == [0, 2, 30, 60, 120, 1920, 3600, 3600]


def row(name: str, state: WorkflowState, failed: bool) -> WorkflowRow:
    held_at = None if state.is_on_schedule else datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
    return WorkflowRow(
        name, state, failed, "* * * * *", "UTC", None, None, None, 0, None, "",
        held_at=held_at, held_by="alice" if held_at else "",
    )  # fmt: skip


def test_restart_takes_the_scheduled_and_the_failed_and_leaves_what_an_operator_holds() -> None:
    rows = [
        row("a", WorkflowState.STARTED, False),
        row("b", WorkflowState.RUNNING, True),
        row("c", WorkflowState.PAUSED, False),
        row("d", WorkflowState.PAUSED, True),
        row("e", WorkflowState.FINISHED, False),
        row("f", WorkflowState.EDITED, False),
    ]
    held = [
        ("c", "paused by alice since 2026-03-01 08:30 UTC"),
        ("d", "paused by alice since 2026-03-01 08:30 UTC; it had failed before"),
        ("e", "stopped by alice since 2026-03-01 08:30 UTC"),
        ("f", "never started"),
    ]
    chosen, left = candidates(rows, failed=True, scheduled=True)
    assert [r.name for r in chosen] == ["a", "b"]
    assert [(r.name, why) for r, why in left] == held
    chosen, left = candidates(rows, failed=True, scheduled=False)
    assert [r.name for r in chosen] == ["b"]
    assert [(r.name, why) for r, why in left] == [("a", "not failed"), *held]


def test_every_state_answers_every_event() -> None:
    for state in WorkflowState:
        for event in WorkflowEvent:
            assert TRANSITIONS[state].get(event) in {None, *WorkflowState}
