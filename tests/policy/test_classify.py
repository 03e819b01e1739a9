from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midsource.model.errors import ConfigError
from midsource.model.message import MessageEvent, Reason
from midsource.model.outcome import Attempt, Lost, Reply, Stage
from midsource.policy.classify import (
    BounceKind,
    BounceRule,
    Verdict,
    classify,
    parse_rules,
    reply_from_text,
    shipped_rules,
)

RULES = shipped_rules()
EXAMPLES = [(rule, example) for rule in RULES.rows for example in rule.examples]


def verdict(stage: Stage, text: str) -> Verdict:
    return classify(Attempt(stage, reply_from_text(text)), RULES)


@pytest.mark.parametrize(("rule", "example"), EXAMPLES, ids=lambda value: getattr(value, "name", str(value)[:40]))
def test_each_example_is_decided_by_its_own_rule(rule: BounceRule, example: str) -> None:
    assert RULES.find(reply_from_text(example)) is rule


def test_each_rule_says_where_it_comes_from() -> None:
    assert [rule.name for rule in RULES.rows if not rule.source or not rule.examples] == []


@pytest.mark.parametrize(
    ("stage", "reply", "event", "reason", "kind", "ours"),
    [
        (Stage.BODY, "250 2.0.0 ok", "accepted", Reason.NONE, "ignored", False),
        (Stage.RCPT, "550 5.1.1 no", "refused", Reason.USER_UNKNOWN, "hard", False),
        (Stage.RCPT, "552 5.2.2 full", "refused", Reason.MAILBOX_FULL, "soft", False),
        (Stage.RCPT, "452 4.2.2 full", "put_off", Reason.MAILBOX_FULL, "soft", False),
        (Stage.BODY, "550 5.2.1 off", "refused", Reason.ACCOUNT_DISABLED, "hard", False),
        (Stage.RCPT, "451 4.7.1 Greylisted", "put_off", Reason.UNREACHABLE, "ignored", True),
        (Stage.MAIL, "421 4.7.0 too many messages", "put_off", Reason.UNREACHABLE, "ignored", True),
        (Stage.RCPT, "550 5.7.1 blocked using zen.spamhaus.org", "refused", Reason.REFUSED, "ignored", True),
        (Stage.RCPT, "550 5.7.1 not authorized", "refused", Reason.REFUSED, "ignored", False),
        (Stage.RCPT, "550 what this means nobody knows", "refused", Reason.REFUSED, "ignored", False),
        (Stage.RCPT, "450 what this means nobody knows", "put_off", Reason.UNREACHABLE, "soft", False),
        (Stage.RESOLVE, "550 5.1.2 the domain does not exist", "refused", Reason.INVALID_DOMAIN, "hard", False),
        (Stage.RESOLVE, "556 5.1.10 null MX", "refused", Reason.INVALID_DOMAIN, "hard", False),
        (Stage.BANNER, "554 5.7.1 no service", "put_off", Reason.REFUSED, "ignored", True),
        (Stage.EHLO, "550 go away", "put_off", Reason.REFUSED, "ignored", True),
        (Stage.MAIL, "550 5.1.1 unknown user", "refused", Reason.USER_UNKNOWN, "ignored", True),
        (Stage.RCPT, "550 5.4.5 Daily sending quota exceeded", "put_off", Reason.UNREACHABLE, "ignored", True),
    ],
)
def test_what_a_reply_means(stage: Stage, reply: str, event: str, reason: Reason, kind: str, ours: bool) -> None:
    got = verdict(stage, reply)
    assert (got.event, got.reason, got.kind, got.ours) == (MessageEvent(event), reason, BounceKind(kind), ours)


