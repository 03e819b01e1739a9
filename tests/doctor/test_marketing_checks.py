"""Each check of a marketing instance: silent where all is well, and seeing what it is there to see."""

from __future__ import annotations

from datetime import timedelta

import pytest

from midsource import __version__
from midsource.doctor.checks import CHECKS
from midsource.doctor.facts import Said
from midsource.model.errors import RemoteRefused
from midsource.model.finding import Severity
from midsource.net.clock import SystemClock
from midsource.wire.failures import LinkFailure
from midsource.wire.schema import Hello

from .conftest import Patient, delivery

DELIVERIES, LOGS = "NmsMidSourcing_LastDelivery_mid1", "NmsMidSourcing_LastBroadLog_mid1"


def hello(**changes: object) -> Hello:
    values: dict[str, object] = {
        "product": "midsource", "version": "0.1.0", "protocols": (1,), "instance": "mid1", "account": "default", "generation": "g",
        "now": SystemClock().now(), "transport": "sandbox", "dispatch": True, **changes,
    }  # fmt: skip
    return Hello(**values)  # type: ignore[arg-type]


def test_nothing_is_seen_where_all_is_well(marketing: Patient) -> None:
    marketing.mids["mid1"] = Said("mid1", "http://m", hello(version=__version__))
    delivery(marketing, state=95, targeted=3, excluded=1, to_deliver=2, handed_over=2, refused=0)
    for check in marketing_checks():
        assert marketing.see(check) == [], check


def marketing_checks() -> list[str]:
    return [
        check.name
        for check in CHECKS
        if "marketing" in check.roles and check.name not in ("machine.disk", "database.durability")
    ]


# -- workflows


def workflow(patient: Patient, **columns: object) -> None:
    values: dict[str, object] = {"name": "defaultMidSourcingLog", "schedule": "*/10 * * * *", **columns}
    marks = ", ".join(["%s"] * len(values))
    patient.execute(f"insert into workflow ({', '.join(values)}) values ({marks})", *values.values())


def ago(**span: float) -> object:
    return SystemClock().now() - timedelta(**span)


def test_a_workflow_that_failed_twice_is_seen_and_one_failure_is_not(marketing: Patient) -> None:
    workflow(marketing, failed=True, consecutive_failures=1, last_error="away", last_success_at=ago(minutes=1))
    assert marketing.see("workflow.failed") == []
    marketing.execute("update workflow set consecutive_failures = 2")
    (found,) = marketing.see("workflow.failed")
    assert (found.subject, found.severity, found.cause) == ("defaultMidSourcingLog", Severity.ERROR, "away")
    assert "2 times in a row" in found.evidence
    assert "midsource workflow restart defaultMidSourcingLog" in found.remedy
    assert "F36" in found.answers


def test_late_never_succeeded_and_held_workflows(marketing: Patient) -> None:
    workflow(marketing, last_success_at=ago(hours=2), created_at=ago(days=2))
    assert [found.check for found in marketing.see("workflow")] == ["workflow.late"]
    marketing.execute("update workflow set last_success_at = null, created_at = now() - interval '1 h'")
    assert [found.check for found in marketing.see("workflow")] == ["workflow.never"]
    marketing.execute("update workflow set state = 13, held_at = now(), last_success_at = now() - interval '1 day'")
    (found,) = marketing.see("workflow")
    assert (found.check, found.severity) == ("workflow.held", Severity.INFO)
    marketing.execute("update workflow set state = 20, held_at = now() - interval '8 days'")
    (found,) = marketing.see("workflow")
    assert (found.check, found.severity) == ("workflow.held", Severity.WARNING)


# -- pointers


