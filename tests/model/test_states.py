"""The state tables of deliveries and messages: total, consistent with the database and the field's numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import midsource
from midsource.model import delivery, message, workflow
from midsource.model.delivery import DeliveryEvent, DeliveryState
from midsource.model.message import MessageEvent, MessageState

MIGRATIONS = Path(midsource.__file__).parent / "store" / "migrations"


def test_every_state_of_a_delivery_answers_every_event() -> None:
    for state in DeliveryState:
        for event in DeliveryEvent:
            assert delivery.next_state(state, event) in {None, *DeliveryState}


def test_final_states_move_no_more_and_every_other_state_can_end() -> None:
    def reach(state: DeliveryState, seen: set[DeliveryState]) -> set[DeliveryState]:
        for following in delivery.TRANSITIONS[state].values():
            if following not in seen:
                reach(following, seen | {following})
                seen.add(following)
        return seen

    for state in DeliveryState:
        assert (not delivery.TRANSITIONS[state]) == state.is_final
        if not state.is_final:
            assert DeliveryState.STOPPED in reach(state, set()), f"{state.label} cannot be stopped"


def test_the_life_of_a_delivery_in_events() -> None:
    state = DeliveryState.EDITED
    for event in (
        DeliveryEvent.TARGETED,
        DeliveryEvent.PERSONALISE,
        DeliveryEvent.FINALISED,
        DeliveryEvent.HANDED_OVER,
        DeliveryEvent.START,
        DeliveryEvent.FIRST_MESSAGE,
        DeliveryEvent.PAUSE,
        DeliveryEvent.PAUSED,
    ):
        following = delivery.next_state(state, event)
        assert following is not None, (state, event)
        state = following
    assert state is DeliveryState.PAUSED
    for event in (
        DeliveryEvent.RESUME,
        DeliveryEvent.ONLY_RETRIES_LEFT,
        DeliveryEvent.MESSAGES_READY,
        DeliveryEvent.NOTHING_PENDING,
    ):
        following = delivery.next_state(state, event)
        assert following is not None, (state, event)
        state = following
    assert state is DeliveryState.FINISHED


def test_the_guard_of_a_compare_and_set_is_read_from_the_table() -> None:
    assert delivery.states_accepting(DeliveryEvent.PAUSE) == (
        DeliveryState.START_PENDING,
        DeliveryState.IN_PROGRESS,
        DeliveryState.RETRY,
    )


def test_what_is_sent_stays_sent_whatever_comes_later() -> None:
    assert not message.TRANSITIONS[MessageState.SENT]
    for state in (MessageState.PENDING, MessageState.DEFERRED, MessageState.UNCERTAIN, MessageState.FAILED):
        assert message.TRANSITIONS[state][MessageEvent.ACCEPTED] is MessageState.SENT


def test_our_own_states_lie_inside_the_field_s_pending() -> None:
    assert {state for state in MessageState if state.status == 6} == {
        MessageState.PENDING,
        MessageState.DEFERRED,
        MessageState.UNCERTAIN,
    }


@pytest.mark.parametrize(
    ("file", "table", "states"),
    [
        ("marketing/versions/0001_first.sql", "delivery", {int(state) for state in DeliveryState}),
        ("marketing/versions/0001_first.sql", "broad_log", {int(state) for state in MessageState}),
        ("mid/versions/0001_first.sql", "message", {int(state) for state in MessageState if state}),
        ("common/0001_common.sql", "workflow", {int(state) for state in workflow.WorkflowState}),
    ],
)
def test_the_database_allows_exactly_the_states_of_the_table(file: str, table: str, states: set[int]) -> None:
    body = (MIGRATIONS / file).read_text().partition(f"create table {table} (")[2].partition("\n)")[0]
    allowed = re.search(r"state\s+smallint[^,]*?check \(state in \(([^)]*)\)\)", body, re.DOTALL)
    assert allowed is not None
    assert {int(number) for number in allowed[1].split(",")} == states
