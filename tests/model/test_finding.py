"""When a finding opens, worsens, changes and closes: by values."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midsource.model.finding import (
    CLEAN_LOOKS,
    FAILED,
    MAX_SUBJECT,
    MAX_TEXT,
    Change,
    Event,
    Finding,
    Seen,
    Severity,
    Standing,
    age,
    judge,
    needs_somebody,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATE = Finding("pointer.late", "a", Severity.WARNING, "3 h behind", "slow", "wait")
OTHER = Finding("workflow.failed", "cleanup", Severity.ERROR, "failed", "full", "free space")


def row(finding: Finding, number: int = 1, clean_looks: int = 0) -> Standing:
    return Standing(number, finding, NOW, NOW, NOW, clean_looks=clean_looks)


def test_what_is_seen_first_opens_and_what_is_seen_again_is_the_same() -> None:
    assert judge([], [LATE], {"pointer.late"}) == [Change(Event.OPENED, LATE)]
    assert judge([row(LATE)], [LATE], {"pointer.late"}) == [Change(Event.SAME, LATE, 1)]


@pytest.mark.parametrize(
    ("after", "event"),
    [
        (replace(LATE, evidence="4 h behind"), Event.CHANGED),
        (replace(LATE, severity=Severity.ERROR), Event.WORSENED),
        (replace(LATE, severity=Severity.INFO), Event.CHANGED),
        (replace(LATE, healable=True), Event.CHANGED),
    ],
)
def test_other_evidence_is_a_change_and_not_a_new_finding(after: Finding, event: Event) -> None:
    assert judge([row(LATE)], [after], {"pointer.late"}) == [Change(event, after, 1)]


def test_it_closes_after_two_clean_looks_in_a_row_and_not_before() -> None:
    assert CLEAN_LOOKS == 2
    assert judge([row(LATE)], [], {"pointer.late"}) == [Change(Event.CLEAN, LATE, 1)]
    assert judge([row(LATE, clean_looks=1)], [], {"pointer.late"}) == [Change(Event.CLOSED, LATE, 1)]
    assert judge([row(LATE, clean_looks=1)], [LATE], {"pointer.late"}) == [Change(Event.SAME, LATE, 1)]


def test_a_check_that_did_not_look_leaves_its_findings_as_they_are() -> None:
    assert judge([row(LATE), row(OTHER, 2)], [], {"workflow.failed"}) == [Change(Event.CLEAN, OTHER, 2)]


def test_a_failed_check_is_over_when_that_check_has_looked() -> None:
    failed = Finding(FAILED, "pointer.late", Severity.WARNING, "could not look", "", "")
    assert judge([row(failed)], [], {"workflow.failed"}) == []
    assert judge([row(failed)], [], {"pointer.late"}) == [Change(Event.CLEAN, failed, 1)]


def test_two_of_one_key_are_the_worst_of_them() -> None:
    worse = replace(LATE, severity=Severity.CRITICAL)
    assert judge([], [LATE, worse, LATE], set()) == [Change(Event.OPENED, worse)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(Severity))), st.sets(st.sampled_from("abc")))
def test_every_key_has_exactly_one_change(seen: list[tuple[str, Severity]], open_now: set[str]) -> None:
    findings = [replace(LATE, subject=subject, severity=severity) for subject, severity in seen]
    rows = [row(replace(LATE, subject=subject), n) for n, subject in enumerate(sorted(open_now), 1)]
    changes = judge(rows, findings, {"pointer.late"})
    keys = [change.finding.key for change in changes]
    assert len(keys) == len(set(keys))
    assert {subject for _, subject in keys} == open_now | {subject for subject, _ in seen}
    assert all((change.id is None) == (change.finding.subject not in open_now) for change in changes)


def test_texts_are_cut_at_their_bounds() -> None:
    seen = Seen(Severity.INFO, "e" * 9999, "c" * 9999, "r" * 9999, subject="s" * 9999)
    found = Finding.of("x", (), seen)
    assert {len(found.evidence), len(found.cause), len(found.remedy)} == {MAX_TEXT}
    assert len(found.subject) == MAX_SUBJECT


def test_only_what_is_above_info_needs_somebody() -> None:
    assert not needs_somebody([replace(LATE, severity=Severity.INFO)])
    assert needs_somebody([replace(LATE, severity=Severity.INFO), LATE])


@pytest.mark.parametrize(
    ("span", "said"),
    [
        (timedelta(seconds=-5), "0 s"),
        (timedelta(seconds=119), "119 s"),
        (timedelta(minutes=119), "119 min"),
        (timedelta(hours=47), "47 h"),
        (timedelta(days=2000), "2000 days"),
    ],
)
def test_an_age_is_said_as_people_say_it(span: timedelta, said: str) -> None:
    assert age(span) == said
