"""A preparation refused for its content, and what is no reason to refuse."""

from __future__ import annotations

import pytest
from tests.marketing.preparation_scene import Work

from midsource.marketing.preparation import PreparationFailed
from midsource.model.delivery import DeliveryState


def test_unknown_name_fails_with_its_line_and_nothing_is_targeted(work: Work) -> None:
    work.bring_sample(50)
    number = work.create_text("Hello\n{% if recipient.vip %}{{ recipient.frist_name }}{% endif %}")
    with pytest.raises(
        PreparationFailed, match=r"text line 2: 'recipient.frist_name' is unknown \(did you mean first_name\?\)"
    ):
        work.prepare(number)
    made = work.get(number)
    assert (made.state, made.targeted) == (DeliveryState.PREPARATION_FAILED, None)
    assert made.findings[0]["check"] == "template"
    assert "frist_name" in made.error
    with pytest.raises(PreparationFailed):  # asking the job again does not hide it
        work.prepare(number)


def test_template_that_fails_for_one_shape_of_data_only_is_found(work: Work) -> None:
    work.bring("email,points\n" + "".join(f"p{n}@x.example,{n % 7 or ''}\n" for n in range(40)))
    number = work.create_text("Hello\n\n{{ 100 / recipient.points }}")
    with pytest.raises(PreparationFailed, match="text line 3"):
        work.prepare(number)
    assert work.get(number).state == DeliveryState.PREPARATION_FAILED
    assert work.get(number).to_deliver == 40


def test_empty_value_is_no_fault(work: Work) -> None:
    work.bring("email,first_name\na@x.example,\nb@x.example,Bob\n")
    number = work.create_text("Hello {{ recipient.first_name }}")
    work.prepare(number)
    assert work.get(number).state == DeliveryState.MESSAGE_FINALISED


def test_line_break_on_its_way_into_a_header_concerns_one_person(work: Work) -> None:
    work.bring('email,nick\na@x.example,"Eve\r\nBcc: all@x.example"\nb@x.example,Bob\n')
    (work.folder / "body.txt").write_text("{{ links.unsubscribe }}", encoding="utf-8")
    number = work.create('label = "A"\nsubject = "News for {{ recipient.nick }}"\ntext = "body.txt"\n')
    work.prepare(number)
    made = work.get(number)
    assert (made.state, made.to_deliver) == (DeliveryState.MESSAGE_FINALISED, 2)
    warnings = [f["sentence"] for f in made.findings if f["severity"] == "warning" and f["check"] == "render"]
    assert warnings == ["subject: a control character (U+000D) cannot be in a header (message 1)."]


def test_missing_opt_out_foreign_sender_and_late_date_are_said_together(work: Work) -> None:
    work.bring("email\na@x.example\n")
    (work.folder / "body.txt").write_text("Hello", encoding="utf-8")
    number = work.create(
        'label = "A"\nsubject = ""\ntext = "body.txt"\ncontact_at = 2026-02-01T00:00:00Z\n[sender]\naddress = "a@other.example"\n'
    )
    with pytest.raises(PreparationFailed):
        work.prepare(number)
    errors = {f["check"] for f in work.get(number).findings if f["severity"] == "error"}
    assert errors == {"opt-out", "subject", "sender", "contact-date"}


def test_nobody_left_is_a_failure_with_the_reasons(work: Work) -> None:
    work.bring("external_id,email,opted_out\n1,,no\n2,b@x.example,yes\n")
    number = work.create_text("Hello")
    with pytest.raises(PreparationFailed, match="All 2 targeted people are excluded"):
        work.prepare(number)
    made = work.get(number)
    assert (made.state, made.targeted, made.excluded, made.to_deliver) == (37, 2, 2, 0)


def test_header_of_ours_is_refused_before_anybody_is_targeted(work: Work) -> None:
    work.bring("email\na@x.example\n")
    number = work.create_text("Hello", '[headers]\nSubject = "twice"\n')
    with pytest.raises(PreparationFailed, match="header Subject"):
        work.prepare(number)
    assert (work.get(number).state, work.get(number).targeted) == (DeliveryState.PREPARATION_FAILED, None)
