"""Exclusions: the order of the field, and what switches turn off."""

from __future__ import annotations

import pytest

from midsource.model.message import Reason
from midsource.policy.exclusion import ORDER, Fact, Switch, applicable, reason_for


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ((), Reason.NONE),
        ((Fact.NO_ADDRESS, Fact.OPTED_OUT), Reason.NO_ADDRESS),
        ((Fact.UNMAILABLE, Fact.DENYLISTED), Reason.BAD_ADDRESS),
        ((Fact.OPTED_OUT, Fact.QUARANTINED), Reason.DENYLISTED),
        ((Fact.QUARANTINED, Fact.DUPLICATE), Reason.QUARANTINED),
        ((Fact.DUPLICATE,), Reason.DUPLICATE),
    ],
)
def test_first_rule_of_the_order_gives_the_reason(facts: tuple[Fact, ...], reason: Reason) -> None:
    assert reason_for(facts) is reason


def test_switches_turn_off_their_rules_only() -> None:
    assert reason_for({Fact.OPTED_OUT, Fact.DUPLICATE}, {Switch.DENYLIST}) is Reason.DUPLICATE
    assert reason_for({Fact.DUPLICATE}, {Switch.DUPLICATES}) is Reason.NONE
    assert [rule.fact for rule in applicable(tuple(Switch))] == [Fact.NO_ADDRESS, Fact.UNMAILABLE, Fact.QUARANTINED]


def test_every_fact_has_one_rule() -> None:
    assert sorted(rule.fact for rule in ORDER) == sorted(Fact)
