"""Every check of a preparation, tried on a real database through ``prepare``: what it says, how grave it is, what follows."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from tests.marketing.preparation_scene import Work

from midsource.engine.work import Context
from midsource.marketing import fields, preparation
from midsource.marketing.preparation import PreparationFailed, prepare
from midsource.marketing.segments import create_segment
from midsource.model.delivery import DeliveryState
from midsource.model.errors import Conflict
from midsource.store.database import Connection, Database
from midsource.testing.clock import ManualClock

TEXT = "Hello\n{{ links.unsubscribe }}"
HTML = "<p>Hello</p><a href='{{ links.unsubscribe }}'>out</a>"


@pytest.fixture
def work(ready_db: Database, clock: ManualClock, tmp_path: Path) -> Work:
    made = Work(ready_db, clock, tmp_path)
    made.bring("email,first_name\na@x.example,Ann\nb@x.example,\n")
    return made


def make(work: Work, *, text: str = TEXT, html: str = HTML, subject: str = "News", more: str = "") -> int:
    (work.folder / "b.txt").write_text(text, encoding="utf-8")
    (work.folder / "b.html").write_text(html, encoding="utf-8")
    return work.create(f'label = "A"\nsubject = "{subject}"\ntext = "b.txt"\nhtml = "b.html"\n{more}')


def graver(work: Work, number: int) -> list[tuple[str, str, str]]:
    """Return (severity, check, sentence) of every warning and error stored."""
    return [(f["severity"], f["check"], f["sentence"]) for f in work.get(number).findings if f["severity"] != "info"]


def refused(work: Work, number: int) -> list[tuple[str, str, str]]:
    """Prepare a delivery that cannot be; return what was found."""
    with pytest.raises(PreparationFailed) as failure:
        work.prepare(number)
    made = work.get(number)
    assert made.state == DeliveryState.PREPARATION_FAILED
    assert made.error.removesuffix(".") in str(failure.value)
    assert work.rows("select count(*) from upload_part where delivery_id = %s", number) == [(0,)]
    return graver(work, number)


def passed(work: Work, number: int) -> list[tuple[str, str, str]]:
    """Prepare a delivery that only asks for attention; return what was found."""
    work.prepare(number)
    assert work.get(number).state == DeliveryState.MESSAGE_FINALISED
    return graver(work, number)


def test_a_delivery_in_order_has_nothing_but_its_size(work: Work) -> None:
    number = make(work)
    assert passed(work, number) == []
    assert [(f["severity"], f["check"]) for f in work.get(number).findings] == [("info", "size")]


def test_an_opt_out_link_missing_in_html_stops(work: Work) -> None:
    ((severity, check, sentence),) = refused(work, make(work, html="<p>Hello</p>"))
    assert (severity, check) == ("error", "opt-out")
    assert sentence.startswith("The HTML body has no opt-out link")


def test_an_opt_out_link_missing_in_text_stops(work: Work) -> None:
    ((severity, check, sentence),) = refused(work, make(work, text="Hello"))
    assert (severity, check) == ("error", "opt-out")
    assert sentence.startswith("The text body has no opt-out link")


def test_a_sender_of_another_domain_stops(work: Work) -> None:
    ((severity, check, sentence),) = refused(work, make(work, more='[sender]\naddress = "a@other.example"\n'))
    assert (severity, check) == ("error", "sender")
    assert "other.example is not among the allowed ones (atelier.example)" in sentence


@pytest.mark.parametrize("subject", ["", "  "])
def test_no_subject_stops(work: Work, subject: str) -> None:
    assert [found[:2] for found in refused(work, make(work, subject=subject))] == [("error", "subject")]


@pytest.mark.parametrize(("kilobytes", "severity"), [(30, ""), (45, "warning"), (70, "error")])
def test_the_size_of_a_message_is_judged_against_35_and_60_kb(work: Work, kilobytes: int, severity: str) -> None:
    line = "<p>" + "x" * 70 + "</p>\n"
    number = make(work, html=HTML + line * (kilobytes * 1_000 // len(line)))
    found = refused(work, number) if severity == "error" else passed(work, number)
    assert [f[:2] for f in found] == ([(severity, "size")] if severity else [])


def test_a_validity_too_short_for_the_retries_is_a_warning(work: Work) -> None:
    ((severity, check, sentence),) = passed(
        work, make(work, more='validity = "2h"\n[retry]\ncount = 5\nperiod = "1h"\n')
    )
    assert (severity, check) == ("warning", "validity")
    assert "only 2 fit" in sentence


def test_a_contact_date_whose_validity_is_over_stops(work: Work) -> None:
    contact = (work.clock.now() - timedelta(days=6)).isoformat()
    ((severity, check, sentence),) = refused(work, make(work, more=f"contact_at = {contact}\n"))
    assert (severity, check) == ("error", "contact-date")
    assert "and its validity are over" in sentence


def test_a_contact_date_in_the_past_is_a_warning(work: Work) -> None:
    contact = (work.clock.now() - timedelta(hours=1)).isoformat()
    ((severity, check, sentence),) = passed(work, make(work, more=f"contact_at = {contact}\n"))
    assert (severity, check) == ("warning", "contact-date")
    assert "is in the past: the delivery starts as soon as it is sent" in sentence


def test_a_list_that_disappeared_after_the_delivery_was_made_stops(work: Work) -> None:
    with work.database.transaction() as conn:
        conn.execute("insert into recipient_list (name) values ('friends')")
    number = make(work, more='[target]\nlist = "friends"\n')
    with work.database.transaction() as conn:
        conn.execute("delete from recipient_list")
    ((severity, check, sentence),) = refused(work, number)
    assert (severity, check) == ("error", "target")
    assert "there is no list 'friends'" in sentence


def test_a_list_that_disappears_between_check_and_target_stops_too(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    with work.database.transaction() as conn:
        conn.execute("insert into recipient_list (name) values ('friends')")
    number = make(work, more='[target]\nlist = "friends"\n')
    target = preparation._target

    def late(context: Context, *rest: object) -> str:
        with work.database.transaction() as conn:
            conn.execute("delete from recipient_list")
        return target(context, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(preparation, "_target", late)
    assert [found[:2] for found in refused(work, number)] == [("error", "target")]
    assert work.get(number).targeted is None


def test_a_field_of_the_condition_that_disappeared_stops(work: Work) -> None:
    with work.database.transaction() as conn:
        fields.add_field(conn, "age", "integer")
        create_segment(conn, "adults", "age >= 18")
    number = make(work, more='[target]\nsegment = "adults"\n')
    with work.database.transaction() as conn:
        conn.execute("delete from recipient_field where name = 'age'")
    ((severity, check, sentence),) = refused(work, number)
    assert (severity, check) == ("error", "target")
    assert "'age' is no field" in sentence


def test_a_segment_that_disappeared_changes_nothing(work: Work) -> None:
    """A delivery keeps the condition it was made with: what was agreed upon is what is sent."""
    with work.database.transaction() as conn:
        create_segment(conn, "named", "first_name is not empty")
    number = make(work, more='[target]\nsegment = "named"\n')
    with work.database.transaction() as conn:
        conn.execute("delete from segment")
    assert passed(work, number) == []
    assert work.get(number).targeted == 1


def test_exclusions_switched_off_are_said(work: Work) -> None:
    with work.database.transaction() as conn:
        conn.execute(
            "insert into option (name, value, modified_by) values ('NmsBroadcast_RemoveBlackList', '0', 'alice')"
        )
    assert [found[:2] for found in passed(work, make(work))] == [("warning", "exclusions")]


def test_warnings_of_every_slice_are_kept(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person whose value breaks a header was in the first slice, and the last one must not forget it."""
    monkeypatch.setattr("midsource.marketing.parts.PAGE_ROWS", 60)
    with work.database.transaction() as conn:
        conn.execute(
            "insert into option (name, value, modified_by) values ('NmsBroadcast_MidAnalyzeBatchSize', '50', 'alice')"
        )
    people = "".join(f"p{n}@x.example,Person {n}\n" for n in range(300))
    work.bring(f'email,nick\nfirst@x.example,"Eve\nBcc: x@x.example"\n{people}')
    number = make(work, subject="News {{ recipient.nick }}")
    context = work.context(number, lambda: work.clock.advance(timedelta(seconds=30)))
    slices = [prepare(context).more_after_seconds for _ in range(10)]
    assert slices[3] is not None  # two slices of personalisation before the last
    assert slices[-1] is None
    assert [found[1] for found in graver(work, number)] == ["render"]


def test_every_check_before_targeting_is_said_at_once(work: Work) -> None:
    with work.database.transaction() as conn:
        conn.execute("insert into recipient_list (name) values ('friends')")
    number = make(work, text="x", html="<p></p>", subject="", more='validity = "60s"\n[target]\nlist = "friends"\n')
    with work.database.transaction() as conn:
        conn.execute("delete from recipient_list")
    assert {found[1] for found in refused(work, number)} == {"opt-out", "subject", "validity", "target"}
    assert work.get(number).targeted is None


def test_two_imports_that_add_a_field_at_once_agree_on_its_type(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts in a field of numbers would break its segments when they run, long after they were accepted."""
    read = fields.own_fields
    looks = 0

    def read_too_early(conn: Connection) -> dict[str, fields.FieldType]:
        nonlocal looks
        looks += 1
        found = read(conn)
        if looks == 1:
            with work.database.transaction() as other:
                other.execute("insert into recipient_field (name, type) values ('age', 'integer')")
        return found

    monkeypatch.setattr(fields, "own_fields", read_too_early)
    with work.database.transaction() as conn, pytest.raises(Conflict, match="exists and is of type integer"):
        fields.add_field(conn, "age", "text")
