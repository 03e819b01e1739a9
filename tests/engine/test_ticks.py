"""Schedules, back-off, and the choice of restart: pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from midsource.engine.admin import WorkflowRow, restart_candidates
from midsource.engine.ticks import back_off, check_schedule, next_tick
from midsource.model.errors import UserError
from midsource.model.workflow import TRANSITIONS, WorkflowEvent, WorkflowState


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "zone", "after", "expected"),
    [
        ("*/10 * * * *", "UTC", "2026-03-01T12:03", "2026-03-01T12:10"),
        ("*/10 * * * *", "UTC", "2026-03-01T12:10", "2026-03-01T12:20"),
        ("0 4 * * *", "Europe/Paris", "2026-01-10T03:30", "2026-01-11T03:00"),
        ("0 4 * * *", "Europe/Paris", "2026-07-10T03:30", "2026-07-11T02:00"),
        # The night of the gap, 29 March 2026: 02:30 does not exist, so it runs once right after.
        ("30 2 * * *", "Europe/Paris", "2026-03-28T12:00", "2026-03-29T01:30"),
        # The night of the overlap, 25 October 2026: 02:30 comes twice, it runs at the first.
        ("30 2 * * *", "Europe/Paris", "2026-10-24T12:00", "2026-10-25T00:30"),
        ("30 2 * * *", "Europe/Paris", "2026-10-25T00:30", "2026-10-26T01:30"),
    ],
)
def test_next_tick_means_the_wall_clock_of_its_zone(schedule: str, zone: str, after: str, expected: str) -> None:
    assert next_tick(schedule, zone, at(after)) == at(expected)


def test_ticks_never_stand_still_over_a_year_of_both_clock_changes() -> None:
    moment, seen = at("2026-01-01T02:30"), 0
    while moment < at("2027-01-01T02:30"):
        following = next_tick("30 2 * * *", "Europe/Lisbon", moment)
        assert timedelta(hours=20) < following - moment <= timedelta(hours=27)
        moment, seen = following, seen + 1
    assert seen == 365


@pytest.mark.parametrize(("schedule", "zone"), [("often", "UTC"), ("* * * * * *", "UTC"), ("* * * * *", "Mars/Base")])
def test_a_broken_schedule_is_refused(schedule: str, zone: str) -> None:
    with pytest.raises(UserError):
        check_schedule(schedule, zone)


def test_back_off_is_short_once_and_then_doubles_to_an_hour() -> None:
    assert [back_off(n).total_seconds() for n in (0, 1, 2, 3, 4, 8, 9, 500)] == [0, 2, 30, 60, 120, 1920, 3600, 3600]


def row(name: str, state: WorkflowState, failed: bool) -> WorkflowRow:
    return WorkflowRow(name, state, failed, "* * * * *", "UTC", None, None, None, 0, None, "")


def test_restart_takes_the_scheduled_and_the_failed_and_leaves_what_an_operator_holds() -> None:
    rows = [
        row("a", WorkflowState.STARTED, False),
        row("b", WorkflowState.STARTED, True),
        row("c", WorkflowState.PAUSED, False),
        row("d", WorkflowState.PAUSED, True),
    ]
    chosen, left = restart_candidates(rows, failed=True, scheduled=True)
    assert [r.name for r in chosen] == ["a", "b", "d"]
    assert [(r.name, why) for r, why in left] == [("c", "paused by an operator")]
    chosen, _ = restart_candidates(rows, failed=True, scheduled=False)
    assert [r.name for r in chosen] == ["b", "d"]


def test_every_state_answers_every_event() -> None:
    for state in WorkflowState:
        for event in WorkflowEvent:
            assert TRANSITIONS[state].get(event) in {None, *WorkflowState}
