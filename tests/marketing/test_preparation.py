"""Preparation on a real database: who is targeted, what is stored, and that a cut anywhere changes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from midsource.engine.work import Cancelled, Context, Report
from midsource.marketing import deliveries, explain, importing, options, parts, preparation
from midsource.marketing.phases import MAX_STATEMENTS, StatementTimes, add_phase
from midsource.marketing.preparation import PreparationFailed, prepare
from midsource.marketing.sample import SampleFacts, write_sample, write_sample_delivery
from midsource.model.delivery import DeliveryEvent, DeliveryState
from midsource.model.errors import Conflict
from midsource.model.message import Reason
from midsource.policy.exclusion import Fact, reason_for
from midsource.store.database import Database
from midsource.testing.clock import ManualClock
from midsource.wire import rows as wire

PEOPLE = 600
OFTEN = {"phase": "personalisation", "started_at": "2026-02-20T02:00:00Z", "seconds": 1.0, "rows": 90_000}
"""As it was with the deliveries before."""


class Work:
    """A database with sample people, and one delivery to prepare."""

    def __init__(self, database: Database, clock: ManualClock, folder: Path) -> None:
        self.database = database
        self.clock = clock
        self.folder = folder
        self.said: list[str] = []

    def bring(self, content: str) -> None:
        path = self.folder / "people.csv"
        path.write_text(content, encoding="utf-8")
        importing.import_recipients(self.database, path, home=self.folder, clock=self.clock, create_fields=True)

    def bring_sample(self, people: int = PEOPLE) -> SampleFacts:
        facts = write_sample(self.folder / "people.csv", people, seed=11)
        importing.import_recipients(
            self.database,
            self.folder / "people.csv",
            home=self.folder,
            clock=self.clock,
            list_name="all",
            create_fields=True,
        )
        return facts

    def create(self, document: str) -> int:
        path = self.folder / "d.toml"
        path.write_text(document, encoding="utf-8")
        with self.database.transaction() as conn:
            return deliveries.create_from_toml(conn, path, self.clock)

    def create_text(self, text: str, more: str = "") -> int:
        (self.folder / "body.txt").write_text(f"{text}\n{{{{ links.unsubscribe }}}}", encoding="utf-8")
        return self.create(f'label = "A"\nsubject = "News"\ntext = "body.txt"\n{more}')

    def create_sample(self) -> int:
        path = write_sample_delivery(self.folder / "sample", account="mid1", list_name="all")
        with self.database.transaction() as conn:
            return deliveries.create_from_toml(conn, path, self.clock)

    def context(self, delivery_id: int, at_each_step: Callable[[], None] = lambda: None) -> Context:
        def say(_level: str, line: str) -> None:
            self.said.append(line)
            at_each_step()

        return Context(
            self.database, self.clock, self.folder, "marketing", delivery_id,
            say=say, beat=at_each_step, progress=lambda _values: at_each_step(),
        )  # fmt: skip

    def prepare(self, delivery_id: int, at_each_step: Callable[[], None] = lambda: None) -> Report:
        """Run slices until the job says it is finished."""
        context = self.context(delivery_id, at_each_step)
        while (report := prepare(context)).more_after_seconds is not None:
            pass
        return report

    def get(self, delivery_id: int) -> deliveries.Delivery:
        with self.database.connection() as conn:
            return deliveries.get(conn, delivery_id)

    def rows(self, statement: Any, *params: Any) -> list[tuple[Any, ...]]:
        with self.database.connection() as conn:
            return conn.execute(statement, params).fetchall()

    def result(self, delivery_id: int) -> list[Any]:
        """Return everything a preparation wrote, but for times."""
        columns = "part, position, first_id, last_id, rows, content_hash, row_hash, state, attempts"
        delivery = self.get(delivery_id)
        return [
            (
                delivery.state,
                delivery.targeted,
                delivery.excluded,
                delivery.to_deliver,
                delivery.findings,
                delivery.error,
            ),
            [(phase["phase"], phase["rows"]) for phase in delivery.phases],
            self.rows(f"select {columns} from upload_part where delivery_id = %s order by position", delivery_id),
            self.rows(
                "select id, recipient_id, email, domain, state, reason from broad_log where delivery_id = %s order by id",
                delivery_id,
            ),
            self.rows(
                "select domain, state, reason, n from broad_log_total where delivery_id = %s order by 1, 2, 3",
                delivery_id,
            ),
        ]


@pytest.fixture
def work(ready_db: Database, clock: ManualClock, tmp_path: Path) -> Work:
    return Work(ready_db, clock, tmp_path)


def test_everybody_has_one_row_and_everybody_not_excluded_one_message(work: Work) -> None:
    facts = work.bring_sample()
    number = work.create_sample()
    report = work.prepare(number)
    made = work.get(number)
    assert (report.then, made.state, made.error) == (("handover",), DeliveryState.MESSAGE_FINALISED, "")
    assert made.targeted == PEOPLE
    assert made.excluded is not None
    assert made.to_deliver == PEOPLE - made.excluded
    ids = [row[0] for row in work.rows("select id from broad_log where delivery_id = %s order by id", number)]
    assert ids == list(range(1, PEOPLE + 1))
    totals = dict(
        work.rows("select reason, sum(n)::int from broad_log_total where delivery_id = %s group by 1", number)
    )
    log = dict(work.rows("select reason, count(*)::int from broad_log where delivery_id = %s group by 1", number))
    assert totals == log
    assert (log[7], log[14]) == (facts.no_address, facts.unmailable)
    assert log[8] <= facts.opted_out  # an opted-out person without address counts as without address
    assert [phase["phase"] for phase in made.phases] == ["checks", "target", "personalisation"]
    assert [finding["check"] for finding in made.findings] == ["size"]
    statements = {phase["phase"]: [one["name"] for one in phase.get("statements", ())] for phase in made.phases}
    assert statements["target"] == ["write the target into the delivery log"]
    assert sorted(statements["personalisation"]) == ["read a page of people", "store parts"]


def test_a_slow_phase_names_its_table_dead_rows_index_and_slowest_statement(work: Work) -> None:
    """As on a database that nobody vacuums (F01): the journal says so, and `explain` after it."""
    work.bring_sample(1_200)
    before = [work.create_sample() for _ in range(5)]
    with work.database.transaction() as conn:
        conn.execute("update delivery set phases = %s where id = any(%s)", (Jsonb([OFTEN]), before))
    with work.database.connection() as conn:
        conn.execute("alter table broad_log_202603 set (autovacuum_enabled = off)")
        conn.execute(
            "insert into broad_log (delivery_id, id, recipient_id, state, event_at) "
            "select 202603::bigint << 32, n, n, 6, now() from generate_series(1, 5000) n"
        )
        conn.execute("delete from broad_log")
        conn.execute("select pg_stat_force_next_flush()")
    number = work.create_sample()
    work.prepare(number, lambda: work.clock.advance(timedelta(seconds=3)))
    (line,) = [line for line in work.said if "its usual 90 000" in line]
    assert re.match(r"personalisation ran at \d+ rows a second, ", line)
    assert "slowest statement: " in line
    assert re.search(r"table broad_log_202603: 5 000 dead rows, \d+ % of all; index broad_log_202603_", line)
    with work.database.connection() as conn:
        told = explain.explain_delivery(conn, number, work.clock.now())
    assert f"Slow: {line}." in told.lines
    assert [found["table"] for found in told.facts["slow_phases"]] == ["broad_log_202603"]


def test_parts_hold_exactly_the_people_of_the_log_with_the_fields_used(work: Work) -> None:
    work.bring_sample()
    number = work.create_text("Hello {{ recipient.first_name }} of {{ recipient.city }}", 'account = "mid1"')
    work.prepare(number)
    lines: list[bytes] = []
    for body, row_hash, content_hash, first, last, count in work.rows(
        "select body, row_hash, content_hash, first_id, last_id, rows from upload_part where delivery_id = %s order by position",
        number,
    ):
        raw = wire.decompress(body)
        own = list(wire.lines(raw))
        assert (wire.content_hash(raw), wire.sum_hashes(map(wire.row_hash, own))) == (content_hash, row_hash)
        decoded = [wire.decode_row(line) for line in own]
        assert (decoded[0].id, decoded[-1].id, len(decoded)) == (first, last, count)
        lines += own
    expected = work.rows(
        "select l.id, l.email, r.first_name, r.fields->>'city' from broad_log l join recipient r on r.id = l.recipient_id "
        "where delivery_id = %s and state = 6 order by l.id", number
    )  # fmt: skip
    people = [wire.decode_row(line) for line in lines]
    assert [(p.id, p.to, p.d["first_name"], p.d["city"]) for p in people] == expected
    assert {tuple(p.d) for p in people} == {("city", "first_name")}


@pytest.mark.parametrize("off", [(), ("NmsBroadcast_RemoveDuplicatesRecipients",), ("NmsBroadcast_RemoveBlackList",)])
def test_exclusions_are_recorded_in_the_fields_order(work: Work, off: tuple[str, ...]) -> None:
    work.bring(
        "external_id,email,opted_out\n1,a@x.example,no\n2,A@x.example,no\n3,a@x.example,yes\n4,,yes\n5,b..c@x.example,yes\n"
        "6,denied@x.example,no\n7,any@bad.example,no\n8,quarantined@x.example,no\n9,complained@x.example,no\n"
        "10,errors@x.example,no\n11,quarantined@x.example,yes\n"
    )
    with work.database.transaction() as conn:
        conn.execute("insert into denylist (entry) values ('denied@x.example'), ('@bad.example')")
        conn.execute(
            "insert into quarantine (address_key, state, reason) values ('quarantined@x.example', 3, 1), "
            "('complained@x.example', 4, 8), ('errors@x.example', 1, 5)"
        )
        for name in off:
            options.set_value(conn, name, "0", by="Alice", now=work.clock.now())
    number = work.create_text("Hello")
    work.prepare(number)
    reasons = dict(
        work.rows(
            "select r.external_id::int, l.reason::int from broad_log l join recipient r on r.id = l.recipient_id where delivery_id = %s",
            number,
        )
    )
    expected = {1: 0, 2: 10, 3: 8, 4: 7, 5: 14, 6: 8, 7: 8, 8: 9, 9: 8, 10: 0, 11: 8}
    if off == ("NmsBroadcast_RemoveDuplicatesRecipients",):
        expected[2] = 0
    if off == ("NmsBroadcast_RemoveBlackList",):
        expected |= {3: 10, 6: 0, 7: 0, 9: 0, 11: 9}
    assert reasons == expected
    assert [finding["check"] for finding in work.get(number).findings].count("exclusions") == len(off)


def test_target_is_list_and_condition(work: Work) -> None:
    work.bring_sample()
    number = work.create_text("Hello", '[target]\nlist = "all"\nexpression = "language = \'fr\' and not vip"\n')
    work.prepare(number)
    chosen = work.rows(
        "select count(*) from recipient where language = 'fr' and fields->>'vip' is distinct from 'true'"
    )
    assert work.get(number).targeted == chosen[0][0] > 0


def small(monkeypatch: pytest.MonkeyPatch, work: Work) -> None:
    """Make pages and parts small, so that a few hundred people take many steps."""
    monkeypatch.setattr(parts, "PAGE_ROWS", 130)
    monkeypatch.setattr(preparation, "PARTS_AT_ONCE", 2)
    with work.database.transaction() as conn:
        options.set_value(conn, "NmsBroadcast_MidAnalyzeBatchSize", "50", by="Alice", now=work.clock.now())


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


def test_header_of_ours_is_refused_before_anybody_is_targeted(work: Work) -> None:
    work.bring("email\na@x.example\n")
    number = work.create_text("Hello", '[headers]\nSubject = "twice"\n')
    with pytest.raises(PreparationFailed, match="header Subject"):
        work.prepare(number)
    assert (work.get(number).state, work.get(number).targeted) == (DeliveryState.PREPARATION_FAILED, None)


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


def test_parts_are_cut_by_bytes_too(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_RAW_BYTES", 25_000)
    note = "x" * 8_000
    work.bring("email,note\n" + "".join(f"p{n}@x.example,{note}\n" for n in range(10)))
    number = work.create_text("{{ recipient.note|truncate(50) }}")
    work.prepare(number)
    assert [
        row[0] for row in work.rows("select rows from upload_part where delivery_id = %s order by position", number)
    ] == [3, 3, 3, 1]


def test_statements_of_several_slices_add_up_and_are_bounded() -> None:
    clock = ManualClock()
    times = StatementTimes(clock.boot_seconds)
    phases: list[dict[str, Any]] = []
    for seconds in (1, 3):
        with times.of("read"):
            clock.advance(timedelta(seconds=seconds))
        phases = add_phase(phases, "target", clock.now(), seconds, 10, times.take())
    assert phases[0]["statements"] == [{"name": "read", "calls": 2, "seconds": 4.0, "longest": 3.0}]
    many = [{"name": str(n), "calls": 1, "seconds": float(n), "longest": 1.0} for n in range(20)]
    kept = add_phase(phases, "target", clock.now(), 1, 10, many)[0]["statements"]
    assert [one["name"] for one in kept] == ["19", "18", "17", "16", "15"]
    assert len(kept) == MAX_STATEMENTS


def test_phases_of_several_slices_add_up() -> None:
    clock = ManualClock()
    phases = add_phase([], "target", clock.now(), 1.5, 10)
    phases = add_phase(add_phase(phases, "personalisation", clock.now(), 2, 100), "personalisation", clock.now(), 3, 50)
    assert [(p["phase"], p["seconds"], p["rows"]) for p in phases] == [("target", 1.5, 10), ("personalisation", 5, 150)]


def test_sql_excludes_as_the_policy_does(work: Work) -> None:
    """A random population: the CASE of the statement and the pure decision give every person the same reason."""
    chance = Random(5)
    facts: dict[int, set[Fact]] = {}
    with work.database.transaction() as conn:
        for number in range(400):
            has: set[Fact] = {fact for fact in Fact if fact is not Fact.DUPLICATE and chance.random() < 0.15}
            key = None if has & {Fact.NO_ADDRESS, Fact.UNMAILABLE} else f"p{number}@x.example"
            conn.execute(
                "insert into recipient (key, external_id, email, email_key, domain, address_problem, opted_out) "
                "values (%s, %s, %s, %s, 'x.example', %s, %s)",
                (
                    f"id:{number}", str(number), None if Fact.NO_ADDRESS in has else f"p{number}@x.example", key,
                    "no dot" if Fact.UNMAILABLE in has else "", Fact.OPTED_OUT in has,
                ),
            )  # fmt: skip
            if key and Fact.QUARANTINED in has:
                conn.execute("insert into quarantine (address_key, state, reason) values (%s, 3, 1)", (key,))
            if key and Fact.DENYLISTED in has:
                conn.execute("insert into denylist (entry) values (%s)", (key,))
            facts[number] = has if key else has - {Fact.QUARANTINED, Fact.DENYLISTED}
    number = work.create_text("Hello")
    work.prepare(number)
    written = work.rows(
        "select r.external_id::int, l.reason from broad_log l join recipient r on r.id = l.recipient_id"
    )
    assert len(written) == 400
    assert {person: Reason(reason) for person, reason in written} == {n: reason_for(has) for n, has in facts.items()}
    assert len({reason for _, reason in written}) == 5
