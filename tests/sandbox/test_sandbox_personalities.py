"""Each provider's behaviour, over a real socket."""

from __future__ import annotations

import smtplib
import ssl
import time
from datetime import timedelta

import pytest
from tests.sandbox.sandbox_process import RunningSandbox

from midsource.sandbox.judge import Judge, Visitor
from midsource.sandbox.personalities import MX_HOSTS, PERSONALITIES, Kind, falls_in_share, mx_host_of, personality_of
from midsource.testing.clock import ManualClock


def test_a_provider_and_an_unknown_domain_accept(sandbox: RunningSandbox) -> None:
    assert sandbox.send("alice@gmail.example").startswith("250 2.0.0 kept as ")
    assert sandbox.send("bob@never-heard-of.example").startswith("250 ")


def test_slow_answers_late(sandbox: RunningSandbox) -> None:
    client = sandbox.client()
    client.mail("news@brand.example")
    begin = time.monotonic()
    assert client.rcpt("alice@slow.example")[0] == 250
    assert time.monotonic() - begin >= 0.19
    begin = time.monotonic()
    assert client.data(b"Subject: x\r\n\r\nhi\r\n")[0] == 250
    assert time.monotonic() - begin >= 0.39  # the reply to DATA and the reply to the dot
    client.quit()


def test_slow_holds_up_no_other_connection(sandbox: RunningSandbox) -> None:
    slow, quick = sandbox.client(), sandbox.client()
    slow.mail("news@brand.example")
    slow.putcmd("rcpt", "TO:<alice@slow.example>")
    begin = time.monotonic()
    assert quick.noop()[0] == 250
    assert time.monotonic() - begin < 0.15
    assert slow.getreply()[0] == 250
    slow.close()
    quick.close()


def test_greylisting_puts_off_the_first_try_and_takes_a_later_one(sandbox: RunningSandbox) -> None:
    assert sandbox.send("alice@greylist.example").startswith("451 4.7.1 ")
    assert sandbox.send("alice@greylist.example").startswith("451 4.7.1 ")
    time.sleep(personality_of("greylist.example").delay_seconds)
    assert sandbox.send("bob@greylist.example").startswith("451 4.7.1 ")
    assert sandbox.send("alice@greylist.example").startswith("250 ")


def test_greylisting_knows_sender_and_recipient_apart() -> None:
    clock = ManualClock()
    judge = Judge(clock, lambda _id, _rcpt: False)

    def answer(sender: str, rcpt: str) -> bytes:
        return judge.recipient(Visitor(), sender, rcpt, "greylist.example").reply[:3]

    assert answer("a@x.example", "Alice@greylist.example") == b"451"
    clock.advance(timedelta(seconds=2.9))
    assert answer("a@x.example", "alice@greylist.example") == b"451"
    clock.advance(timedelta(seconds=0.1))
    assert answer("a@x.example", "alice@greylist.example") == b"250"
    assert answer("b@x.example", "alice@greylist.example") == b"451"
    assert judge.refused == {"greylist": 3}


def test_throttle_says_421_after_some_messages_and_hangs_up(sandbox: RunningSandbox) -> None:
    limit = personality_of("throttle.example").messages_per_connection
    client = sandbox.client()
    for n in range(limit):
        assert client.sendmail("news@brand.example", f"a{n}@throttle.example", "Subject: x\r\n\r\nhi") == {}
    client.mail("news@brand.example")
    code, text = client.rcpt("one-more@throttle.example")
    assert (code, text[:5]) == (421, b"4.7.0")
    with pytest.raises(smtplib.SMTPServerDisconnected):
        client.noop()
    assert sandbox.send("one-more@throttle.example").startswith("250 ")


def test_throttle_limits_connections_and_gives_their_places_back(sandbox: RunningSandbox) -> None:
    clients = [sandbox.client() for _ in range(personality_of("throttle.test").connections)]
    for client in clients:
        client.mail("news@brand.example")
        assert client.rcpt("alice@throttle.test")[0] == 250
    assert sandbox.send("bob@throttle.test").startswith("421 4.7.0 ")
    clients.pop().quit()
    assert sandbox.send("bob@throttle.test").startswith("250 ")
    for client in clients:
        client.close()


