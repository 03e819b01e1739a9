"""Supervisors are told once of each change: by webhook, syslog and relay, at once or with the digest, and again after a failure."""

from __future__ import annotations

import hmac
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from email import message_from_bytes
from email.policy import default
from typing import Any

import pytest
from tests.hook import Hook, receiving
from tests.sandbox.sandbox_process import RunningSandbox, sandbox_starter

from midsource.doctor import book, letters, supervisors, telling
from midsource.doctor.channels import SIGNATURE, TIMESTAMP, Carrier
from midsource.doctor.look import Looked
from midsource.doctor.supervisors import Channel, Draft
from midsource.model.errors import Conflict, NotFound, UserError
from midsource.model.finding import Finding, Severity
from midsource.net import syslog
from midsource.net.egress import Egress

from .conftest import CLOCK, Patient

LATE = Finding("pointer.late", "a", Severity.WARNING, "3 h behind", "slow", "wait", ("F30",))
GONE = Finding("process.missing", "mta", Severity.CRITICAL, "0 of 1 lives", "nothing is sent", "start it")


@pytest.fixture
def hook() -> Iterator[Hook]:
    with receiving("/hook") as server:
        yield server


def add(patient: Patient, channel: Channel, address: str, name: str = "ops", **more: Any) -> str:
    with patient.database.transaction() as conn:
        return supervisors.add(conn, patient.config.home, Draft(name, channel, address, **more), "cli:me", CLOCK.now())


def see(patient: Patient, *findings: Finding, now: datetime | None = None) -> None:
    """Record one look at the checks of these two findings."""
    looked = Looked(findings, frozenset({LATE.check, GONE.check}), {}, {})
    with patient.database.transaction() as conn:
        book.record(conn, looked, now or CLOCK.now())


def tell(patient: Patient, now: datetime | None = None) -> tuple[int, int]:
    carrier = Carrier(patient.config.home, patient.instance, Egress(CLOCK, private=True), CLOCK)
    with patient.database.transaction() as conn:
        telling.spread(conn, now or CLOCK.now())
    return telling.deliver(patient.database, carrier, now or CLOCK.now())


def test_a_webhook_is_told_once_of_each_change_and_signed(marketing: Patient, hook: Hook) -> None:
    secret = add(marketing, Channel.WEBHOOK, hook.url)
    see(marketing, LATE)
    see(marketing, replace(LATE, evidence="4 h behind"))
    assert tell(marketing) == (1, 0)
    assert tell(marketing) == (0, 0)
    see(marketing, replace(LATE, severity=Severity.CRITICAL))
    tell(marketing)
    see(marketing)
    see(marketing)
    tell(marketing)
    assert [[one["kind"] for one in document["news"]] for document in hook.documents] == [
        ["opened"],
        ["worsened"],
        ["closed"],
    ]
    _, headers, body = hook.seen[0]
    signed = hmac.new(secret.encode(), f"{headers[TIMESTAMP]}.".encode() + body, "sha256").hexdigest()
    assert headers[SIGNATURE] == f"v1={signed}"
    assert abs(int(headers[TIMESTAMP]) - CLOCK.now().timestamp()) < 60
    document = hook.documents[0]
    assert (document["instance"], document["role"], document["severity"]) == ("marketing", "marketing", "warning")
    finding = document["news"][0]["finding"]
    assert (finding["check"], finding["evidence"], finding["answers"]) == ("pointer.late", "3 h behind", ["F30"])
    assert secret not in str(marketing.execute("select secret from supervisor"))


def test_what_changes_at_once_is_one_message_with_the_worst_named(marketing: Patient, hook: Hook) -> None:
    add(marketing, Channel.WEBHOOK, hook.url)
    see(marketing, LATE, GONE)
    assert tell(marketing) == (2, 0)
    (document,) = hook.documents
    assert (document["severity"], len(document["news"])) == ("critical", 2)
    assert document["title"] == "2 changes, the worst: critical"


def test_only_what_is_severe_enough(marketing: Patient, hook: Hook) -> None:
    add(marketing, Channel.WEBHOOK, hook.url, severity=Severity.ERROR)
    see(marketing, LATE)
    assert tell(marketing) == (0, 0)
    see(marketing, replace(LATE, severity=Severity.ERROR))
    see(marketing, LATE)  # it eases, and then closes as a warning: who heard of it hears that it is over
    assert tell(marketing) == (1, 0)
    see(marketing)
    see(marketing)
    assert tell(marketing) == (1, 0)
    assert [one["kind"] for document in hook.documents for one in document["news"]] == ["worsened", "closed"]


