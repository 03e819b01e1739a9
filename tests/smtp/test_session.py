"""What transcripts cannot say: limits, withholding, chunks, and that nothing a server sends breaks the session."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midsource.model.outcome import Attempt, Lost, Reply, Stage
from midsource.smtp.events import (
    Closed,
    Event,
    Finished,
    NeedData,
    Pipelining,
    Ready,
    Replied,
    Returned,
    Send,
    Started,
    Transaction,
)
from midsource.smtp.reply import Limits
from midsource.smtp.session import CHUNK_BYTES, ClientSession
from midsource.smtp.table import STAGE, TABLE, Action, Kind, Step

OPENING = b"220 mx\r\n", b"250-mx\r\n250 PIPELINING\r\n"


def message(token: int, body: bytes = b"\r\nhello\r\n", *, prestuffed: bool = False) -> Transaction:
    return Transaction(token, "a@a.example", f"u{token}@b.example", body, prestuffed=prestuffed)


def opened(pipelining: Pipelining = Pipelining.GROUPED) -> ClientSession:
    session = ClientSession("me.example", pipelining=pipelining)
    for data in OPENING:
        session.receive(data)
    events(session)
    return session


def events(session: ClientSession) -> list[Event]:
    """Everything up to the next wait."""
    out: list[Event] = []
    while not isinstance(event := session.next_event(), NeedData | Closed):
        out.append(event)
    return [*out, event] if isinstance(event, Closed) else out


def test_the_table_has_an_answer_for_everything() -> None:
    assert {(step, kind) for step, row in TABLE.items() for kind in row} == {(s, k) for s in Step for k in Kind}
    assert all(row[Kind.CLOSING] in (Action.END, Action.GONE) for row in TABLE.values())
    assert set(STAGE) == set(Step)


def test_ready_is_said_once_and_wants_work_stays() -> None:
    session = ClientSession("me.example")
    for data in OPENING:
        session.receive(data)
    assert Ready() in events(session)
    assert events(session) == []
    assert session.wants_work
    assert session.awaits is None


def test_only_a_whole_reply_is_one() -> None:
    """What begins the time to wait anew: not bytes, not lines that say that more follow, not what ends the session."""
    session = ClientSession("me.example")
    assert [session.receive(data) for data in (b"2", b"20 m", b"x\r\n250-", b"mx\r\n", b"250 ok\r\n2")] == [
        False, False, True, False, True,
    ]  # fmt: skip
    assert not session.receive(b"")
    assert not session.receive(b"250 ok\r\n")


def test_started_comes_before_the_first_body_byte() -> None:
    session = opened()
    session.submit(message(7))
    [group] = events(session)
    assert isinstance(group, Send)
    assert group.ends is None
    session.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert events(session) == [Started(7), Send(b"\r\nhello\r\n.\r\n", ends=7)]
    assert session.awaits is Stage.BODY


def test_a_large_body_leaves_in_chunks_and_its_dot_apart() -> None:
    body = b"x" * 70 + b"\r\n"
    body *= 2000
    session = opened()
    session.submit(message(1, body))
    events(session)
    session.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    started, *sends = events(session)
    assert started == Started(1)
    assert all(isinstance(send, Send) for send in sends)
    assert [len(send.data) <= CHUNK_BYTES for send in sends if isinstance(send, Send)] == [True] * 4
    assert b"".join(send.data for send in sends if isinstance(send, Send)) == body + b".\r\n"
    assert sends[-1] == Send(b".\r\n", ends=1)
    assert all(send.ends is None for send in sends[:-1] if isinstance(send, Send))


def test_withheld_before_its_body_a_message_is_returned() -> None:
    session = opened(Pipelining.ACROSS)
    session.submit(message(1))
    session.submit(message(2))
    events(session)
    session.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert session.next_event() == Started(1)
    session.withhold("the lease ends")
    assert events(session) == [
        Returned(message(1)),
        Returned(message(2)),
        Closed(Stage.DATA, Lost("the lease ends")),
    ]


def test_withheld_at_its_dot_a_message_is_lost_without_doubt() -> None:
    session = opened(Pipelining.ACROSS)
    big = message(1, b"\r\n" * CHUNK_BYTES)
    session.submit(big)
    session.submit(message(2))
    events(session)
    session.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    while not (isinstance(event := session.next_event(), Send) and event.ends == 1):
        pass
    session.withhold("the lease ends")
    assert events(session) == [
        Finished(1, Attempt(Stage.DATA, Lost("the lease ends"))),
        Returned(message(2)),  # its commands were in the send that did not happen
        Closed(Stage.DATA, Lost("the lease ends")),
    ]


def test_nothing_to_withhold_is_a_wrong_call() -> None:
    with pytest.raises(ValueError, match="no message to withhold"):
        opened().withhold("why")


def test_a_loss_between_started_and_body_leaves_no_doubt() -> None:
    session = opened()
    session.submit(message(1))
    events(session)
    session.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert session.next_event() == Started(1)
    session.lost("reset")
    assert events(session)[0] == Finished(1, Attempt(Stage.DATA, Lost("reset")))


def test_a_loss_with_the_body_under_way_is_uncertain_and_drops_the_rest() -> None:
    session = opened()
    session.submit(message(1, b"\r\n" * CHUNK_BYTES))
    events(session)
    session.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert session.next_event() == Started(1)
    assert isinstance(session.next_event(), Send)
    session.lost("reset")
    assert events(session) == [Finished(1, Attempt(Stage.BODY, Lost("reset"))), Closed(Stage.BODY, Lost("reset"))]


def test_an_unasked_reply_ends_the_session() -> None:
    session = opened()
    session.receive(b"250 again\r\n")
    assert events(session) == [Closed(Stage.MAIL, Lost("unasked reply: 250 again"))]


def test_421_while_idle_ends_the_session_with_its_words() -> None:
    session = opened()
    session.receive(b"421 4.4.2 idle too long\r\n")
    assert events(session) == [Closed(Stage.MAIL, Reply(421, "4.4.2", "idle too long"))]
    assert session.is_over


def test_a_connection_lost_while_idle_is_nobodys_attempt() -> None:
    session = opened()
    session.receive(b"")
    assert events(session) == [Closed(None, Lost("the server closed the connection"))]


@pytest.mark.parametrize(
    ("flood", "why"),
    [
        (b"250-" + b"x" * 3000, "a reply line longer than 2048 bytes"),
        (b"250-" + b"x" * 3000 + b"\r\n", "a reply line longer than 2048 bytes"),
        (b"250-x\r\n" * 100, "a reply of more than 100 lines"),
        (b"250 x\r\n" * 10000, "more than 65536 bytes at once"),
        (b"999 x\r\n", "not a reply: '999 x'"),
        (b"250x\r\n", "not a reply: '250x'"),
        (b"\r\n", "not a reply: ''"),
        (b"\x00\x01\r\n", "not a reply: ''"),
    ],
)
def test_what_no_mail_server_says_ends_the_session(flood: bytes, why: str) -> None:
    session = ClientSession("me.example")
    session.receive(flood)
    assert events(session) == [Closed(Stage.BANNER, Lost(f"garbled reply: {why}"))]


def test_limits_are_parameters() -> None:
    session = ClientSession("me.example", Limits(line_bytes=10))
    session.receive(b"220 a longer line\r\n")
    assert session.is_over


def test_the_longest_allowed_reply_is_taken() -> None:
    session = ClientSession("me.example")
    session.receive(b"220-x\r\n" * 99 + b"220 x\r\n")
    assert events(session) == [Send(b"EHLO me.example\r\n")]


@pytest.mark.parametrize(
    "bad",
    [
        message(1, b"no line end"),
        message(1, b"bare\nLF\r\n"),
        message(1, b"bare\rCR\r\n"),
        message(1, b"swapped\n\r\r\n"),
        message(1, b""),
        message(1, b"x\r\n.\r\nMAIL FROM:<evil@e.example>\r\n", prestuffed=True),
        message(1, b".\r\n", prestuffed=True),
        Transaction(1, "a@a.example>\r\nRSET", "b@b.example", b"\r\n"),
        Transaction(1, "a@a.example", "b@b.example> SIZE=1", b"\r\n"),
        Transaction(1, "a@a.example", "b b@b.example", b"\r\n"),
        Transaction(1, "a@a.example", '"b>\r"@b.example', b"\r\n"),
        Transaction(1, "a@a.example", "zoé@b.example", b"\r\n"),
        Transaction(1, "a@a.example", "", b"\r\n"),
    ],
)
def test_what_would_break_the_lines_is_refused_before_anything_is_said(bad: Transaction) -> None:
    session = opened()
    with pytest.raises(ValueError, match="message 1"):
        session.submit(bad)
    assert session.wants_work
    assert events(session) == []


def test_the_lines_of_a_message_somebody_vouches_for_are_not_read_but_its_end_is() -> None:
    Transaction(1, "a@a.example", "b@b.example", b"bare\nLF\r\n", prestuffed=True, vouched=True).check()
    with pytest.raises(ValueError, match="last line"):
        Transaction(1, "a@a.example", "b@b.example", b"x\r\nno end", prestuffed=True, vouched=True).check()
    with pytest.raises(ValueError, match="angle brackets"):
        Transaction(1, "a@a.example", "b@b.example>", b"\r\n", prestuffed=True, vouched=True).check()


@pytest.mark.parametrize("path", ["", "a@b.example", '"a b>"@b.example', '"a\\"b"@b.example', "postmaster"])
def test_paths_that_are_fine(path: str) -> None:
    Transaction(1, path, "b@b.example", b"\r\n").check()


def test_one_message_too_many_is_a_wrong_call() -> None:
    session = opened()
    session.submit(message(1))
    with pytest.raises(ValueError, match="not ready for message 2"):
        session.submit(message(2))


@pytest.mark.parametrize("hello", ["", "two words", "x\r\nRSET", "é.example"])
def test_the_name_we_say_is_checked(hello: str) -> None:
    with pytest.raises(ValueError, match="EHLO"):
        ClientSession(hello)


def test_trace_gives_every_reply() -> None:
    session = ClientSession("me.example", trace=True)
    session.receive(b"220 mx\r\n")
    assert events(session)[0] == Replied(Stage.BANNER, Reply(220, "", "mx"))


def test_repr_shows_the_state() -> None:
    session = ClientSession("me.example", pipelining=Pipelining.ACROSS)
    assert repr(session) == "<ClientSession opening, lock-step, awaits BANNER>"
    for data in OPENING:
        session.receive(data)
    session.submit(message(7))
    session.submit(message(8))
    assert repr(session) == "<ClientSession open, across, awaits MAIL RCPT DATA, says 7, next 8>"


REPLIES = st.sampled_from(
    [
        b"250 ok\r\n",
        b"354 go\r\n",
        b"550 5.1.1 no\r\n",
        b"451 4.7.1 later\r\n",
        b"421 4.7.0 bye\r\n",
        b"250-a\r\n",
        b"x\r\n",
    ]
) | st.binary(max_size=12)


class Ledger:
    """What became of each submitted message."""

    def __init__(self) -> None:
        self.submitted: list[int] = []
        self.begun: set[int] = set()
        self.ended: list[int] = []

    def note(self, event: Event) -> None:
        match event:
            case Send(_, ends):
                assert ends is None or ends in self.begun
            case Started(token):
                self.begun.add(token)
            case Finished(token, attempt):
                self.ended.append(token)
                assert attempt.stage is not Stage.BODY or token in self.begun
                sent = isinstance(attempt.answer, Reply) and attempt.answer.is_positive
                assert not sent or attempt.stage is Stage.BODY
            case Returned(transaction):
                self.ended.append(transaction.token)
                assert transaction.token not in self.begun


@given(
    pipelining=st.sampled_from(Pipelining),
    replies=st.lists(REPLIES, max_size=60),
    greeted=st.booleans(),
    split=st.integers(1, 40),
)
def test_whatever_a_server_says_each_message_ends_exactly_once(
    pipelining: Pipelining, replies: list[bytes], *, greeted: bool, split: int
) -> None:
    session = opened(pipelining) if greeted else ClientSession("me.example", pipelining=pipelining)
    stream = b"".join(replies)
    ledger = Ledger()
    for data in [*(stream[i : i + split] for i in range(0, len(stream), split)), b"", b""]:
        while session.wants_work:
            ledger.submitted.append(len(ledger.submitted))
            session.submit(message(ledger.submitted[-1]))
        for event in events(session):
            ledger.note(event)
        session.receive(data)
    for event in events(session):
        ledger.note(event)
    assert sorted(ledger.ended) == ledger.submitted
    assert session.is_over
