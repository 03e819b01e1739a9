"""Results that did not come back, and steps of cleanup that do not end."""

from __future__ import annotations

from midsource.model.finding import Severity

from .conftest import Patient, delivery


def test_a_gap_is_for_information_until_reconcile_should_have_filled_it(marketing: Patient) -> None:
    gap = "insert into pull_gap (account, stream, cause, from_at, to_at, noted_at) values ('mid1', 'logs', 'set by hand', now(), now(), now() - interval '2 h')"
    marketing.execute(gap)
    (found,) = marketing.see("results")
    assert (found.check, found.severity) == ("results.gap", Severity.INFO)
    marketing.execute("update pull_gap set noted_at = now() - interval '4 h'")
    assert marketing.see("results.gap")[0].severity is Severity.WARNING
    marketing.execute("update pull_gap set filled_at = now()")
    assert marketing.see("results") == []


def test_results_that_were_dropped_unread(marketing: Patient) -> None:
    number = delivery(marketing, state=95)
    marketing.execute(
        "insert into feed_loss (account, stream, delivery_id, rows, gone_before, noticed_at) values ('mid1', 'logs', %s, 12, now(), now())",
        number,
    )
    (found,) = marketing.see("results.lost")
    assert "up to 12 messages" in found.evidence
    marketing.execute("update feed_loss set mended_at = now()")
    assert marketing.see("results.lost") == []


def test_the_last_comparison_of_a_delivery_counts(marketing: Patient) -> None:
    report = "insert into reconcile_report (delivery_id, account, asked_by, started_at, finished_at, lost, unexplained) values (7, 'mid1', 'schedule', now(), now() + %s::interval, %s, %s)"
    marketing.execute(report, "-2 h", 0, 3)
    assert marketing.see("results.differ")[0].severity is Severity.ERROR
    marketing.execute(report, "-1 h", 2, 0)
    (found,) = marketing.see("results.differ")
    assert (found.severity, found.subject) == (Severity.CRITICAL, "7")
    marketing.execute(report, "-1 min", 0, 0)
    assert marketing.see("results.differ") == []


def test_steps_of_cleanup_that_fail_or_never_end(mid: Patient) -> None:
    step = "insert into cleanup_step (name, began_at, ended_at, outcome, error, last_success_at, failures) values (%s, now() - interval '1 h', now(), %s, %s, now() - %s::interval, %s)"
    mid.execute(step, "fine", "finished", "", "1 h", 0)
    mid.execute(step, "once", "failed", "locked", "1 day", 1)
    mid.execute(step, "twice", "failed", "no partition", "2 days", 2)
    mid.execute(step, "slow", "out of time", "", "4 days", 0)
    found = {one.subject: one for one in mid.see("cleanup.step")}
    assert set(found) == {"twice", "slow"}
    assert found["twice"].cause == "no partition"
