"""A look as a whole: checks fail alone, findings open, change and close by themselves, and what is told is in their transaction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from midsource.doctor import book, look
from midsource.doctor.check import BOTH, Check
from midsource.doctor.checks import CHECKS
from midsource.doctor.facts import Facts
from midsource.model.errors import Failed, Unhealthy, UserError
from midsource.model.finding import FAILED, Finding, Seen, Severity
from midsource.store.database import Connection, scalar
from midsource.testing.link import LinkedHalves
from midsource.workflows import doctor

from .conftest import CLOCK, Patient

SEEN = Seen(Severity.WARNING, "3 h", "slow", "wait", subject="a")


def check(name: str, *seen: Seen, fails: Exception | None = None, **declared: object) -> Check:
    def looks(_conn: Connection, _facts: Facts, _now: datetime) -> Iterator[Seen]:
        """Look at nothing: what it sees is given."""
        yield from seen
        if fails is not None:
            raise fails

    made = Check(name, looks, BOTH, Severity.ERROR, ("F30",), "mend it")
    return replace(made, **declared)  # type: ignore[arg-type]


def run(patient: Patient, *checks: Check) -> look.Looked:
    looked = look.at(patient.config, patient.instance, patient.database, CLOCK, checks)
    with patient.database.transaction() as conn:
        book.record(conn, looked, CLOCK.now())
    return looked


def told(patient: Patient) -> list[tuple[str, str]]:
    return list(patient.execute("select kind, subject from notification order by id"))


def test_every_check_says_what_it_looks_at_and_answers_known_failures() -> None:
    assert len(CHECKS) >= 40
    assert len({one.name for one in CHECKS}) == len(CHECKS)
    for one in CHECKS:
        assert len(one.looks_at) > 30, one.name
        assert one.answers, one.name
        assert all(answer[0] == "F" and answer[1:].isdigit() for answer in one.answers)
        assert one.remedy.endswith("."), one.name
        assert one.roles
        assert one.bound_seconds <= 10


def test_a_check_that_fails_is_a_finding_and_stops_no_other(marketing: Patient) -> None:
    looked = run(marketing, check("one", fails=Failed("broken", "mend")), check("two", SEEN))
    assert [(found.check, found.subject) for found in looked.findings] == [(FAILED, "one"), ("two", "a")]
    assert looked.checked == 2
    assert looked.looked == {"two"}
    with marketing.database.connection() as conn:
        assert book.looks(conn)["one"].problem == "broken: mend."
    run(marketing, check("one"))
    run(marketing, check("one"))
    assert [row.finding.check for row in marketing.standing()] == ["two"]


def test_a_check_that_takes_too_long_is_stopped_and_writes_nothing(marketing: Patient) -> None:
    def slow(conn: Connection, _facts: Facts, _now: datetime) -> Iterator[Seen]:
        """Look for too long."""
        conn.execute("select pg_sleep(5)")
        yield SEEN

    def writes(conn: Connection, _facts: Facts, _now: datetime) -> Iterator[Seen]:
        """Look, and touch what it looks at."""
        conn.execute("delete from option")
        yield SEEN

    made = check("slow", bound_seconds=0.1)
    looked = run(marketing, replace(made, look=slow), replace(made, name="writes", look=writes))
    assert [found.check for found in looked.findings] == [FAILED, FAILED]
    assert "longer than the 0.1 s it may" in looked.findings[0].cause
    assert marketing.execute("select count(*) from option")[0][0] == 2


def test_a_database_that_goes_away_ends_the_look(marketing: Patient) -> None:
    away = Unhealthy("away", "wait")
    with pytest.raises(Unhealthy):
        run(marketing, check("one", fails=away), check("two", fails=away))
    run(marketing, check("one", fails=away), check("two"), check("three", fails=away))


def test_a_finding_opens_worsens_and_closes_by_itself_and_each_is_told_once(marketing: Patient) -> None:
    for _ in range(3):
        run(marketing, check("pointer.x", SEEN))
    (row,) = marketing.standing()
    assert (row.times_seen, row.finding.subject) == (3, "a")
    run(marketing, check("pointer.x", replace(SEEN, evidence="4 h")))
    (changed,) = marketing.standing()
    assert (changed.id, changed.finding.evidence) == (row.id, "4 h")
    assert told(marketing) == [("opened", "pointer.x a")]
    run(marketing, check("pointer.x", replace(SEEN, severity=Severity.CRITICAL)))
    run(marketing, check("pointer.x"))
    assert len(marketing.standing()) == 1
    run(marketing, check("other"))
    assert len(marketing.standing()) == 1, "a check that did not look says nothing"
    run(marketing, check("pointer.x"))
    assert marketing.standing() == []
    assert told(marketing) == [(kind, "pointer.x a") for kind in ("opened", "worsened", "closed")]
    with marketing.database.connection() as conn:
        (past,) = book.closed(conn)
    assert (past.id, past.finding.severity) == (row.id, Severity.CRITICAL)
    run(marketing, check("pointer.x", SEEN))
    assert marketing.standing()[0].id != row.id


def test_what_comes_and_goes_is_one_finding(marketing: Patient) -> None:
    for number in range(8):
        run(marketing, check("pointer.x", *([SEEN] if number % 2 == 0 else [])))
    assert len(marketing.standing()) == 1
    assert told(marketing) == [("opened", "pointer.x a")]


def test_information_is_told_to_nobody(marketing: Patient) -> None:
    run(marketing, check("pointer.x", replace(SEEN, severity=Severity.INFO)))
    assert told(marketing) == []
    assert len(marketing.standing()) == 1


def test_a_change_and_what_is_told_of_it_are_one_transaction(marketing: Patient) -> None:
    looked = look.at(marketing.config, marketing.instance, marketing.database, CLOCK, [check("x", SEEN)])
    with pytest.raises(ZeroDivisionError), marketing.database.transaction() as conn:
        book.record(conn, looked, CLOCK.now()).index(1 // 0)  # type: ignore[arg-type]
    assert (marketing.standing(), told(marketing)) == ([], [])


def test_more_than_a_page_may_show_is_counted(marketing: Patient) -> None:
    many = [replace(SEEN, subject=str(n)) for n in range(look.MOST_OF_A_CHECK + 7)]
    looked = run(marketing, check("x", *many))
    assert len(looked.findings) == look.MOST_OF_A_CHECK
    assert looked.findings[-1].evidence.endswith("And 7 more like this.")


def test_a_workflows_flag_is_told_in_the_transaction_that_sets_it_and_its_finding_is_not_told_again(
    marketing: Patient,
) -> None:
    marketing.execute("insert into workflow (name, schedule) values ('cleanup', '0 4 * * *')")
    marketing.execute("update workflow set failed = true, consecutive_failures = 2, last_error = 'no space'")
    marketing.execute("update workflow set failed = true, consecutive_failures = 3")
    marketing.look("workflow.failed")
    assert [row.finding.subject for row in marketing.standing()] == ["cleanup"]
    assert told(marketing) == [("workflow_failed", "cleanup")]
    marketing.execute("update workflow set failed = false, consecutive_failures = 0, last_error = ''")
    assert told(marketing)[-1] == ("workflow_recovered", "cleanup")
    ((document,),) = marketing.execute("select document from notification order by id desc limit 1")
    assert document == {"workflow": "cleanup", "failures": 3, "error": "no space"}


def test_a_check_with_a_period_waits_for_it_and_the_longest_waiting_come_first(marketing: Patient) -> None:
    hourly = check("hourly", every_seconds=3600)
    always, last = check("always"), check("supervisor.last")
    with marketing.database.connection() as conn:
        assert [one.name for one in look.due(conn, [last, always, hourly], CLOCK.now())] == [
            "always",
            "hourly",
            "supervisor.last",
        ]
        run(marketing, hourly, always)
        now = CLOCK.now()
        assert look.due(conn, [hourly, always, last], now) == (always, last)
        assert hourly in look.due(conn, [hourly], now + timedelta(hours=1))
        assert hourly in look.due(conn, [hourly], now - timedelta(hours=1)), "the clock was set back"


def test_muting_tells_nobody_and_does_not_close(marketing: Patient) -> None:
    run(marketing, check("pointer.x", SEEN))
    (row,) = marketing.standing()
    now = CLOCK.now()
    with marketing.database.transaction() as conn:
        book.mute(conn, row.id, now + timedelta(hours=8), "cli:me", now)
        with pytest.raises(UserError, match="90 days"):
            book.mute(conn, row.id, now + timedelta(days=91), "cli:me", now)
    (row,) = marketing.standing()
    assert row.is_muted(now)
    assert not row.is_muted(now + timedelta(hours=9))
    assert book.above_info([row], now) == []
    run(marketing, check("pointer.x"))
    run(marketing, check("pointer.x"))
    with marketing.database.transaction() as conn, pytest.raises(UserError, match="closed"):
        book.mute(conn, row.id, now + timedelta(hours=8), "cli:me", now)


def test_history_is_bounded(marketing: Patient) -> None:
    run(marketing, check("pointer.x", SEEN))
    marketing.execute(
        "insert into finding (check_name, severity, evidence, cause, remedy, opened_at, seen_at, changed_at, closed_at) "
        "select 'old', 'info', '', '', '', now(), now(), now(), now() - n * interval '1 day' from generate_series(1, 100) n"
    )
    with marketing.database.transaction() as conn:
        assert book.forget(conn, CLOCK.now()) == 11
        assert len(book.closed(conn, 500)) == 89
        assert sum(book.counted(conn).values()) == 1


def test_unknown_names_are_answered_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"there are .*pointer\.late"):
        look.named("pointr")
    assert {one.name.split(".")[0] for one in look.named("pointer")} == {"pointer"}


def test_the_worst_stands_first(marketing: Patient) -> None:
    findings = [replace(SEEN, subject=str(severity), severity=severity) for severity in Severity]
    run(marketing, check("x", *findings))
    assert [row.finding.severity for row in marketing.standing()] == list(reversed(Severity))
    assert marketing.standing()[0].finding == Finding.of("x", ("F30",), findings[-1])


def test_the_workflow_looks_on_both_halves_of_a_real_pair(halves: LinkedHalves) -> None:
    (halves.home / "midsource.toml").write_text(
        "[instances.marketing]\nrole = 'marketing'\nport = 1\n[instances.mid1]\nrole = 'mid'\nport = 2\n",
        encoding="utf-8",
    )
    report = doctor.run_once(halves.context())
    assert report.rows_read > 25
    with halves.marketing.connection() as conn:
        found = {row.finding.key for row in book.standing(conn)}
        assert scalar(conn, "select count(*) from size_sample where kind = 'database'") == 1, "once a day"
    assert ("process.missing", "worker@marketing") in found
    assert ("mid.dispatch", "defaultEmailMid") in found, "the mid was asked: no mta lives there"
    assert not [check for check, _ in found if check in ("mid.unreachable", FAILED, "mid.refuses")]
    report = doctor.run_once(replace(halves.context(), database=halves.mid, instance="mid1"))
    with halves.mid.connection() as conn:
        assert ("process.missing", "mta@mid1") in {row.finding.key for row in book.standing(conn)}
