"""Waves, ticks of recurring deliveries, and jobs nobody has: decisions by values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midsource.model.delivery import DeliveryState
from midsource.model.schedule import plan
from midsource.policy.lost_jobs import needed
from midsource.policy.occurrences import decide, label_of
from midsource.policy.waves import MAX_WAVES, Waves, next_wave, too_late

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
DAY = 86_400


@pytest.mark.parametrize(
    ("waves", "total", "size", "count"),
    [
        (Waves(30, None, DAY), 1000, 300, 4),
        (Waves(20, None, DAY), 1000, 200, 5),
        (Waves(None, 400, DAY), 1000, 400, 3),
        (Waves(None, 5000, DAY), 1000, 5000, 1),
        (Waves(1, None, DAY), 10, 1, 10),
        (Waves(None, 1, DAY), 10_000_000, 10_000, MAX_WAVES),
        (Waves(20, None, DAY), 0, 1, 1),
    ],
)
def test_size_and_number_of_waves(waves: Waves, total: int, size: int, count: int) -> None:
    assert (waves.size(total), waves.count(total)) == (size, count)


@given(st.integers(1, 99), st.integers(1, 10**8))
def test_all_waves_together_are_everybody_and_none_is_empty(percent: int, total: int) -> None:
    waves = Waves(percent, None, DAY)
    size, count = waves.size(total), waves.count(total)
    assert (count - 1) * size < total <= count * size
    assert count <= MAX_WAVES


def test_the_next_wave_and_when() -> None:
    waves = Waves(30, None, 3600)
    first = next_wave(waves, 1000, START, START)
    assert first is not None
    assert (first.number, first.of, first.at) == (2, 4, START + timedelta(hours=1))
    before = next_wave(waves, 1000, START, START - timedelta(minutes=1))
    assert before is not None
    assert before.number == 1
    last = next_wave(waves, 1000, START, START + timedelta(hours=2, minutes=59))
    assert last is not None
    assert last.number == 4
    assert next_wave(waves, 1000, START, START + timedelta(hours=3)) is None


def test_the_last_wave_must_begin_before_validity_ends() -> None:
    waves = Waves(20, None, DAY)
    assert too_late(waves, 1000, 4 * DAY + 1) is None
    sentence = too_late(waves, 1000, 4 * DAY)
    assert sentence is not None
    assert "The last of 5 waves would begin 4d after the start" in sentence


WEEKLY = plan("weekly on monday at 09:00", "Europe/Paris")
TICK = datetime(2026, 3, 2, 8, tzinfo=UTC)


def test_a_tick_makes_one_and_the_next_is_a_week_later() -> None:
    decided = decide(WEEKLY, TICK, TICK + timedelta(seconds=20), 0, 1)
    assert (decided.tick, decided.missed) == (TICK, 0)
    assert decided.next_at == TICK + timedelta(weeks=1)


def test_missed_ticks_are_made_up_by_one_the_last_across_a_clock_change() -> None:
    decided = decide(WEEKLY, TICK, datetime(2026, 4, 1, tzinfo=UTC), 0, 1)
    assert decided.tick == datetime(2026, 3, 30, 7, tzinfo=UTC)  # summer time since the 29th
    assert decided.missed == 4
    assert decided.next_at == datetime(2026, 4, 6, 7, tzinfo=UTC)


def test_while_enough_are_open_a_tick_is_left_out_and_said() -> None:
    decided = decide(WEEKLY, TICK, TICK, 2, 2)
    assert decided.tick is None
    assert decided.next_at == TICK + timedelta(weeks=1)
    assert decided.why == "2 of it are still open, 2 may be"


def test_after_the_last_tick_none_comes() -> None:
    ended = plan("weekly on monday at 09:00", "Europe/Paris", valid_to=TICK + timedelta(days=1))
    assert decide(ended, TICK, TICK, 0, 1).next_at is None


def test_a_label_is_dated_in_the_schedules_zone_and_never_too_long() -> None:
    assert label_of("Letter", TICK, WEEKLY) == "Letter 2026-03-02 09:00"
    assert len(label_of("x" * 200, TICK, WEEKLY)) == 200


@pytest.mark.parametrize(
    ("state", "confirmed", "unconfirmed", "job"),
    [
        (DeliveryState.EDITED, False, False, None),
        (DeliveryState.EDITED, True, False, "prepare"),
        (DeliveryState.PERSONALISATION, True, False, "prepare"),
        (DeliveryState.MESSAGE_FINALISED, True, False, "handover"),
        (DeliveryState.PREPARATION_FAILED, True, False, None),
        (DeliveryState.READY, True, True, "order"),
        (DeliveryState.IN_PROGRESS, True, False, None),
        (DeliveryState.IN_PROGRESS, True, True, "order"),
    ],
)
def test_what_a_standing_delivery_needs(
    state: DeliveryState, confirmed: bool, unconfirmed: bool, job: str | None
) -> None:
    step = needed(state, confirmed=confirmed, unconfirmed_order=unconfirmed)
    assert (step.job if step else None) == job
