"""A preparation that is cut, fenced or done again: a cut anywhere changes nothing, and nothing is there twice."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.marketing.preparation_scene import Work, small

from midsource.engine.work import Cancelled
from midsource.marketing import deliveries, parts, targeting
from midsource.marketing.preparation import PreparationFailed, prepare
from midsource.model.delivery import DeliveryEvent, DeliveryState
from midsource.model.errors import Conflict
from midsource.store.database import scalar
from midsource.testing.reading import rows_read


def test_cut_at_any_step_and_run_again_gives_the_same(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut at the first step, run again to the end; at the second, and so on, until the job is not cut any more."""
    small(monkeypatch, work)
    work.bring_sample()
    reference = work.create_sample()
    work.prepare(reference)
    expected = work.result(reference)
    cuts = 0
    for step in range(1, 100):
        number = work.create_sample()
        left = step

        def cut() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Cancelled("the worker is stopping")

        try:
            work.prepare(number, cut)
        except Cancelled:
            cuts += 1
        report = work.prepare(number)
        assert report.then == ("handover",)
        assert work.result(number) == expected, f"cut at step {step}"
        if left > 0:
            break
    assert cuts >= 10


def test_slices_end_by_themselves_and_go_on_where_they_were(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, work)
    work.bring_sample()
    reference = work.create_sample()
    work.prepare(reference)
    number = work.create_sample()
    context = work.context(number, lambda: work.clock.advance(timedelta(seconds=30)))
    slices = 0
    while prepare(context).more_after_seconds is not None:
        slices += 1
    assert slices >= 4
    assert work.result(number) == work.result(reference)


def test_refusal_after_targeting_survives_a_cut(work: Work) -> None:
    """The rows of the log and the verdict on them are one transaction: a cut right after it finds the verdict."""
    work.bring("external_id,email\n1,\n")
    number = work.create_text("Hello")

    def cut_once_said() -> None:
        if work.said:
            raise Cancelled("the worker is stopping")

    with pytest.raises(Cancelled):
        work.prepare(number, cut_once_said)
    with pytest.raises(PreparationFailed, match="nobody is left to deliver to"):
        work.prepare(number)


def test_corrected_delivery_is_prepared_again_and_replaces_everything(work: Work) -> None:
    work.bring_sample(100)
    number = work.create_text("{{ recipient.nothing }}")
    with pytest.raises(PreparationFailed):
        work.prepare(number)
    with work.database.transaction() as conn:
        conn.execute("update delivery set text = replace(text, 'nothing', 'city') where id = %s", (number,))
        deliveries.start_preparation(conn, number)
    work.prepare(number)
    work.bring("email\nnew@x.example\n")
    with work.database.transaction() as conn:
        deliveries.start_preparation(conn, number)
    assert work.rows("select count(*) from broad_log where delivery_id = %s", number) == [(0,)]
    work.prepare(number)
    made = work.get(number)
    assert (made.state, made.targeted, made.error) == (DeliveryState.MESSAGE_FINALISED, 101, "")
    assert work.rows("select sum(rows)::int from upload_part where delivery_id = %s", number) == [(made.to_deliver,)]


def test_what_the_mid_has_taken_cannot_be_prepared_again(work: Work) -> None:
    work.bring_sample(100)
    number = work.create_sample()
    work.prepare(number)
    with work.database.transaction() as conn:
        conn.execute("update upload_part set state = 'acknowledged' where delivery_id = %s", (number,))
    with work.database.transaction() as conn, pytest.raises(Conflict, match="the mid already holds 1 parts"):
        deliveries.start_preparation(conn, number)


def test_order_given_meanwhile_fences_the_slice(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, work)
    work.bring_sample()
    number = work.create_sample()
    steps = 0

    def stop_at_fifth_step() -> None:
        nonlocal steps
        steps += 1
        if steps == 5:
            with work.database.transaction() as conn:
                deliveries.transition(conn, number, DeliveryEvent.STOP)

    with pytest.raises(Conflict, match="was changed while it was prepared"):
        work.prepare(number, stop_at_fifth_step)
    assert work.get(number).state == DeliveryState.STOPPED
    assert work.prepare(number).note == "nothing to prepare: the delivery is stopped"


def test_person_gone_between_target_and_parts_is_noticed(work: Work) -> None:
    work.bring_sample(100)
    number = work.create_sample()
    assert prepare(work.context(number)).note == "target ready"
    with work.database.transaction() as conn:
        conn.execute("delete from recipient where id = (select max(recipient_id) from broad_log where state = 6)")
    with pytest.raises(PreparationFailed, match=r"1 of \d+ people were erased while the delivery was prepared"):
        work.prepare(number)


def test_a_page_of_people_reads_its_own_log_rows_and_not_all_that_is_left(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log just written has no statistics; the cost of a page must not depend on them, nor on how many are left."""
    work.bring_sample(3_000)
    number = work.create_sample()
    monkeypatch.setattr(parts, "PAGE_ROWS", 100)
    with work.database.transaction() as conn:
        targeting.target(conn, work.get(number), work.clock.now())
    with work.database.transaction() as conn:
        reader = parts.PeopleReader(conn, number, ["first_name"])
        before, seen, after, pages = rows_read(conn, "broad_log"), 0, 0, 0
        while True:
            page = reader.page(conn, after)
            seen, after, pages = seen + len(page.people), page.reached, pages + 1
            if page.is_last:
                break
        read = rows_read(conn, "broad_log") - before
        targeted = scalar(conn, "select count(*) from broad_log where delivery_id = %s", (number,))
        pending = scalar(conn, "select count(*) from broad_log where delivery_id = %s and state = 6", (number,))
        assert read <= 2 * targeted
        assert seen == pending
        assert pages == -(-targeted // 100)