@pytest.mark.parametrize(
    ("stage", "event", "reason", "ours"),
    [
        (Stage.RESOLVE, "put_off", Reason.UNREACHABLE, True),
        (Stage.CONNECT, "put_off", Reason.UNREACHABLE, False),
        (Stage.BANNER, "put_off", Reason.UNREACHABLE, False),
        (Stage.EHLO, "put_off", Reason.UNREACHABLE, False),
        (Stage.TLS, "put_off", Reason.UNREACHABLE, True),
        (Stage.MAIL, "put_off", Reason.UNREACHABLE, False),
        (Stage.RCPT, "put_off", Reason.UNREACHABLE, False),
        (Stage.DATA, "put_off", Reason.UNREACHABLE, False),
        (Stage.BODY, "lost", Reason.NONE, False),
        (Stage.RENDER, "unrenderable", Reason.OURS, True),
    ],
)
def test_what_a_loss_means(stage: Stage, event: str, reason: Reason, ours: bool) -> None:
    got = classify(Attempt(stage, Lost("why")), RULES)
    assert (got.event, got.reason, got.ours) == (MessageEvent(event), reason, ours)


@pytest.mark.parametrize(
    "reply",
    [
        "550 5.7.1 recipient is blocked by policy",
        "550 IP address 192.0.2.1 is invalid here",
        "550 Sender address does not exist",
        "550 5.1.0 sender unknown",
        "554 5.7.1 <spam@b.example>: delivery not authorized",
        "550 the mail system does not like this",
        "451 4.3.5 Server configuration problem: user unknown in local table",
    ],
)
def test_what_is_not_about_the_person_is_not_held_hard_against_them(reply: str) -> None:
    assert verdict(Stage.RCPT, reply).kind is not BounceKind.HARD


def test_an_address_in_the_text_is_not_read_as_words() -> None:
    assert verdict(Stage.RCPT, "550 5.1.1 <spam@spf.spamhaus.example>: no").rule == "bad_mailbox"


@given(
    stage=st.sampled_from(Stage),
    code=st.integers(200, 599),
    enhanced=st.sampled_from(["", "5.1.1", "4.2.2", "5.7.1", "2.0.0"]),
    text=st.text(max_size=100),
)
def test_only_a_positive_answer_to_the_body_is_a_sent_message(
    stage: Stage, code: int, enhanced: str, text: str
) -> None:
    got = classify(Attempt(stage, Reply(code, enhanced, text)), RULES)
    assert (got.event is MessageEvent.ACCEPTED) == (stage is Stage.BODY and code < 300)
    assert not got.ours or got.kind is BounceKind.IGNORED
    assert got.kind is not BounceKind.HARD or code >= 500
    if got.event is MessageEvent.REFUSED:
        assert code >= 500


def test_a_rule_of_the_operator_comes_first() -> None:
    own = parse_rules(
        '[[rule]]\nname="own"\npattern="not today"\nreason="MAILBOX_FULL"\nkind="soft"\nexamples=["550 5.1.1 not today"]\n'
        'source="ticket 12"'
    )
    assert RULES.below(own).find(reply_from_text("550 5.1.1 not today")) is own.rows[0]


def test_every_problem_of_a_table_is_told_at_once() -> None:
    text = """
[[rule]]
name = "a"
codes = [550]
reason = "BORED"
kind = "hard"
examples = ["550 x"]
source = "s"
[[rule]]
name = "b"
pattern = "("
reason = "REFUSED"
kind = "hard"
examples = ["550 x"]
source = "s"
[[rule]]
name = "c"
reason = "REFUSED"
kind = "hard"
examples = []
source = "s"
[[rule]]
name = "d"
colour = "red"
[[rule]]
codes = [550]
examples = ["550 x"]
"""
    with pytest.raises(ConfigError) as caught:
        parse_rules(text, "own.toml")
    problems = caught.value.problems
    assert [problem.split(":")[1].strip() for problem in problems] == ["rule a", "rule b", "rule c", "rule d", "rule 5"]
    assert "got 'BORED'" in problems[0]
    assert "unknown key colour" in problems[3]


def test_no_toml_at_all_is_a_problem_of_the_file() -> None:
    with pytest.raises(ConfigError, match=r"own\.toml"):
        parse_rules("[[rule", "own.toml")