def test_what_was_over_before_anybody_was_told_is_told_to_nobody(marketing: Patient, hook: Hook) -> None:
    add(marketing, Channel.WEBHOOK, hook.url)
    see(marketing, LATE)
    see(marketing)
    assert tell(marketing) == (0, 0), "it had a clean look: its next decides"
    see(marketing)
    assert tell(marketing) == (0, 0)
    assert marketing.execute("select count(*) from notification where spread_at is null")[0][0] == 0
    see(marketing, LATE)
    see(marketing)
    see(marketing, LATE)
    assert tell(marketing) == (1, 0), "it came back before it had closed"


def test_a_clean_look_that_has_no_second_does_not_silence_it(marketing: Patient, hook: Hook) -> None:
    add(marketing, Channel.WEBHOOK, hook.url)
    see(marketing, LATE)
    see(marketing)
    assert tell(marketing, CLOCK.now() + timedelta(minutes=21)) == (1, 0)


def test_a_failed_workflow_is_told_when_it_stays_so(marketing: Patient, hook: Hook) -> None:
    add(marketing, Channel.WEBHOOK, hook.url)
    marketing.execute("insert into workflow (name, schedule) values ('cleanup', 'daily at 04:00')")
    flag = "update workflow set failed = %s, consecutive_failures = 2, last_error = 'no space'"
    marketing.execute(flag, True)
    assert tell(marketing) == (0, 0), "it is tried again after two seconds"
    marketing.execute(flag, False)
    assert tell(marketing, CLOCK.now() + timedelta(minutes=2)) == (0, 0)
    marketing.execute(flag, True)
    assert tell(marketing, CLOCK.now() + timedelta(minutes=2)) == (1, 0)
    marketing.execute(flag, False)
    assert tell(marketing) == (1, 0)
    assert [one["kind"] for document in hook.documents for one in document["news"]] == [
        "workflow_failed",
        "workflow_recovered",
    ]
    assert hook.documents[0]["news"][0]["workflow"]["error"] == "no space"


def test_quiet_hours_hold_back_all_but_the_critical_and_end_with_a_digest(marketing: Patient, hook: Hook) -> None:
    add(marketing, Channel.WEBHOOK, hook.url, quiet="22:00-07:00", digest="07:30")
    night = (CLOCK.now() + timedelta(days=1)).replace(hour=23, minute=0)
    see(marketing, LATE, GONE, now=night)
    assert tell(marketing, night) == (1, 0)
    see(marketing, now=night)
    see(marketing, now=night)
    assert tell(marketing, night) == (1, 0), "who was woken hears at once that it is over"
    assert tell(marketing, night + timedelta(hours=8)) == (0, 0)
    assert tell(marketing, night + timedelta(hours=8, minutes=30)) == (2, 0)
    *at_once, digest = hook.documents
    assert [(one["kind"], one["subject"]) for document in at_once for one in document["news"]] == [
        ("opened", "process.missing mta"),
        ("closed", "process.missing mta"),
    ]
    assert digest["kind"] == "digest"
    assert sorted((one["kind"], one["subject"]) for one in digest["news"]) == [
        ("closed", "pointer.late a"),
        ("opened", "pointer.late a"),
    ]


def test_one_that_cannot_be_told_stops_no_other_is_tried_again_and_becomes_a_finding(
    marketing: Patient, hook: Hook
) -> None:
    add(marketing, Channel.WEBHOOK, "http://127.0.0.1:9/", "broken")
    add(marketing, Channel.WEBHOOK, hook.url)
    see(marketing, LATE)
    now = CLOCK.now()
    assert tell(marketing, now) == (1, 1)
    assert tell(marketing, now + timedelta(minutes=4)) == (0, 0)
    assert tell(marketing, now + timedelta(minutes=5)) == (0, 1)
    (found,) = marketing.see("supervisor.unreachable")
    assert (found.subject, "127.0.0.1:9" in found.cause) == ("broken", True)
    marketing.look("supervisor.unreachable")
    assert tell(marketing, now + timedelta(minutes=6)) == (1, 0)
    assert hook.documents[-1]["news"][0]["subject"] == "supervisor.unreachable broken"
    assert marketing.execute("select count(*) from telling where supervisor = 'broken'")[0][0] == 1, (
        "it is not told of itself"
    )
    marketing.execute("update supervisor set address = %s where name = 'broken'", hook.url)
    assert tell(marketing, now + timedelta(minutes=20)) == (1, 0)
    assert marketing.see("supervisor.unreachable") == []


