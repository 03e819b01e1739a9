"""Preparation on a real database: who is targeted, who is excluded, and what is stored."""

from __future__ import annotations

import re
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.marketing.preparation_scene import PEOPLE, Work

from midsource.marketing import explain, options, parts
from midsource.marketing.phases import MAX_STATEMENTS, StatementTimes, add_phase
from midsource.model.delivery import DeliveryState
from midsource.model.message import Reason
from midsource.policy.exclusion import Fact, reason_for
from midsource.testing.clock import ManualClock
from midsource.wire import rows as wire

OFTEN = {"phase": "personalisation", "started_at": "2026-02-20T02:00:00Z", "seconds": 1.0, "rows": 90_000}
"""As it was with the deliveries before."""


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
