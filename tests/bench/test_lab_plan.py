"""What a run of chaos does is drawn from its seed alone."""

from __future__ import annotations

from itertools import pairwise

import pytest

from midsource.bench.lab.plan import LAST_SECONDS, VICTIMS, Kind, plan

TEN_MINUTES = 600.0


def test_the_same_seed_gives_the_same_faults_and_another_one_others() -> None:
    assert plan(7, TEN_MINUTES) == plan(7, TEN_MINUTES)
    assert plan(7, TEN_MINUTES) != plan(8, TEN_MINUTES)
    assert plan(7, 120.0) == plan(7, TEN_MINUTES)[: len(plan(7, 120.0))]


@pytest.mark.parametrize("seed", range(1, 40))
def test_ten_minutes_meet_every_kind_and_one_fault_ends_before_the_next_begins(seed: int) -> None:
    faults = plan(seed, TEN_MINUTES)
    assert {fault.kind for fault in faults} == set(Kind)
    assert [fault.number for fault in faults] == list(range(1, len(faults) + 1))
    for early, late in pairwise(faults):
        assert early.at + early.seconds < late.at
    assert faults[-1].at + faults[-1].seconds <= TEN_MINUTES
    for fault in faults:
        least, most = LAST_SECONDS[fault.kind]
        assert least <= fault.seconds <= most


def test_each_fault_says_what_it_does() -> None:
    found = {fault.kind: fault for seed in range(20) for fault in plan(seed, TEN_MINUTES)}
    assert found[Kind.KILLED].detail in VICTIMS
    assert 60 < abs(int(found[Kind.CLOCK].detail)) <= 600
    assert float(found[Kind.SLOW_LINK].detail) > 0
    assert str(found[Kind.LINK_CUT]).startswith("link cut for ")