def test_a_pointer_of_2020_is_an_error_and_one_being_caught_up_is_not(marketing: Patient) -> None:
    marketing.execute("update external_account set created_at = '2019-01-01Z'")
    marketing.execute("update pointer set reached_at = '2020-01-01Z', moved_at = now() where stream = 'logs'")
    (found,) = marketing.see("pointer.late")
    assert (found.subject, found.severity) == (LOGS, Severity.ERROR)
    assert "2020-01-01 00:00:00Z" in found.evidence
    assert {"F30", "F33"} <= set(found.answers)
    marketing.execute(
        "insert into pointer (account, stream, lane, reached_at) values ('mid1', 'logs', 'recent', now())"
    )
    (found,) = marketing.see("pointer.late")
    assert found.severity is Severity.INFO


def test_a_new_accounts_pointer_is_not_late(marketing: Patient) -> None:
    marketing.execute("update pointer set reached_at = now() - interval '1 h'")
    assert marketing.see("pointer.late") == []


def test_a_pointer_that_stands_still_names_workflow_or_link(marketing: Patient) -> None:
    marketing.execute("update pointer set moved_at = now() - interval '31 min' where stream = 'deliveries'")
    (found,) = marketing.see("pointer")
    assert (found.check, found.subject, found.healable) == ("pointer.stuck", DELIVERIES, True)
    assert "defaultMidSourcingDlv does not run" in found.cause
    marketing.mids["mid1"] = Said("mid1", "http://m", error=LinkFailure("nobody", "look", answer="no", reached=False))
    (found,) = marketing.see("pointer.stuck")
    assert "The mid cannot be read: nobody" in found.cause
    assert not found.healable


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "deleted"),
        ("yesterday", "not a time"),
        ("2999-01-01T00:00:00Z", "future"),
        ("2026-01-01T00:00:00", "no time zone"),
    ],
)
def test_an_option_written_behind_our_back(marketing: Patient, value: str | None, said: str) -> None:
    if value is None:
        marketing.execute("delete from option where name = %s", LOGS)
    else:
        marketing.execute("update option set value = %s where name = %s", value, LOGS)
    (found,) = marketing.see("pointer.option")
    assert (found.subject, found.severity) == (LOGS, Severity.WARNING)
    assert said in found.evidence


def test_an_option_set_properly_by_hand_is_fine(marketing: Patient) -> None:
    marketing.execute("update option set value = '2026-01-01T00:00:00Z' where name = %s", LOGS)
    assert marketing.see("pointer.option") == []


def test_a_pointer_shown_in_the_future(marketing: Patient) -> None:
    marketing.execute("update pointer set reached_at = now() + interval '3 days'")
    assert ["3 days in the future" in found.evidence for found in marketing.see("pointer.option")] == [True, True]


def test_a_missing_pointer_and_one_left_over(marketing: Patient) -> None:
    marketing.execute("delete from pointer where stream = 'logs'")
    marketing.execute(
        "insert into option (name, value, modified_by) values ('NmsMidSourcing_LastDelivery_gone', 'x', 'p')"
    )
    found = {one.subject: one for one in marketing.see("pointer.missing")}
    assert found[LOGS].severity is Severity.ERROR
    assert found[LOGS].healable
    assert found["NmsMidSourcing_LastDelivery_gone"].severity is Severity.INFO
    assert len(found) == 2


# -- the link


def test_a_mid_that_does_not_answer_is_a_warning_for_five_minutes(marketing: Patient) -> None:
    marketing.mids["mid1"] = Said(
        "mid1", "http://m", error=LinkFailure("nobody listens", "look", answer="no", reached=False)
    )
    (found,) = marketing.see("mid")
    assert (found.check, found.severity) == ("mid.unreachable", Severity.WARNING)
    marketing.execute("update external_account set last_hello_at = now() - interval '6 min'")
    (found,) = marketing.see("mid")
    assert found.severity is Severity.ERROR
    assert "nobody listens" in found.cause
    assert "midsource account test mid1" in found.remedy


def test_a_mid_that_refuses_is_told_from_one_that_is_away(marketing: Patient) -> None:
    marketing.mids["mid1"] = Said("mid1", "http://m", error=RemoteRefused("the key is wrong", "store it", status=401))
    assert [(found.check, found.severity) for found in marketing.see("mid")] == [("mid.refuses", Severity.ERROR)]


