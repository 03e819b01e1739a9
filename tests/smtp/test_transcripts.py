"""Every transcript against the bare session, however the server's bytes are cut."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import pytest

from midsource.model.outcome import Lost, Reply, Stage
from midsource.smtp.events import (
    Closed,
    Finished,
    NeedData,
    Pipelining,
    Ready,
    Returned,
    Send,
    Started,
    StartTls,
    TlsPolicy,
    Transaction,
)
from midsource.smtp.session import ClientSession
from midsource.testing.peer import Chop, Do, Hear, Say, Transcript, transactions_of

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


def spoken(stage: Stage | None, answer: Reply | Lost) -> str:
    mark = "lost: " if isinstance(answer, Lost) else ""
    return f"{stage or 'idle'} {mark}{answer}"


class Player:
    """Performs a session's events in memory and keeps what they said."""

    def __init__(self, session: ClientSession, messages: list[Transaction]) -> None:
        self.session = session
        self.messages = deque(messages)
        self.sent = bytearray()
        self.results: list[str] = []
        self.returned: list[int] = []
        self.started: list[int] = []
        self.wants_tls = False
        self.end: Closed | None = None

    def pump(self) -> None:
        while not isinstance(event := self.session.next_event(), NeedData):
            if isinstance(event, Closed):
                self.end = event
                return
            match event:
                case Send(data, ends):
                    self.sent += data
                    assert ends is None or ends == self.started[-1]
                case Started(token):
                    self.started.append(token)
                case Finished(token, attempt):
                    self.results.append(f"{token} {spoken(attempt.stage, attempt.answer)}")
                case Returned(transaction):
                    self.returned.append(transaction.token)
                case Ready():
                    self.feed()
                case StartTls():
                    self.wants_tls = True

    def feed(self) -> None:
        while self.session.wants_work and self.messages:
            self.session.submit(self.messages.popleft())
        if not self.messages:
            self.session.quit()

    def play(self, transcript: Transcript, chop: Chop) -> None:
        self.pump()
        for step in transcript.steps:
            match step:
                case Say(lines):
                    assert not self.sent, f"the client sent more than the script has: {bytes(self.sent)!r}"
                    for segment in chop.cut(lines):
                        self.session.receive(segment)
                        self.pump()
                case Hear(line):
                    heard = bytes(self.sent[: len(line) + 2])
                    assert heard == line + b"\r\n"
                    del self.sent[: len(heard)]
                case Do.STARTTLS:
                    assert self.wants_tls
                    self.session.tls_started()
                    self.pump()
                case Do.DROP | Do.RESET:
                    self.session.receive(b"")
                    self.pump()
                case Do.HANG:
                    self.session.lost("no answer")
                    self.pump()


@pytest.mark.parametrize("chop", list(Chop))
@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path, chop: Chop) -> None:
    transcript = Transcript.parse(path.read_text("utf-8"))
    session = ClientSession(
        "me.example",
        tls=TlsPolicy(transcript.setting("tls", "opportunistic")),
        pipelining=Pipelining(transcript.setting("pipelining", "grouped")),
        trace=False,
    )
    player = Player(session, transactions_of(transcript))
    player.play(transcript, chop)
    check_against(transcript, player.results, player.returned, [message.token for message in player.messages])
    assert not player.sent
    assert player.end is not None
    end = transcript.setting("end", "quit")
    if end == "quit":
        assert player.end == Closed(None, None)
    else:
        assert player.end.answer is not None
        assert spoken(player.end.stage, player.end.answer).startswith(end)
    assert session.encrypted is (transcript.setting("encrypted", "no") == "yes")


def check_against(transcript: Transcript, results: list[str], returned: list[int], untaken: list[int]) -> None:
    expected = transcript.settings.get("result", ())
    assert len(results) == len(expected), results
    for got, wanted in zip(results, expected, strict=True):
        assert got.startswith(wanted) if " lost" in wanted else got == wanted
    assert returned == [int(token) for token in transcript.settings.get("returned", ())]
    assert untaken == [int(token) for token in transcript.settings.get("untaken", ())]


def test_the_transcripts_are_there() -> None:
    assert len(TRANSCRIPTS) >= 30
