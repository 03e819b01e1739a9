"""An SMTP client conversation without input or output: bytes in, events out.

Order of events. The shell feeds what the socket gives to `receive` (``b""`` = the peer closed) and then performs what
`next_event` returns until it says `NeedData` or `Closed`. After `Ready` it may `submit` one message. For each message:
`Started` (record it), `Send` with the body, `Finished` with the `Attempt`. A time-out or a broken socket is told by
`lost`. Nothing here raises for what a server says: refusals, garbage, early closing become attempts.

Uncertain. From the moment a `Send` with its first body byte is returned until its final reply, a message is at
Stage.BODY; a loss then is reported as Lost at Stage.BODY, because the server may have taken it. Only the head of the queue of
steps can be a body: its 354 proves that everything before is answered. So at most one message a connection is in doubt.

Announced behind another. With ``across`` the next message's commands travel behind a final dot. When the conversation ends
before its MAIL has an answer, the next message was never begun: it is `Returned`, not put off for what befell another.
Each such connection has brought its first message to an end, so giving back can go on for as long as there are messages
and no longer. An answer of its own (421 to its MAIL) is its attempt.

Limits: see `reply.Limits`; at most two messages are held at once (the one being said, and with ``across`` the next).
Spoken: EHLO with HELO as fallback, PIPELINING (RFC 2920), SIZE (1870), 8BITMIME (6152), SMTPUTF8 (6531), STARTTLS
(3207; what came in plain text behind its reply ends the session), enhanced status codes (2034). Not yet: CHUNKING, AUTH.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from midsource.model.outcome import Attempt, Lost, Reply, Stage
from midsource.smtp import commands
from midsource.smtp.events import (
    BEGUN,
    Capabilities,
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
    StartTls,
    TlsPolicy,
    Transaction,
)
from midsource.smtp.reply import Garbled, Limits, ReplyParser
from midsource.smtp.table import KIND, STAGE, TABLE, Action, Kind, Step

CHUNK_BYTES = 65536
"""A larger body leaves in several sends, so that its final dot is written only after the rest has left this process."""

_READY, _START_TLS = Ready(), StartTls()
_NEED = {step: NeedData(stage) for step, stage in STAGE.items()}
_NEED_NOTHING, _NEED_HANDSHAKE = NeedData(None), NeedData(Stage.TLS)
_NO_EXTENSIONS = Capabilities()


class _Slot:
    """A message on its way through the session."""

    __slots__ = ("announced", "behind", "done", "rcpt_taken", "token", "transaction")

    def __init__(self, transaction: Transaction) -> None:
        self.token = transaction.token
        self.transaction = transaction  # BEGUN once its body was handed out
        self.rcpt_taken = False
        self.announced = False  # Started was returned
        self.behind = False  # its first command went out before another message had its answer
        self.done = False  # its Finished or Returned is queued


class ClientSession:
    """One connection's conversation. Not for several threads."""

    def __init__(
        self,
        hello: str,
        limits: Limits = Limits(),  # noqa: B008 - a frozen value
        tls: TlsPolicy = TlsPolicy.OPPORTUNISTIC,
        pipelining: Pipelining = Pipelining.GROUPED,
        *,
        trace: bool = False,
    ) -> None:
        if not hello.isascii() or not hello.isprintable() or not hello or " " in hello:
            raise ValueError(f"not a name to say in EHLO: {hello!r}")
        self._hello = hello
        self._parser = ReplyParser(limits)
        self._tls = tls
        self._policy = pipelining
        self._mode = Pipelining.LOCK_STEP
        self._trace = trace
        self._events: deque[Event] = deque()
        self._awaited: deque[tuple[Step, _Slot | None]] = deque([(Step.BANNER, None)])
        self._open = self._quitting = self._shaking_hands = self._offered = self._needs_reset = False
        self._closed: Closed | None = None
        self._current: _Slot | None = None  # between MAIL and the reply to DATA
        self._next: _Slot | None = None  # submitted, nothing said about it yet
        self._armed: _Slot | None = None  # the server waits for its body
        self.capabilities = _NO_EXTENSIONS
        self.encrypted = False

    def __repr__(self) -> str:
        """Show the state: what is awaited and for which messages."""
        state = (
            "closed"
            if self._closed
            else "TLS handshake"
            if self._shaking_hands
            else "open"
            if self._open
            else "opening"
        )
        parts = [state, str(self._mode)]
        if self._awaited:
            parts.append("awaits " + " ".join(step.name for step, _ in self._awaited))
        for name, slot in (("says", self._current), ("next", self._next), ("body of", self._armed)):
            if slot is not None:
                parts.append(f"{name} {slot.token}")
        return f"<ClientSession {', '.join(parts)}>"

    # -- what the shell tells

    @property
    def wants_work(self) -> bool:
        """Whether `submit` is allowed now."""
        if not self._open or self._quitting or self._closed is not None or self._next is not None:
            return False
        return self._mode is Pipelining.ACROSS or (self._current is None and not self._awaited)

    @property
    def is_open(self) -> bool:
        """Whether the greetings are done: messages may be, or were, said."""
        return self._open

    @property
    def is_over(self) -> bool:
        """Whether the conversation has ended; what it still has to report comes out of `next_event`."""
        return self._closed is not None

    @property
    def is_leaving(self) -> bool:
        """Whether QUIT was said: `lost` then counts as its answer."""
        return bool(self._awaited) and self._awaited[0][0] is Step.QUIT

    @property
    def awaits(self) -> Stage | None:
        """The stage of the reply awaited, None when idle or closed."""
        if self._shaking_hands:
            return Stage.TLS
        return STAGE[self._awaited[0][0]] if self._awaited else None

    def submit(self, transaction: Transaction) -> None:
        """Take the next message; raises ValueError where its bytes would break the protocol or none is wanted now."""
        if not self.wants_work:
            raise ValueError(f"not ready for message {transaction.token}: {self!r}")
        transaction.check()
        self._offered = False
        slot = _Slot(transaction)
        refusal = commands.own_refusal(transaction, self.capabilities)
        if refusal is not None:
            self._finish(slot, Stage.MAIL, refusal)
        elif self._current is not None:
            self._next = slot
        else:
            self._events.append(Send(self._begin(slot)))

    def receive(self, data: bytes) -> bool:
        """Take bytes from the server; ``b""`` says that it closed the connection.

        Returns whether a whole reply was among them: only then has the time to wait for the next begun.
        """
        if self._closed is not None:
            return False
        if not data:
            self.lost("the server closed the connection")
            return False
        if self._shaking_hands:  # RFC 3207 6: what was injected before the handshake must not be obeyed after it
            self.lost("the server sent plain text where TLS begins")
            return False
        replied = False
        try:
            self._parser.feed(data)
            while self._closed is None and (reply := self._parser.next_reply()) is not None:
                replied = True
                self._take(reply)
        except Garbled as garbled:
            self.lost(f"garbled reply: {garbled}")
        return replied

    def lost(self, why: str) -> None:
        """Say that the connection is gone or given up (time-out, reset): every open message gets its attempt."""
        if self._closed is None:
            if self.is_leaving:
                self._end(None, None)  # RFC 5321 4.1.1.10: nothing depends on the answer to QUIT
            else:
                self._end(self.awaits, Lost(why))

    def tls_started(self) -> None:
        """Say that the handshake succeeded: everything learnt before is forgotten (RFC 3207 4.2)."""
        self._shaking_hands = False
        self.encrypted = True
        self.capabilities = _NO_EXTENSIONS
        self._say(Step.EHLO, f"EHLO {self._hello}\r\n")

    def tls_failed(self, why: str) -> None:
        """Say that the handshake failed: the session ends at Stage.TLS; whether to come back in plain is the caller's."""
        self.lost(why)

    def withhold(self, why: str) -> None:
        """Instead of obeying the last `Started` or `Send` with ``ends``: the message must not leave any more.

        The session ends. Before its body began the message is `Returned`; later it is Lost at Stage.DATA, since its
        final dot was never written. What would have travelled along is returned.
        """
        slot = self._armed or next((slot for step, slot in self._awaited if step is Step.BODY), None)
        if slot is None:
            raise ValueError(f"no message to withhold: {self!r}")
        if slot is not self._armed:
            self._finish(slot, Stage.DATA, Lost(why))
        for other in (slot, self._current, self._next):
            self._give_back(other)
        self._end(Stage.DATA, Lost(why))

    def quit(self) -> None:
        """Take no more messages; say QUIT as soon as the present ones have their answers."""
        self._quitting = True
        if self._closed is None and self._open and self._current is None and not self._awaited:
            self._say(Step.QUIT, "QUIT\r\n")

    def next_event(self) -> Event:
        """Return the next thing to do; after `Closed`, `Closed` again."""
        if self._events:
            return self._events.popleft()
        if self._armed is not None:
            slot = self._armed
            if not slot.announced:
                slot.announced = True
                return Started(slot.token)
            self._send_body(slot)
            return self._events.popleft()
        if self._closed is not None:
            return self._closed
        if not self._offered and self.wants_work:
            self._offered = True
            return _READY
        if self._shaking_hands:
            return _NEED_HANDSHAKE
        return _NEED[self._awaited[0][0]] if self._awaited else _NEED_NOTHING

    # -- what the server says

    def _take(self, reply: Reply) -> None:
        if not self._awaited:
            if self._trace:
                self._events.append(Replied(Stage.MAIL, reply))
            self._end(Stage.MAIL, reply if KIND[reply.code] is Kind.CLOSING else Lost(f"unasked reply: {reply}"))
            return
        step, slot = self._awaited.popleft()
        if self._trace:
            self._events.append(Replied(STAGE[step], reply))
        _PERFORM[step][KIND[reply.code]](self, step, slot, reply)
        if self._quitting and self._open:
            self.quit()

    def _greet(self, _step: Step, _slot: _Slot | None, _reply: Reply) -> None:
        self._say(Step.EHLO, f"EHLO {self._hello}\r\n")

    def _fall_back(self, _step: Step, _slot: _Slot | None, _reply: Reply) -> None:
        self._say(Step.HELO, f"HELO {self._hello}\r\n")

    def _learn(self, _step: Step, _slot: _Slot | None, reply: Reply) -> None:
        self.capabilities = Capabilities.parse(self._parser.last_lines)
        if self.capabilities.starttls and not self.encrypted and self._tls is not TlsPolicy.NEVER:
            self._say(Step.STARTTLS, "STARTTLS\r\n")
        else:
            self._open_up(Step.EHLO, None, reply)

    def _open_up(self, _step: Step, _slot: _Slot | None, _reply: Reply) -> None:
        if self._tls is TlsPolicy.REQUIRED and not self.encrypted:
            self._end(Stage.TLS, Lost("TLS is required and the server offers none"))
            return
        self._open = True
        if self.capabilities.pipelining:
            self._mode = self._policy

    def _shake_hands(self, _step: Step, _slot: _Slot | None, _reply: Reply) -> None:
        self._shaking_hands = True
        if self._parser.has_rest:
            self.lost("the server sent plain text where TLS begins")
        else:
            self._events.append(_START_TLS)

    def _stay_plain(self, step: Step, slot: _Slot | None, reply: Reply) -> None:
        if self._tls is TlsPolicy.REQUIRED:
            self._end(Stage.TLS, reply)
        else:
            self._open_up(step, slot, reply)

    def _advance(self, step: Step, slot: _Slot | None, _reply: Reply) -> None:
        assert slot is not None
        if step is Step.RCPT:
            slot.rcpt_taken = True
        if self._mode is Pipelining.LOCK_STEP:
            if step is Step.MAIL:
                self._say(Step.RCPT, commands.rcpt_line(slot.transaction), slot)
            else:
                self._say(Step.DATA, "DATA\r\n", slot)

    def _take_body(self, _step: Step, slot: _Slot | None, _reply: Reply) -> None:
        assert slot is not None
        if not slot.done:
            self._armed = slot
        elif slot.rcpt_taken:
            # MAIL refused, RCPT and DATA accepted: an empty message would reach somebody. Better no conversation.
            self._end(Stage.DATA, Lost("the server wants the body of a message whose sender it refused"))
        else:
            self._current = None
            self._say(Step.LONE_DOT, ".\r\n")
            self._begin_next()

    def _accepted(self, _step: Step, slot: _Slot | None, reply: Reply) -> None:
        assert slot is not None
        self._finish(slot, Stage.BODY, reply)

    def _refused(self, step: Step, slot: _Slot | None, reply: Reply) -> None:
        assert slot is not None
        self._finish(slot, STAGE[step], reply)
        if step is Step.BODY:
            return
        self._needs_reset = True
        if step is Step.DATA or self._mode is Pipelining.LOCK_STEP:
            self._current = None
            self._begin_next()

    def _done(self, step: Step, _slot: _Slot | None, _reply: Reply) -> None:
        if step is Step.RSET and self._mode is Pipelining.LOCK_STEP and self._current is not None:
            self._say(Step.MAIL, commands.mail_line(self._current.transaction, self.capabilities), self._current)

    def _gone(self, _step: Step, _slot: _Slot | None, _reply: Reply) -> None:
        self._end(None, None)

    def _confused(self, step: Step, slot: _Slot | None, reply: Reply) -> None:
        # Not even a 2xx counts here: after DATA it would make a message look sent that never left.
        why = Lost(f"unexpected reply at {STAGE[step]}: {reply}")
        if slot is not None:
            self._finish(slot, STAGE[step], why)
        self._end(STAGE[step], why)

    def _end_by_reply(self, step: Step, slot: _Slot | None, reply: Reply) -> None:
        if slot is not None:
            self._finish(slot, STAGE[step], reply)
        self._end(STAGE[step], reply)

    # -- what we say

    def _say(self, step: Step, line: str, slot: _Slot | None = None) -> None:
        self._awaited.append((step, slot))
        self._events.append(Send(line.encode()))

    def _begin_next(self) -> None:
        if self._next is not None:
            slot, self._next = self._next, None
            self._events.append(Send(self._begin(slot)))

    def _begin(self, slot: _Slot) -> bytes:
        """Make the message the current one and return its first bytes."""
        self._current = slot
        slot.behind = bool(self._awaited) and self._awaited[0][0] is Step.BODY
        reset, self._needs_reset = self._needs_reset, False
        if reset:
            self._awaited.append((Step.RSET, None))
            if self._mode is Pipelining.LOCK_STEP:
                return b"RSET\r\n"
        self._awaited.append((Step.MAIL, slot))
        if self._mode is Pipelining.LOCK_STEP:
            return commands.mail_line(slot.transaction, self.capabilities).encode()
        self._awaited += (Step.RCPT, slot), (Step.DATA, slot)
        lines = commands.group(slot.transaction, self.capabilities)
        return ("RSET\r\n" + lines if reset else lines).encode()

    def _send_body(self, slot: _Slot) -> None:
        self._armed = self._current = None
        transaction, slot.transaction = slot.transaction, BEGUN
        body = transaction.body if transaction.prestuffed else commands.stuff(transaction.body)
        self._awaited.append((Step.BODY, slot))
        last = b".\r\n"
        if self._next is not None:
            following, self._next = self._next, None
            last += self._begin(following)
        if len(body) > CHUNK_BYTES:
            starts = range(0, len(body), CHUNK_BYTES)
            self._events.extend(Send(body[start : start + CHUNK_BYTES]) for start in starts)
            self._events.append(Send(last, transaction.token))
        else:
            self._events.append(Send(body + last, transaction.token))

    # -- how messages and sessions end

    def _finish(self, slot: _Slot, stage: Stage, answer: Reply | Lost) -> None:
        if not slot.done:
            slot.done = True
            self._events.append(Finished(slot.token, Attempt(stage, answer)))

    def _give_back(self, slot: _Slot | None) -> None:
        if slot is not None and not slot.done:
            slot.done = True
            self._events.append(Returned(slot.transaction))

    def _end(self, stage: Stage | None, answer: Reply | Lost | None) -> None:
        """Close: what was begun gets its attempt at the step it had reached, the rest is given back."""
        if self._closed is not None:
            return
        self._events = deque(event for event in self._events if not isinstance(event, Send | StartTls))
        reason = answer if answer is not None else Lost("the session is over")
        for step, slot in self._awaited:
            if slot is not None and slot.behind and step is Step.MAIL:
                self._give_back(slot)
            elif slot is not None:
                self._finish(slot, STAGE[step], reason)
        if self._armed is not None:  # no byte of its body was handed out
            self._finish(self._armed, Stage.DATA, reason)
        self._give_back(self._next)
        self._give_back(self._current)  # lock-step, waiting for RSET
        self._awaited.clear()
        self._armed = self._current = self._next = None
        self._shaking_hands = False
        self._closed = Closed(stage, answer)


_Performer: TypeAlias = Callable[[ClientSession, Step, _Slot | None, Reply], None]
_PERFORMERS: Mapping[Action, _Performer] = MappingProxyType(
    {
        Action.GREET: ClientSession._greet,
        Action.LEARN: ClientSession._learn,
        Action.FALL_BACK: ClientSession._fall_back,
        Action.OPEN: ClientSession._open_up,
        Action.SHAKE_HANDS: ClientSession._shake_hands,
        Action.STAY_PLAIN: ClientSession._stay_plain,
        Action.ADVANCE: ClientSession._advance,
        Action.TAKE_BODY: ClientSession._take_body,
        Action.ACCEPTED: ClientSession._accepted,
        Action.REFUSED: ClientSession._refused,
        Action.DONE: ClientSession._done,
        Action.GONE: ClientSession._gone,
        Action.CONFUSED: ClientSession._confused,
        Action.END: ClientSession._end_by_reply,
    }
)
_PERFORM: Mapping[Step, Mapping[Kind, _Performer]] = {
    step: {kind: _PERFORMERS[action] for kind, action in row.items()} for step, row in TABLE.items()
}
