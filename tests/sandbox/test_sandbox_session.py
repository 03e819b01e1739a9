"""The conversation without a socket: whole, byte by byte, pipelined, and against our own client."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midsource.model.outcome import Reply, Stage
from midsource.sandbox.arrival import Arrival, read_facts
from midsource.sandbox.events import Close, Send, StartTls, Take, Wait
from midsource.sandbox.framing import MAX_MESSAGE_BYTES, Fault, Framer
from midsource.sandbox.judge import Judge
from midsource.sandbox.session import MAX_MISTAKES, MAX_RECIPIENTS, SinkSession
from midsource.smtp import events as client_events
from midsource.smtp.session import ClientSession
from midsource.testing.clock import ManualClock


class Talk:
    """A session, what it wrote and what it took."""

    def __init__(self, *, offers_tls: bool = True) -> None:
        self.session = SinkSession(
            Judge(ManualClock(), lambda _id, _rcpt: False), "sink.example", offers_tls=offers_tls
        )
        self.written = b""
        self.taken: list[Arrival] = []
        self.waits: list[float] = []
        self.is_closed = False
        self.wants_tls = False

    def say(self, data: bytes) -> bytes:
        """Feed bytes; return what the session wrote because of them."""
        before = len(self.written)
        self.session.receive(data)
        while (event := self.session.next_event()) is not None:
            match event:
                case Send(written):
                    self.written += written
                case Take(arrival):
                    self.taken.append(arrival)
                    self.written += b"250 2.0.0 kept\r\n" if arrival.answered else b""
                case Wait(seconds):
                    self.waits.append(seconds)
                case StartTls():
                    self.wants_tls = True
                case Close():
                    self.is_closed = True
        return self.written[before:]

    def codes(self, data: bytes) -> list[str]:
        """Feed bytes; return the final codes of the replies."""
        return [line[:3].decode() for line in self.say(data).split(b"\r\n") if line[3:4] == b" "]


GROUP = b"MAIL FROM:<a@brand.example>\r\nRCPT TO:<alice@orange.example>\r\nDATA\r\n"
DIALOGUE = (
    b"EHLO me.example\r\n"
    + GROUP
    + b"Subject: one\r\n\r\n..dot\r\n.\r\n"
    + b"MAIL FROM:<> SIZE=20 BODY=8BITMIME\r\nRCPT TO:<x@nobody.example>\r\nDATA\r\nRSET\r\n"
    + GROUP
    + b".\r\n"
    + GROUP
    + b"\r\n.\r\nNOOP\r\nQUIT\r\n"
)
CODES = [b"250 250 250 354 250", b"250 550 503 250", b"250 250 354 250", b"250 250 354 250", b"250 221"]
BODIES = [b"Subject: one\r\n\r\n.dot\r\n", b"", b"\r\n"]


@pytest.mark.parametrize("size", [len(DIALOGUE), 1, 2, 3, 7, 64])
def test_a_dialogue_is_the_same_in_any_pieces(size: int) -> None:
    talk = Talk()
    codes = [code for at in range(0, len(DIALOGUE), size) for code in talk.codes(DIALOGUE[at : at + size])]
    assert codes == b" ".join(CODES).decode().split()
    assert [one.body for one in talk.taken] == BODIES
    assert talk.is_closed


_lines = st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\r", b".").replace(b"\n", b".")), max_size=8)


@given(st.lists(_lines, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_our_client_and_the_sink_agree_on_every_message(messages: list[list[bytes]], chance: random.Random) -> None:
    """Both cores talk in random pieces: what the one submits is what the other takes, dots and all."""
    bodies = [b"\r\n".join(lines) + b"\r\n" for lines in messages]
    client, talk = ClientSession("me.example", tls=_plain()), Talk()
    to_client, waiting = [talk.session.greeting()], list(enumerate(bodies))
    finished: list[tuple[int, Stage, int]] = []
    while len(finished) < len(bodies):
        for data in to_client:
            for piece in _pieces(data, chance):
                client.receive(piece)
        to_client = []
        while not isinstance(event := client.next_event(), client_events.NeedData):
            match event:
                case client_events.Send(data):
                    to_client += [talk.say(piece) for piece in _pieces(data, chance)]
                case client_events.Ready() if waiting:
                    token, body = waiting.pop(0)
                    client.submit(client_events.Transaction(token, "a@brand.example", "b@orange.example", body))
                case client_events.Finished(token, attempt):
                    finished.append(
                        (token, attempt.stage, attempt.answer.code if isinstance(attempt.answer, Reply) else 0)
                    )
                case client_events.Ready():
                    break
    assert finished == [(n, Stage.BODY, 250) for n in range(len(bodies))]
    assert [one.body for one in talk.taken] == bodies


def _plain() -> client_events.TlsPolicy:
    return client_events.TlsPolicy.NEVER


def _pieces(data: bytes, chance: random.Random) -> list[bytes]:
    cut = chance.randint(0, len(data))
    return [piece for piece in (data[:cut], data[cut:]) if piece]


@pytest.mark.parametrize(
    "smuggled",
    [
        b"hi\n.\nMAIL FROM:<evil@x.example>\r\n.\r\n",
        b"hi\r\n.\nMAIL FROM:<evil@x.example>\r\n.\r\n",
        b"hi\n.\r\nMAIL FROM:<evil@x.example>\r\n.\r\n",
        b"hi\r.\rMAIL FROM:<evil@x.example>\r\n.\r\n",
        b"hi\r\n\x00.\r\nbye\rbye\r\n.\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_a_message_with_a_bare_line_end_is_refused_whole(smuggled: bytes, size: int) -> None:
    talk = Talk()
    talk.say(b"EHLO me\r\n" + GROUP)
    data = smuggled + GROUP
    codes = [code for at in range(0, len(data), size) for code in talk.codes(data[at : at + size])]
    assert codes == ["521"]
    assert talk.taken == []
    assert talk.is_closed


@pytest.mark.parametrize("line", [b"NOOP\n", b"NO\rOP\r\n", b"NOOP\r\r\n", b"\n"])
def test_a_command_with_a_bare_line_end_ends_the_conversation(line: bytes) -> None:
    talk = Talk()
    assert talk.codes(line + b"NOOP\r\n") == ["521"]
    assert talk.is_closed


def test_an_endless_command_line_ends_the_conversation() -> None:
    talk = Talk()
    assert talk.codes(b"NOOP " + b"x" * 3000) == ["500"]
    assert talk.is_closed
    assert Talk().codes(b"NOOP " + b"x" * 3000 + b"\r\n") == ["500"]


def test_a_message_that_is_too_long_is_refused_after_its_dot_and_costs_no_memory() -> None:
    talk = Talk()
    talk.say(b"EHLO me\r\n" + GROUP)
    piece = (b"x" * 98 + b"\r\n") * 1000
    for _ in range(MAX_MESSAGE_BYTES // len(piece) + 2):
        assert talk.say(piece) == b""
    assert len(talk.session._framer) <= MAX_MESSAGE_BYTES + len(piece)
    assert talk.codes(b".\r\n" + GROUP + b"ok\r\n.\r\n") == ["552", "250", "250", "354", "250"]
    assert [one.body for one in talk.taken] == [b"ok\r\n"]


def test_size_is_refused_before_the_body() -> None:
    talk = Talk()
    assert talk.codes(b"EHLO me\r\nMAIL FROM:<a@x.example> SIZE=%d\r\n" % (MAX_MESSAGE_BYTES + 1)) == ["250", "552"]


def test_what_follows_starttls_in_the_clear_is_not_obeyed() -> None:
    talk = Talk()
    assert talk.codes(b"EHLO me\r\nSTARTTLS\r\nMAIL FROM:<evil@x.example>\r\n") == ["250", "503"]
    assert talk.is_closed
    assert not talk.wants_tls


def test_starttls_begins_anew() -> None:
    talk = Talk()
    assert b"STARTTLS" in talk.say(b"EHLO me\r\n")
    assert talk.codes(b"MAIL FROM:<a@x.example>\r\nSTARTTLS\r\n") == ["250", "220"]
    assert talk.wants_tls
    assert talk.say(b"NOOP\r\n") == b""
    talk.session.tls_started()
    assert talk.codes(b"") == ["250"]
    assert talk.codes(b"MAIL FROM:<a@x.example>\r\n") == ["503"]
    assert b"STARTTLS" not in talk.say(b"EHLO me\r\n")
    assert talk.codes(b"STARTTLS\r\n") == ["503"]


def test_without_a_certificate_nothing_is_offered() -> None:
    talk = Talk(offers_tls=False)
    assert b"STARTTLS" not in talk.say(b"EHLO me\r\n")
    assert talk.codes(b"STARTTLS\r\n") == ["503"]


@pytest.mark.parametrize(
    ("said", "codes"),
    [
        (b"MAIL FROM:<a@x.example>\r\n", "503"),
        (b"EHLO me\r\nRCPT TO:<a@x.example>\r\n", "250 503"),
        (b"EHLO me\r\nDATA\r\n", "250 503"),
        (b"EHLO me\r\nMAIL FROM:<a@x>\r\nMAIL FROM:<a@x>\r\n", "250 250 503"),
        (b"EHLO\r\n", "501"),
        (b"HELO me\r\nMAIL FROM:<a@x.example>\r\n", "250 250"),
        (b"EHLO me\r\nMAIL FROM:a@x.example\r\n", "250 501"),
        (b"EHLO me\r\nMAIL TO:<a@x.example>\r\n", "250 501"),
        (b"EHLO me\r\nmail from:<a@x.example>\r\nrcpt to:<b@x.example>\r\n", "250 250 250"),
        (b"EHLO me\r\nMAIL FROM:<a@x> HOLDFOR=9\r\n", "250 555"),
        (b"EHLO me\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x> NOTIFY=NEVER\r\n", "250 250 501"),
        (b"EHLO me\r\nMAIL FROM:<a@x>\r\nRCPT TO:<nobody>\r\n", "250 250 553"),
        (b"EHLO me\r\nMAIL FROM:<a@x>\r\nRCPT TO:<\xc3\xa9@x.example>\r\n", "250 250 553"),
        (b"EHLO me\r\nMAIL FROM:<\xc3\xa9@x> SMTPUTF8\r\nRCPT TO:<\xc3\xa9@x.example>\r\n", "250 250 250"),
        (b"EHLO me\r\nMAIL FROM:<\xc3\xa9@x>\r\n", "250 553"),
        (b"EHLO me\r\nBDAT 5 LAST\r\n", "250 500"),
        (b"VRFY alice\r\nHELP\r\nQUIT\r\n", "252 214 221"),
    ],
)
def test_what_is_out_of_order_or_malformed_gets_its_code(said: bytes, codes: str) -> None:
    assert Talk().codes(said) == codes.split()


def test_too_many_recipients_and_too_many_mistakes_are_bounded() -> None:
    talk = Talk()
    talk.say(b"EHLO me\r\nMAIL FROM:<a@x.example>\r\n")
    codes = talk.codes(b"".join(b"RCPT TO:<p%d@x.example>\r\n" % n for n in range(MAX_RECIPIENTS + 1)))
    assert codes == ["250"] * MAX_RECIPIENTS + ["452"]
    codes = talk.codes(b"NONSENSE\r\n" * (MAX_MISTAKES + 5))
    assert codes == ["500"] * (MAX_MISTAKES - 1) + ["421"]
    assert talk.is_closed


def test_a_slow_provider_waits_before_each_reply() -> None:
    talk = Talk()
    talk.say(b"EHLO me\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@slow.example>\r\nDATA\r\nhi\r\n.\r\n" + GROUP)
    assert talk.waits == [0.2, 0.2, 0.2]


def test_after_the_end_nothing_is_heard() -> None:
    talk = Talk()
    talk.say(b"QUIT\r\n")
    assert talk.say(b"EHLO me\r\n" + GROUP) == b""
    assert "closed" in repr(talk.session)


def test_the_framer_finds_the_end_whatever_came_before() -> None:
    framer = Framer()
    framer.receive(b"a\r\n.\r")
    assert framer.next_message() is None
    framer.receive(b"\nNOOP\r\n")
    assert framer.next_message() == b"a\r\n"
    assert framer.next_line() == b"NOOP"
    framer.receive(b"x" * 2100 + b"\r\n")
    assert framer.next_line() is Fault.TOO_LONG


@pytest.mark.parametrize(
    ("header", "subject"),
    [
        (b"Subject: plain", "plain"),
        (b"Subject: =?utf-8?q?L=27=C3=A9t=C3=A9?=\r\n =?utf-8?q?_arrive?=", "L'été arrive"),
        (b"Subject: caf\xc3\xa9", "café"),
        (b"Subject: =?no-such-charset?q?x?=", "=?no-such-charset?q?x?="),
        (b"Subject:", ""),
        (b"X-Other: a", ""),
    ],
)
def test_facts_are_read_from_the_header(header: bytes, subject: str) -> None:
    facts = read_facts(header + b"\r\nX-MIDSOURCE-ID: 1.12.34\r\nMessage-Id:\r\n <abc@x>\r\n\r\nSubject: body\r\n")
    assert facts.subject == subject
    assert (facts.id, facts.delivery, facts.message_id) == ("1.12.34", "12", "abc@x")


@pytest.mark.parametrize(
    ("header", "delivery"),
    [
        (b"X-Midsource-Id: 1.868939989.7", "868939989"),
        (b"X-Midsource-Id: 868939989.7", "868939989"),
        (b"X-Midsource-Id: 7", ""),
        (b"X-Midsource-Id: 1.2.3\r\nX-Midsource-Delivery: 9", "9"),
        (b"X-Other: 1.2.3", ""),
    ],
)
def test_the_delivery_is_read_from_the_token(header: bytes, delivery: str) -> None:
    assert read_facts(header + b"\r\n\r\nhi\r\n").delivery == delivery


def test_a_message_without_header_is_known_by_its_hash() -> None:
    facts = read_facts(b"\r\nSubject: not a header\r\n")
    assert facts.message_id == f"sha256:{facts.sha256}"
    assert (facts.subject, facts.id, facts.delivery) == ("", "", "")
