"""The short form of `make crash`: every kind of process once or more, in four deliveries; and the plans themselves."""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.crash.plan import Kind, Phase, RoundPlan, Strike, plan
from tests.crash.report import Report, progress_line
from tests.crash.rounds import Round
from tests.crash.runner import run

PEOPLE = 3_000
SHORT = (
    ((Kind.MTA, Phase.SENDING), (Kind.MID_WEB, Phase.LOG_RETURN), (Kind.MARKETING_WEB, Phase.FINISHING)),
    ((Kind.SUPERVISOR, Phase.SENDING),),
    ((Kind.POSTGRES, Phase.HANDING_OVER), (Kind.MID_WORKER, Phase.SENDING), (Kind.POSTGRES_BACKEND, Phase.LOG_RETURN)),
    ((Kind.MARKETING_WORKER, Phase.PREPARING), (Kind.POSTGRES_HOLDER, Phase.SENDING), (Kind.MTA, Phase.SENDING)),
)
"""What is killed in which phase, in each round; the moments are drawn."""


@pytest.mark.slow
def test_whatever_is_killed_nobody_is_lost_and_nobody_gets_two(chance: random.Random, tmp_path: Path) -> None:
    done: list[Round] = []

    def note(one: Round) -> None:
        done.append(one)
        sys.stdout.write(progress_line(one) + "\n")

    run([_drawn(number, cards, chance) for number, cards in enumerate(SHORT, 1)], PEOPLE, tmp_path, note)
    assert [one.findings for one in done] == [[]] * len(SHORT)
    assert sum(len(one.hits) for one in done) == sum(map(len, SHORT))
    report = Report(0, PEOPLE, len(SHORT), "this one", done)
    report.write(tmp_path / "report.md")
    assert report.markdown().startswith("# Crash test: green")


def test_a_seed_says_everything_and_a_longer_run_begins_with_the_shorter() -> None:
    assert plan(7, 20) == plan(7, 40)[:20]
    assert plan(7, 20) != plan(8, 20)


def test_a_long_run_kills_every_kind_in_every_phase_and_many_times() -> None:
    first = Counter((one.strikes[0].kind, one.strikes[0].phase) for one in plan(3, 200))
    assert set(first) == {(kind, phase) for kind in Kind for phase in Phase}
    assert min(first.values()) == 4


def _drawn(number: int, cards: tuple[tuple[Kind, Phase], ...], chance: random.Random) -> RoundPlan:
    shares = sorted(chance.uniform(0.05, 0.9) for _ in cards)
    strikes = [
        Strike(kind, phase, share, chance.uniform(0, 0.1)) for (kind, phase), share in zip(cards, shares, strict=True)
    ]
    return RoundPlan(number, tuple(strikes))