def test_what_a_mid_says_of_itself(marketing: Patient) -> None:
    now = SystemClock().now()
    said = hello(dispatch=False, version="0.0.9")
    marketing.mids["mid1"] = Said(
        "mid1", "https://m", said, skew_seconds=-47.0, certificate_ends=now + timedelta(days=2)
    )
    found = {one.check: one for one in marketing.see("mid")}
    assert set(found) == {"mid.dispatch", "mid.clock", "mid.certificate", "mid.version"}
    assert found["mid.dispatch"].severity is Severity.WARNING
    assert "47 s behind" in found["mid.clock"].evidence
    assert found["mid.certificate"].severity is Severity.ERROR
    assert found["mid.version"].severity is Severity.INFO
    delivery(marketing, state=55)
    assert marketing.see("mid.dispatch")[0].severity is Severity.ERROR
    marketing.mids["mid1"] = Said("mid1", "https://m", hello(), certificate_ends=now + timedelta(days=20))
    assert marketing.see("mid.certificate")[0].severity is Severity.WARNING
    marketing.mids["mid1"] = Said("mid1", "https://m", hello(), certificate_ends=now + timedelta(days=22))
    assert marketing.see("mid.certificate") == []


def failures(patient: Patient, count: int, method: str, code: int) -> None:
    patient.execute(
        "insert into link_event (account, method, http_code, line) select 'mid1', %s, %s, %s from generate_series(1, %s)",
        method, code, f"{method} part 1 of 4: HTTP {code}, attempt 2", count,
    )  # fmt: skip


def test_parts_answered_with_408_are_seen_sooner_than_other_failures(marketing: Patient) -> None:
    failures(marketing, 5, "AppendDeliveryPart", 408)
    failures(marketing, 19, "GetMidBroadLogs", 504)
    (found,) = marketing.see("link.failures")
    assert found.subject == "mid1 AppendDeliveryPart 408"
    assert "F01" in found.answers
    failures(marketing, 1, "GetMidBroadLogs", 504)
    assert len(marketing.see("link.failures")) == 2
    marketing.execute("update link_event set at = now() - interval '31 min'")
    assert marketing.see("link.failures") == []


def test_an_account_switched_off_while_it_is_used(marketing: Patient) -> None:
    number = delivery(marketing, state=25)
    assert marketing.see("account.off") == []
    marketing.execute("update external_account set active = false")
    (found,) = marketing.see("account.off")
    assert str(number) in found.evidence
    assert found.answers == ("F09",)


# -- deliveries


@pytest.mark.parametrize(
    ("state", "minutes", "severity"),
    [(15, 16, "error"), (22, 31, "error"), (25, 31, "error"), (51, 16, "error"), (55, 121, "warning"), (62, 721, "warning"),
     (71, 16, "error"), (72, 16, "error"), (75, 4321, "warning")],
)  # fmt: skip
def test_a_delivery_stuck_in_each_state(marketing: Patient, state: int, minutes: int, severity: str) -> None:
    number = delivery(marketing, state=state, modified_at=ago(minutes=minutes), targeted=1, excluded=0, to_deliver=1)
    (found,) = marketing.see("delivery.stuck")
    assert (found.subject, found.severity) == (str(number), severity)
    marketing.execute("update delivery set modified_at = modified_at + interval '2 min'")
    assert marketing.see("delivery.stuck") == []


@pytest.mark.parametrize("state", [0, 37, 45, 85, 87, 95])
def test_what_waits_for_a_person_or_has_ended_is_not_stuck(marketing: Patient, state: int) -> None:
    delivery(marketing, state=state, modified_at=ago(days=20))
    assert marketing.see("delivery.stuck") == []