@pytest.mark.parametrize(
    ("domain", "refusal"),
    [("unknown.example", "550 5.1.1 "), ("full.example", "552 5.2.2 ")],
)
def test_a_share_is_refused_and_always_the_same_one(sandbox: RunningSandbox, domain: str, refusal: str) -> None:
    first = [sandbox.send(f"person{n}@{domain}") for n in range(60)]
    refused = sum(reply.startswith(refusal) for reply in first)
    assert 8 <= refused <= 30
    assert all(reply.startswith((refusal, "250 ")) for reply in first)
    again = [sandbox.send(f"PERSON{n}@{domain}") for n in range(60)]
    assert [reply[:3] for reply in again] == [reply[:3] for reply in first]


def test_the_whole_domain_may_be_unknown_or_blocked(sandbox: RunningSandbox) -> None:
    assert {sandbox.send(f"p{n}@nobody.example")[:9] for n in range(5)} == {"550 5.1.1"}
    assert {sandbox.send(f"p{n}@block.example")[:9] for n in range(5)} == {"550 5.7.1"}


def _message_that_is_dropped(rcpt: str) -> bytes:
    share = personality_of("drop.example").share
    unlucky = next(n for n in range(10_000) if falls_in_share(share, f"{n}@brand.example", rcpt))
    return b"Message-ID: <%d@brand.example>\r\nX-Midsource-Id: 7.%d\r\nSubject: x\r\n\r\nhi\r\n" % (unlucky, unlucky)


def test_drop_keeps_the_message_and_hangs_up_once(sandbox: RunningSandbox) -> None:
    body = _message_that_is_dropped("alice@drop.example")
    assert sandbox.send("alice@drop.example", body) == "lost"
    held = [line for line in sandbox.truth("7") if line["rcpt"] == "alice@drop.example"]
    assert [(line["answered"], line["duplicate"]) for line in held] == [(False, False)]
    assert sandbox.send("alice@drop.example", body).startswith("250 ")
    held = [line for line in sandbox.truth("7") if line["rcpt"] == "alice@drop.example"]
    assert [(line["answered"], line["duplicate"]) for line in held] == [(False, False), (True, True)]


def test_drop_answers_the_others(sandbox: RunningSandbox) -> None:
    replies = [
        sandbox.send(f"p{n}@drop.example", b"Message-ID: <m%d@x.example>\r\n\r\nhi\r\n" % n)[:3] for n in range(60)
    ]
    assert 1 <= replies.count("los") <= 20
    assert replies.count("250") == 60 - replies.count("los")


def test_tls_is_demanded_and_works(sandbox: RunningSandbox) -> None:
    assert sandbox.send("alice@tls.example").startswith("530 5.7.0 ")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    client = sandbox.client()
    assert client.has_extn("starttls")
    assert client.starttls(context=context)[0] == 220
    client.ehlo("test.example")
    assert not client.has_extn("starttls")
    assert client.sendmail("news@brand.example", "alice@tls.example", "Subject: secret\r\n\r\nhi") == {}
    client.quit()
    assert sandbox.json("/inbox.json?domain=tls.example")["messages"][0]["tls"] is True


def test_the_certificate_is_trusted_by_nobody(sandbox: RunningSandbox) -> None:
    client = sandbox.client()
    with pytest.raises(ssl.SSLCertVerificationError):
        client.starttls(context=ssl.create_default_context())
    client.close()
    assert sandbox.send("alice@gmail.example").startswith("250 ")


def test_refusals_are_counted_by_kind(sandbox: RunningSandbox) -> None:
    before = sandbox.json("/summary.json")["refused_since_start"].get("policy_block", 0)
    sandbox.send("zoe@block.example")
    assert sandbox.json("/summary.json")["refused_since_start"]["policy_block"] == before + 1


def test_every_kind_is_in_the_table_and_every_domain_has_an_mx_host() -> None:
    assert {one.kind for one in PERSONALITIES.values()} == set(Kind)
    assert set(MX_HOSTS) == set(PERSONALITIES)
    assert mx_host_of("hotmail.example") == mx_host_of("outlook.example") == "mx.olc.outlook.example"
    assert mx_host_of("acme.invalid") == "mx.acme.invalid"
