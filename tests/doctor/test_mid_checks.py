"""Each check of a mid's sending and feed: silent where all is well, and seeing what it is there to see."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from datetime import timedelta

import pytest

from midsource.doctor.checks import CHECKS
from midsource.mid import disk_budget
from midsource.mid.journal import Journal
from midsource.model.finding import Severity
from midsource.model.ids import delivery_id

from .conftest import CLOCK, Patient


def twin(mid: Patient, serial: int = 1, *, state: int = 55, domain: str = "shop.test", **columns: object) -> int:
    """Insert a delivery on the mid; return its id."""
    number = delivery_id(CLOCK.now(), serial)
    values = {
        "account_id": 1, "id": number, "label": "d", "state": state, "spec": json.dumps({"from_address": f"news@{domain}"}),
        "spec_hash": "x", **columns,
    }  # fmt: skip
    mid.execute(
        f"insert into delivery ({', '.join(values)}) values ({', '.join(['%s'] * len(values))})", *values.values()
    )
    return number


def batch(
    mid: Patient, number: int, ready: str, owner: str | None = None, expires: str | None = None, at: str = "d.test"
) -> None:
    mid.execute(
        "insert into dispatch_batch (account_id, delivery_id, destination, ready_at, ids, owner, expires_at) "
        "values (1, %s, %s, now() + %s::interval, '{1,2}', %s, now() + %s::interval)",
        number, at, ready, owner, expires,
    )  # fmt: skip


def test_nothing_is_seen_where_all_is_well(mid: Patient) -> None:
    mid.execute("insert into dkim_key (domain, selector, kind, private_key) values ('shop.test', 's', 'rsa', 'k')")
    number = twin(mid, started_at=CLOCK.now(), valid_until=CLOCK.now() + timedelta(days=1))
    batch(mid, number, "-1 min", "mta-1", "50 s")
    batch(mid, number, "1 h")
    mid.execute("insert into feed_batch (account_id, day, rows, deliveries) values (1, current_date, 0, '{}')")
    for check in CHECKS:
        if "mid" in check.roles and check.name not in ("machine.disk", "database.durability"):
            assert mid.see(check.name) == [], check.name


@pytest.mark.parametrize(
    ("state", "minutes", "severity"), [(51, 21, "error"), (71, 21, "error"), (72, 21, "error"), (25, 361, "info")]
)
def test_a_delivery_stuck_in_each_state(mid: Patient, state: int, minutes: int, severity: str) -> None:
    began = CLOCK.now() - timedelta(minutes=minutes)
    number = twin(mid, state=state, state_at=began)
    (found,) = mid.see("sending.stuck")
    assert (found.subject, found.severity) == (f"default {number}", severity)
    mid.execute("update delivery set state_at = state_at + interval '2 min'")
    assert mid.see("sending.stuck") == []


@pytest.mark.parametrize("state", [71, 72])
def test_a_delivery_that_was_sent_for_days_and_is_being_paused_is_not_stuck(mid: Patient, state: int) -> None:
    twin(mid, state=state, received_at=CLOCK.now() - timedelta(days=3), started_at=CLOCK.now() - timedelta(days=2))
    assert mid.see("sending.stuck") == []


def test_a_delivery_whose_first_message_takes_long_or_is_held_is_not_stuck(mid: Patient) -> None:
    number = twin(mid, state=51, state_at=CLOCK.now() - timedelta(minutes=25))
    batch(mid, number, "-25 min", "mta-1", "50 s")
    assert mid.see("sending.stuck") == []
    mid.execute("update dispatch_batch set owner = null, expires_at = null")
    assert len(mid.see("sending.stuck")) == 1
    mid.execute("insert into account_hold (account_id) values (1)")
    assert mid.see("sending.stuck") == []


def test_a_delivery_past_its_validity(mid: Patient) -> None:
    twin(mid, state=62, started_at=CLOCK.now(), valid_until=CLOCK.now() - timedelta(minutes=31))
    (found,) = mid.see("sending.stuck")
    assert "past its validity since 31 min" in found.evidence
    mid.execute("insert into account_hold (account_id) values (1)")
    assert mid.see("sending.stuck") == [], "nothing of a held account is sent, nor ended"


def test_leases_that_nobody_takes_back(mid: Patient) -> None:
    batch(mid, 1, "-1 h", "mta-gone", "-6 min")
    batch(mid, 1, "-1 h", "mta-slow", "-4 min")
    (found,) = mid.see("lease.expired")
    assert (found.subject, found.healable) == ("mta-gone", True)
    assert "2 messages" in found.evidence


HOUR_AGO = CLOCK.now() - timedelta(hours=1)


def test_batches_that_wait_where_nothing_is_leased(mid: Patient) -> None:
    batch(mid, twin(mid, state_at=HOUR_AGO), "-31 min", at="idle.test")
    other = twin(mid, 2, state_at=HOUR_AGO)
    batch(mid, other, "-31 min", at="busy.test")
    batch(mid, twin(mid, 3, state_at=HOUR_AGO), "-31 min", "mta-1", "1 min", at="busy.test")
    (found,) = mid.see("sending.waiting")
    assert "due since 31 min: 1," in found.evidence
    assert "idle.test" in found.evidence
    mid.execute("update delivery set state = 75")
    assert mid.see("sending.waiting") == [], "a paused delivery's batches wait for its operator"


def test_batches_count_from_the_end_of_a_pause(mid: Patient) -> None:
    batch(mid, twin(mid, state_at=CLOCK.now() - timedelta(minutes=29)), "-3 days")
    assert mid.see("sending.waiting") == []
    mid.execute("update delivery set state_at = state_at - interval '2 min'")
    (found,) = mid.see("sending.waiting")
    assert "due since 31 min" in found.evidence


def test_the_tail_of_a_large_delivery_waits_for_its_turn(mid: Patient) -> None:
    number = twin(mid, state_at=HOUR_AGO)
    batch(mid, number, "-50 min", at="tail.test")
    batch(mid, number, "-50 min", "mta-1", "1 min", at="head.test")
    assert mid.see("sending.waiting") == [], "another destination of it is being sent"
    mid.execute("delete from dispatch_batch where owner is not null")
    outcomes = "insert into feed_batch (account_id, day, rows, deliveries, created_at) values (1, current_date, %s, %s, now() - %s::interval)"
    mid.execute(outcomes, 1, [number], "31 min")
    mid.execute(outcomes, 1, [number + 1], "1 min")
    mid.execute(outcomes, 0, [number], "1 min")
    assert len(mid.see("sending.waiting")) == 1, "no outcome of it for half an hour"
    mid.execute(outcomes, 1, [number + 1, number], "29 min")
    assert mid.see("sending.waiting") == []


def test_an_account_that_is_held_waits_to_be_told_and_not_for_an_mta_process(mid: Patient) -> None:
    batch(mid, twin(mid, state_at=HOUR_AGO), "-50 min")
    mid.execute("insert into account_hold (account_id, since) values (1, now() - interval '3 h')")
    assert mid.see("sending.waiting") == []
    mid.execute("update account_hold set since = now() - interval '4 h'")
    (found,) = mid.see("sending.waiting")
    assert (found.subject, found.severity) == ("default", Severity.WARNING)
    assert "restored" in found.evidence


def test_a_journal_that_nobody_holds(mid: Patient) -> None:
    journal = Journal(mid.facts().journals, "mta@mid1-gone", "a boot")
    before = time.time() - 300
    for path in (journal.directory, *journal.directory.glob("*.log")):
        os.utime(path, (before, before))
    assert mid.see("journal.pending") == [], "its process lives"
    journal.close(settled=True)
    left = mid.facts().journals / "mta@mid1-left"
    left.mkdir()
    (left / "000001.log").write_bytes(b"")
    assert mid.see("journal.pending") == [], "the next process is just starting"
    for path in (left, left / "000001.log"):
        os.utime(path, (before, before))
    assert [found.subject for found in mid.see("journal.pending")] == ["mta@mid1-left"]


def test_outcomes_set_aside(mid: Patient) -> None:
    mid.execute(
        "insert into outcome_aside (process, account_id, delivery_id, id, document, why, tries, try_at) values ('p', 1, 7, 1, 'x', 'no partition', 3, now())"
    )
    (found,) = mid.see("outcome.aside")
    assert (found.severity, "no partition" in found.cause) == (Severity.WARNING, True)
    mid.execute("update outcome_aside set try_at = now() - interval '11 min'")
    assert mid.see("outcome.aside")[0].severity is Severity.ERROR


def test_a_sandbox_that_is_given_real_mail_says_so(mid: Patient) -> None:
    number = twin(mid)
    total = "insert into message_total (account_id, delivery_id, domain, state, n) values (1, %s, %s, 1, 1)"
    for domain in ("shop.test", "gmail.example", "example.com"):
        mid.execute(total, number, domain)
    assert mid.see("sending.sandbox") == []
    mid.execute(total, number, "orange.fr")
    (found,) = mid.see("sending.sandbox")
    assert (found.severity, "orange.fr" in found.evidence) == (Severity.INFO, True)
    mid.instance = replace(mid.instance, transport="mx")
    assert mid.see("sending.sandbox") == []


def test_a_sender_domain_without_a_key(mid: Patient) -> None:
    twin(mid, domain="Shop.test")
    (found,) = mid.see("sending.unsigned")
    assert found.severity is Severity.INFO
    mid.execute("insert into dkim_key (domain, selector, kind, private_key) values ('shop.test', 's', 'rsa', 'k')")
    assert mid.see("sending.unsigned") == []


# -- the feed


def feed(mid: Patient, *, created: str = "0", seq: int | None = None, count: int = 1, folded: bool = True) -> None:
    mid.execute(
        "insert into feed_batch (account_id, day, rows, deliveries, seq, sequenced_at, created_at, folded) "
        "select 1, current_date, 0, '{}', case when %s::bigint is null then null else %s + n end, case when %s::bigint is null then null else now() end, "
        "now() - %s::interval, %s from generate_series(1, %s) n",
        seq, seq, seq, created, folded, count,
    )  # fmt: skip


def test_batches_without_a_number(mid: Patient) -> None:
    feed(mid, created="9 min")
    assert mid.see("feed.unnumbered") == []
    feed(mid, created="11 min")
    (found,) = mid.see("feed.unnumbered")
    assert "2 batches" in found.evidence


def test_tallies_that_are_not_folded(mid: Patient) -> None:
    feed(mid, count=20_001, folded=False)
    (found,) = mid.see("feed.unfolded")
    assert (found.healable, "20001" in found.evidence) == (True, True)


def test_a_feed_that_nobody_asks_for(mid: Patient) -> None:
    feed(mid, seq=10, count=3)
    mid.execute(
        "insert into feed_ack (account_id, stream, seq, asked_at) values (1, 'logs', 11, now() - interval '3 h'), (1, 'deliveries', 13, now() - interval '1 day')"
    )
    assert mid.see("feed.unasked") == [], "logs may wait three hours; of the deliveries nothing waits"
    mid.execute("update feed_ack set asked_at = now() - interval '4 h'")
    (found,) = mid.see("feed.unasked")
    assert (found.subject, "2 batches wait" in found.evidence) == ("default logs", True)


def test_results_that_are_never_acknowledged(mid: Patient) -> None:
    feed(mid, seq=10, created="4 days")
    (found,) = mid.see("feed.unacknowledged")
    assert found.severity is Severity.WARNING
    mid.execute("update feed_batch set created_at = now() - interval '50 days'")
    assert mid.see("feed.unacknowledged")[0].severity is Severity.ERROR
    mid.execute("insert into feed_ack (account_id, stream, seq) values (1, 'logs', 11)")
    assert mid.see("feed.unacknowledged") == []


def test_results_of_an_account_that_was_switched_off_ask_for_nothing_and_say_when_they_go(mid: Patient) -> None:
    feed(mid, seq=10, created="50 days")
    assert mid.see("feed.unacknowledged")[0].severity is Severity.ERROR
    mid.execute("update account set active = false")
    (found,) = mid.see("feed.unacknowledged")
    assert (found.subject, found.severity) == ("default", Severity.INFO)
    assert f"from {CLOCK.now() + timedelta(days=11):%Y-%m-%d} on" in found.remedy
    mid.execute(
        "insert into option (name, value, modified_by) values ('NmsCleanup_UnpulledPurgeDelay', '70d', 'tests')"
    )
    assert f"from {CLOCK.now() + timedelta(days=21):%Y-%m-%d} on" in mid.see("feed.unacknowledged")[0].remedy


def test_a_disk_budget_that_is_nearly_or_all_spent(mid: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mid.see("feed.budget") == []
    mid.execute("insert into option (name, value, modified_by) values ('NmsServer_DiskBudget', '1', 'tests')")
    assert mid.see("feed.budget") == []
    ((size,),) = mid.execute("select pg_database_size(current_database())")
    for allowed, severity in ((size / 0.95, "warning"), (size // 2, "error")):
        monkeypatch.setattr(disk_budget, "GB", int(allowed))
        (found,) = mid.see("feed.budget")
        assert found.severity == severity
