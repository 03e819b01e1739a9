"""When a process is started again, without waiting for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midsource.supervise.postgres import FAILING_SECONDS
from midsource.supervise.restart import (
    LONGEST_SECONDS,
    POSTGRES_LONGEST_SECONDS,
    Rest,
    Restarts,
    Situation,
    Start,
    Stop,
    next_step,
)


def test_delays_double_from_one_second_to_sixty() -> None:
    restarts, delays = Restarts(), []
    for _ in range(9):
        restarts = restarts.after(lived_seconds=0.1)
        delays.append(restarts.delay_seconds())
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert restarts.total == 9


def test_postgresql_is_waited_for_by_all_and_so_waits_less() -> None:
    delays = [Restarts(in_a_row).delay_seconds(POSTGRES_LONGEST_SECONDS) for in_a_row in range(1, 8)]
    assert delays == [1, 2, 4, 8, 8, 8, 8]
    assert delays[-1] < FAILING_SECONDS, "`up` refuses what does not come back, not what is waiting for its next start"


def test_sixty_seconds_of_life_make_the_next_delay_the_shortest() -> None:
    restarts = Restarts(in_a_row=6, total=6)
    assert restarts.after(lived_seconds=59.9).delay_seconds() == 60
    assert restarts.after(lived_seconds=60).delay_seconds() == 1


@given(st.lists(st.floats(0, 1e6), max_size=2000))
def test_a_delay_is_never_longer_than_a_minute_nor_shorter_than_a_second(lives: list[float]) -> None:
    restarts = Restarts()
    for lived in lives:
        restarts = restarts.after(lived)
        assert 1 <= restarts.delay_seconds() <= LONGEST_SECONDS
    assert restarts.total == len(lives)


DOWN = Restarts(in_a_row=3, total=3)


@pytest.mark.parametrize(
    ("situation", "step"),
    [
        (Situation(wanted=True, running=False), Start()),
        (Situation(wanted=True, running=True), Rest()),
        (Situation(wanted=False, running=True), Stop()),
        (Situation(wanted=False, running=False), Rest()),
        (Situation(wanted=True, running=True, replace=True), Stop()),
        (Situation(wanted=True, running=False, replace=True, ended_at=100, restarts=DOWN), Start()),
        (Situation(wanted=False, running=False, replace=True), Rest()),
        (Situation(wanted=True, running=False, ended_at=99, restarts=DOWN), Rest(3.0)),
        (Situation(wanted=True, running=False, ended_at=96, restarts=DOWN), Start()),
    ],
    ids=["first", "well", "unwanted", "stopped", "replaced", "replacement", "stopped-after-all", "waits", "due"],
)
def test_next_step(situation: Situation, step: Start | Stop | Rest) -> None:
    assert next_step(situation, now=100) == step