@pytest.mark.parametrize(
    ("channel", "good", "bad"),
    [
        (Channel.SYSLOG, "udp://127.0.0.1:9", "udp://logs..example:514"),
        (Channel.SMTP, "smtp://127.0.0.1:9/?to=a@b.example", f"smtp://{'x' * 64}/?to=a@b.example"),
        (Channel.WEBHOOK, "http://127.0.0.1:9/", "https://a..example/hook"),
        (Channel.WEBHOOK, "http://127.0.0.1:9/", "http://[::1"),
    ],
)
def test_an_address_that_was_stored_before_hosts_were_checked_stops_no_other(
    marketing: Patient, hook: Hook, channel: Channel, good: str, bad: str
) -> None:
    add(marketing, channel, good, "broken")
    marketing.execute("update supervisor set address = %s where name = 'broken'", bad)
    add(marketing, Channel.WEBHOOK, hook.url)
    see(marketing, GONE)
    assert tell(marketing) == (1, 1)
    ((failures, problem),) = marketing.execute("select failures, last_problem from supervisor where name = 'broken'")
    assert failures == 1
    assert " is no " in problem


def test_a_fault_of_ours_with_one_stops_no_other(
    marketing: Patient, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong in telling one is counted as its failure, and the others hear."""

    def fail(*_: object) -> None:
        raise ValueError("nobody thought of this\nDETAIL:  Failing row contains (person1@gmail.example).")

    monkeypatch.setattr(syslog, "send", fail)
    add(marketing, Channel.SYSLOG, "udp://127.0.0.1:9", "broken")
    add(marketing, Channel.WEBHOOK, hook.url)
    see(marketing, GONE)
    assert tell(marketing) == (1, 1)
    ((failures, problem),) = marketing.execute("select failures, last_problem from supervisor where name = 'broken'")
    assert failures == 1
    assert "a fault of midsource (ValueError: nobody thought of this): see the worker's log" in problem


def test_after_a_day_it_is_given_up(marketing: Patient) -> None:
    add(marketing, Channel.WEBHOOK, "http://127.0.0.1:9/")
    see(marketing, LATE)
    assert tell(marketing) == (0, 1)
    later = CLOCK.now() + timedelta(hours=25)
    assert tell(marketing, later) == (0, 1)
    assert tell(marketing, later + timedelta(days=1)) == (0, 0)


def test_muting_one_or_a_finding(marketing: Patient, hook: Hook) -> None:
    add(marketing, Channel.WEBHOOK, hook.url)
    with marketing.database.transaction() as conn:
        supervisors.mute(conn, "ops", CLOCK.now() + timedelta(hours=1), "cli:me", CLOCK.now())
    see(marketing, LATE)
    assert tell(marketing) == (0, 0)
    with marketing.database.transaction() as conn:
        supervisors.mute(conn, "ops", None, "cli:me", CLOCK.now())
    see(marketing, LATE, GONE)
    with marketing.database.transaction() as conn:
        gone = book.standing(conn)[0]
        book.mute(conn, gone.id, CLOCK.now() + timedelta(hours=1), "cli:me", CLOCK.now())
    assert tell(marketing) == (0, 0)
    assert hook.seen == []


def test_syslog_gets_a_line_for_each_change(marketing: Patient) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        add(marketing, Channel.SYSLOG, f"udp://127.0.0.1:{server.getsockname()[1]}", language="fr")
        see(marketing, LATE, GONE)
        assert tell(marketing) == (2, 0)
        lines = sorted(server.recv(4096).decode() for _ in range(2))
    assert lines[0].startswith("<130>1 ")
    assert 'instance="marketing"' in lines[0]
    assert lines[0].endswith("critique: process.missing mta ouvert. 0 of 1 lives")
    assert lines[1].startswith("<132>1 ")


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    with sandbox_starter() as start:
        yield start(tmp_path_factory.mktemp("home"))


@pytest.mark.parametrize(
    ("language", "word"), [("en", "What to do: wait"), ("fr", "Que faire: wait"), ("pt", "O que fazer: wait")]
)
def test_a_relay_gets_a_plain_mail_in_the_supervisors_language(
    marketing: Patient, sandbox: RunningSandbox, language: str, word: str
) -> None:
    to = f"ops-{language}@example.com"
    add(
        marketing,
        Channel.SMTP,
        f"smtp://127.0.0.1:{sandbox.smtp_port}/?to={to}&from=midsource@example.com",
        language=language,
    )
    see(marketing, LATE)
    assert tell(marketing) == (1, 0)
    kept = next(one for one in sandbox.json("/inbox.json")["messages"] if to in str(one))
    mail = message_from_bytes(sandbox.get(f"/inbox/{kept['n']}/raw")[2], policy=default)
    assert (mail["To"], mail["From"]) == (to, "midsource@example.com")
    assert mail["Auto-Submitted"] == "auto-generated"
    assert "pointer.late a" in mail["Subject"]
    assert mail["Subject"].startswith("[midsource marketing] ")
    body = mail.get_body()
    assert body is not None
    text = body.get_content()
    assert body.get_content_type() == "text/plain"
    assert "3 h behind" in text
    assert word in text


@pytest.mark.parametrize(
    "draft",
    [
        Draft("1", Channel.WEBHOOK, "https://a.example/"),
        Draft("ops", Channel.WEBHOOK, "ftp://a.example/"),
        Draft("ops", Channel.SYSLOG, "http://a.example:514"),
        Draft("ops", Channel.SYSLOG, "udp://a.example:99999"),
        Draft("ops", Channel.SYSLOG, "udp://logs..example:514"),
        Draft("ops", Channel.SYSLOG, "udp://[::1:514"),
        Draft("ops", Channel.SYSLOG, "udp://logs.example:514/?to=a@b.example"),
        Draft("ops", Channel.SMTP, "smtp://relay..example/?to=a@b.example"),
        Draft("ops", Channel.SMTP, f"smtp://{'x' * 64}.example/?to=a@b.example"),
        Draft("ops", Channel.WEBHOOK, "http://[::1"),
        Draft("ops", Channel.WEBHOOK, "https://a..example/"),
        Draft("ops", Channel.SMTP, "smtp://a.example/"),
        Draft("ops", Channel.SMTP, "smtp://a.example/?to=nobody"),
        Draft("ops", Channel.SMTP, "smtp://u:p@a.example/?to=a@b.example"),
        Draft("ops", Channel.WEBHOOK, "https://a.example/", severity=Severity.INFO),
        Draft("ops", Channel.WEBHOOK, "https://a.example/", quiet="22"),
        Draft("ops", Channel.WEBHOOK, "https://a.example/", quiet="07:00-07:00"),
        Draft("ops", Channel.WEBHOOK, "https://a.example/", digest="07:00"),
        Draft("ops", Channel.WEBHOOK, "https://a.example/", quiet="22:00-07:00", digest="25:00"),
        Draft("ops", Channel.WEBHOOK, "https://a.example/", zone="Mars/Base"),
        Draft("ops", Channel.WEBHOOK, "https://a.example/", zone="Europe"),
        Draft("ops", Channel.SYSLOG, "udp://a.example:514#\0"),
        Draft("ops", Channel.SMTP, "smtp://a.example/?to=a@b.example#\0"),
        Draft("ops", Channel.WEBHOOK, "https://a.example/", language="de"),
    ],
)
def test_what_cannot_be_a_supervisor_is_refused(marketing: Patient, draft: Draft) -> None:
    with marketing.database.transaction() as conn, pytest.raises(UserError):
        supervisors.add(conn, marketing.config.home, draft, "cli:me", CLOCK.now())


def test_each_field_of_a_draft_has_its_own_sentence() -> None:
    draft = Draft("9", Channel.WEBHOOK, "nowhere", Severity.INFO, "22", "25:00", "Mars", "de")
    assert list(supervisors.problems(draft)) == ["name", "address", "severity", "quiet", "digest", "zone", "language"]
    assert supervisors.problems(Draft("ops", Channel.WEBHOOK, "https://a.example/")) == {}


def test_hosts_are_stored_as_they_are_looked_up(marketing: Patient) -> None:
    add(marketing, Channel.WEBHOOK, "https://München.example/hook", "web")
    add(marketing, Channel.SYSLOG, "udp://Logs.example", "logs")
    add(marketing, Channel.SMTP, "smtp://bücher.example/?to=ops@bücher.example", "mail")
    with marketing.database.connection() as conn:
        stored = {one.name: one for one in supervisors.listing(conn)}
    assert stored["web"].address == "https://xn--mnchen-3ya.example/hook"
    assert stored["logs"].address == "udp://logs.example"
    where = supervisors.server(Channel.SMTP, stored["mail"].address)
    assert (where.host, where.recipient) == ("xn--bcher-kva.example", "ops@xn--bcher-kva.example")


def test_names_are_taken_once_and_removing_forgets(marketing: Patient, hook: Hook) -> None:
    add(marketing, Channel.WEBHOOK, hook.url)
    with pytest.raises(Conflict, match="already"):
        add(marketing, Channel.WEBHOOK, hook.url)
    see(marketing, LATE)
    with marketing.database.transaction() as conn:
        telling.spread(conn, CLOCK.now())
        assert [name for name, _, _ in telling.pending(conn)] == ["ops"]
        supervisors.remove(conn, "ops")
        assert telling.pending(conn) == []
    with marketing.database.transaction() as conn, pytest.raises(NotFound, match="supervisors: none"):
        supervisors.get(conn, "ops")


def test_every_language_has_every_word() -> None:
    words = letters._WORDS
    assert set(words) == set(supervisors.LANGUAGES)
    assert {frozenset(one) for one in words.values()} == {frozenset(words["en"])}