def test_a_job_that_beats_is_not_stuck_and_neither_is_a_start_that_waits_for_its_date(marketing: Patient) -> None:
    number = delivery(marketing, state=22, modified_at=ago(hours=3))
    marketing.execute(
        "insert into job (id, kind, subject, beat_at, enqueued_at, executor) values ('prepare-1', 'prepare', %s, now(), now(), 'e')",
        number,
    )
    delivery(marketing, 2, state=51, modified_at=ago(hours=3), contact_at=ago(hours=-3))
    assert marketing.see("delivery.stuck") == []


def test_parts_that_are_not_taken(marketing: Patient) -> None:
    number = delivery(marketing, state=25)
    part = "insert into upload_part (delivery_id, part, position, first_id, last_id, rows, bytes, content_hash, row_hash, state, attempts, stored_at) values "
    marketing.execute(
        part
        + "(%s, '1', 1, 1, 9, 9, 9, 'x', 1, 'stored', 3, now()), (%s, '2', 2, 1, 9, 9, 9, 'x', 1, 'acknowledged', 9, now() - interval '1 h')",
        number,
        number,
    )
    assert marketing.see("delivery.parts") == []
    marketing.execute("update upload_part set attempts = 4 where part = '1'")
    marketing.execute(
        "insert into link_event (account, delivery_id, method, http_code, line) values ('mid1', %s, 'AppendDeliveryPart', 408, 'part 1: HTTP 408')",
        number,
    )
    (found,) = marketing.see("delivery.parts")
    assert "has not taken: 1;" in found.evidence
    assert found.cause == "part 1: HTTP 408"
    assert {"F01", "F13"} <= set(found.answers)
    marketing.execute("update upload_part set attempts = 0, stored_at = now() - interval '11 min' where part = '1'")
    assert len(marketing.see("delivery.parts")) == 1


def test_orders_that_are_not_confirmed(marketing: Patient) -> None:
    delivery(marketing, state=45, ordered="start", ordered_at=ago(minutes=11))
    delivery(marketing, 2, state=45, ordered="start", ordered_at=ago(minutes=11), contact_at=ago(hours=-1))
    delivery(marketing, 3, state=45, ordered="start", ordered_at=ago(minutes=9))
    (found,) = marketing.see("delivery.orders")
    assert "order to start" in found.evidence


def test_indicators_at_zero_while_mail_flows(marketing: Patient) -> None:
    number = delivery(marketing, state=55, started_at=ago(minutes=21), figures_at=ago(minutes=1))
    assert marketing.see("delivery.zero") == []
    marketing.execute("insert into broad_log_total (delivery_id, domain, state, n) values (%s, 'd', 1, 7)", number)
    (found,) = marketing.see("delivery.zero")
    assert "figures say 0 processed, its log 7" in found.evidence
    assert "F34" in found.answers
    marketing.execute("update delivery set figures = '{\"sent\": 7}'")
    assert marketing.see("delivery.zero") == []
    marketing.execute("update delivery set figures_at = null")
    assert len(marketing.see("delivery.zero")) == 1


def test_a_log_that_stays_behind_the_mids_count(marketing: Patient) -> None:
    number = delivery(marketing, state=95, finished_at=ago(minutes=91), figures='{"sent": 9, "failed": 1}')
    (found,) = marketing.see("delivery.logs")
    assert "counts 10 results, the log has 0" in found.evidence
    marketing.execute(
        "insert into broad_log_total (delivery_id, domain, state, n) values (%s, 'd', 1, 9), (%s, 'd', 2, 1)",
        number,
        number,
    )
    assert marketing.see("delivery.logs") == []


def test_sums_that_do_not_come_out_are_critical(marketing: Patient) -> None:
    delivery(marketing, state=25, targeted=10, excluded=1, to_deliver=8)
    delivery(marketing, 2, state=55, targeted=10, excluded=2, to_deliver=8, handed_over=7, refused=0)
    delivery(marketing, 3, state=55, targeted=10, excluded=2, to_deliver=8, handed_over=7, refused=1)
    found = marketing.see("delivery.sums")
    assert [one.severity for one in found] == [Severity.CRITICAL] * 2
