"""What a row says: medians, spread, ratios, and when a target counts as met."""

from __future__ import annotations

import pytest

from midsource.bench.row import Beside, Goal, Measure, Row, Runs, show

FASTER = Goal("ratio", 0.6, "of openssl")
INFORMS = Goal("messages", 4_000, "msg/s", informs=True)


def row(*, ratio: tuple[float, ...] | None, scaled: bool = False) -> Row:
    figure = Measure("messages", "msg/s", (900.0, 1_000.0, 1_500.0))
    beside = Beside("openssl", None)
    if ratio is not None:
        beside = Beside("openssl", Measure("signatures", "a second", (1_600.0,)), Measure("ratio", "", ratio))
    return Row("send", "what it is", figure, (FASTER, INFORMS), (beside,), scaled=scaled)


def test_the_middle_run_counts_and_the_spread_says_what_it_is_worth() -> None:
    figure = row(ratio=(0.7,)).figure
    assert figure.median == 1_000
    assert figure.spread == pytest.approx(0.6)


def test_the_ratio_decides_where_a_row_names_both() -> None:
    assert row(ratio=(0.5, 0.65, 0.7)).is_met
    assert row(ratio=(0.55, 0.59, 0.7)).is_met is False


def test_without_its_limit_or_with_other_work_a_target_is_not_judged() -> None:
    assert row(ratio=None).is_met is None
    assert row(ratio=(0.7,), scaled=True).is_met is None


def test_a_ratio_that_cannot_be_judges_nothing() -> None:
    """OpenSSL was measured while others used the machine."""
    goals = (Goal("ratio", 0.6, "of openssl", ceiling=1.0),)
    beside = (Beside("openssl", Measure("signatures", "a second", (10.0,)), Measure("ratio", "", (1.57,))),)
    disturbed = Row("send", "what it is", Measure("messages", "msg/s", (15.7,)), goals, beside)
    assert disturbed.is_met is None
    assert disturbed.to_json()["goals"][0]["holds"] is None


def test_json_says_each_run_and_each_goal() -> None:
    said = row(ratio=(0.5,)).to_json()
    assert said["figure"]["runs"] == [900, 1_000, 1_500]
    assert [(goal["decides"], goal["holds"]) for goal in said["goals"]] == [(True, False), (False, False)]
    assert row(ratio=None).to_json()["beside"] == [{"name": "openssl", "absent": "not installed"}]


def test_a_goal_at_most_holds_below_its_bound() -> None:
    goal = Goal("CPU", 0.1, "s", at_most=True)
    assert [goal.holds(value) for value in (0.1, 0.11)] == [True, False]
    assert goal.words == "CPU ≤ 0.1 s"


def test_runs_are_collected_in_order_and_absent_ones_left_out() -> None:
    runs = Runs()
    runs.add("a", "s", 1)
    runs.add("a", "s", 3)
    assert runs["a"].values == (1.0, 3.0)
    assert [measure.name for measure in runs.several(("a", "b"))] == ["a"]


@pytest.mark.parametrize(
    ("value", "said"), [(4_312.7, "4 310"), (0.6234, "0.623"), (15.43, "15.4"), (999.6, "1000"), (0, "0")]
)
def test_numbers_are_shown_as_people_read_them(value: float, said: str) -> None:
    assert show(value) == said
