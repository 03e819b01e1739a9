"""The server's side of one SMTP conversation, without a socket (RFC 5321, 2920, 3207, 6531).

Order of events: the shell sends ``greeting``, hands every byte that arrives to ``receive`` and performs what
``next_event`` returns, in that order, until it returns None:

    Send(bytes)     write
    Wait(seconds)   a slow provider: perform nothing more for so long
    Take(arrival)   a whole message: keep it, then answer (``answered`` false: keep it, answer nothing; Close follows)
    StartTls()      upgrade, then call ``tls_started``
    Close()         hang up

A bare CR or LF ends the conversation (see ``framing``: what follows it may be smuggled). Limits: those of ``framing``,
``MAX_RECIPIENTS`` a message, ``MAX_MISTAKES`` a conversation. CHUNKING is not offered.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

from midsource.sandbox.arrival import Arrival, Recipient, read_facts
from midsource.sandbox.events import Close, Event, Send, StartTls, Take, Wait
from midsource.sandbox.framing import MAX_MESSAGE_BYTES, Fault, Framer
from midsource.sandbox.judge import Judge, Visitor

MAX_RECIPIENTS = 100
"""The minimum RFC 5321 4.5.3.1.8 asks a server to take."""
MAX_MISTAKES = 20
"""Wrong commands before we hang up: a client that is lost must not spin."""

_PATH = re.compile(rb"(?:FROM|TO):[ ]?<([^<>\s\x00-\x1f\x7f]*)>(?:[ ]+(.*))?", re.IGNORECASE)


class SinkSession:
    """One conversation. Never blocks, knows no clock and no socket."""

    def __init__(self, judge: Judge, hello: str, *, offers_tls: bool) -> None:
        self._judge = judge
        self._hello = hello.encode("ascii")
        self._offers_tls = offers_tls
        self._framer = Framer()
        self._events: deque[Event] = deque()
        self._reads = self._read_command
        self._greeted = False
        self._mistakes = 0
        self._is_closed = False
        self.visitor = Visitor()
        self._forget_message()

    def __repr__(self) -> str:
        """Show where the conversation stands."""
        state = "closed" if self._is_closed else self._reads.__name__.removeprefix("_read_")
        return f"<SinkSession {state} waiting={len(self._framer)} recipients={len(self._recipients)}>"

    def greeting(self) -> bytes:
        """Return the banner."""
        return b"220 %s ESMTP midsource sandbox\r\n" % self._hello

    def receive(self, data: bytes) -> None:
        """Take what arrived. After ``Close`` it is thrown away."""
        if not self._is_closed:
            self._framer.receive(data)

    def next_event(self) -> Event | None:
        """Return the next thing to do, or None when more bytes are needed."""
        while not self._events:
            if self._is_closed or not self._reads():
                return None
        return self._events.popleft()

    def tls_started(self) -> None:
        """Begin anew inside the encrypted connection (RFC 3207 4.2).

        What was received since ``StartTls`` stays: a client's first command may come with the end of its handshake.
        """
        self._greeted = False
        self.visitor.encrypted = True
        self._forget_message()
        self._reads = self._read_command

    def _forget_message(self) -> None:
        self._sender: str | None = None
        self._is_utf8 = False
        self._recipients: list[Recipient] = []
        self._wait_seconds = 0.0

    def _reply(self, text: bytes) -> None:
        self._events.append(Send(text + b"\r\n"))

    def _mistake(self, text: bytes) -> None:
        self._mistakes += 1
        if self._mistakes > MAX_MISTAKES:
            self._hang_up(b"421 4.7.0 too many errors")
        else:
            self._reply(text)

    def _hang_up(self, text: bytes) -> None:
        self._reply(text)
        self._end(Close())

    def _end(self, close: Close) -> None:
        self._events.append(close)
        self._is_closed = True
        self._framer.forget()

    # -- commands

    def _read_command(self) -> bool:
        line = self._framer.next_line()
        if line is None:
            return False
        if isinstance(line, Fault):
            self._refuse_framing(line)
            return True
        verb, _, rest = line.partition(b" ")
        verb = verb.upper()
        if verb in _COMMANDS:
            _COMMANDS[verb](self, rest)
        elif verb in _ANSWERS:
            self._reply(_ANSWERS[verb])
        else:
            self._mistake(b"500 5.5.2 command not recognised")
        return True

    def _refuse_framing(self, fault: Fault) -> None:
        self._judge.refused[fault.name.lower()] += 1
        match fault:
            case Fault.BARE_LINE_END:
                self._hang_up(b"521 5.5.2 bare <CR> or <LF> received")
            case Fault.TOO_LONG if self._reads == self._read_message:
                self._reply(b"552 5.3.4 message too big")
            case Fault.TOO_LONG:
                self._hang_up(b"500 5.5.2 line too long")

    def _ehlo(self, rest: bytes) -> None:
        offers = [self._hello, b"PIPELINING", b"SIZE %d" % MAX_MESSAGE_BYTES, b"8BITMIME", b"SMTPUTF8"]
        if self._offers_tls and not self.visitor.encrypted:
            offers.append(b"STARTTLS")
        self._greet(rest, b"\r\n".join([b"250-" + offer for offer in offers] + [b"250 ENHANCEDSTATUSCODES"]))

    def _helo(self, rest: bytes) -> None:
        self._greet(rest, b"250 " + self._hello)

    def _greet(self, rest: bytes, reply: bytes) -> None:
        if not rest.strip():
            self._mistake(b"501 5.5.4 a name is needed")
            return
        self._greeted = True
        self._forget_message()
        self._reply(reply)

    def _mail(self, rest: bytes) -> None:
        found = _PATH.fullmatch(rest)
        self._is_utf8 = self._is_utf8 and self._sender is not None
        if not self._greeted or self._sender is not None:
            self._mistake(b"503 5.5.1 EHLO first" if not self._greeted else b"503 5.5.1 nested MAIL")
        elif not found or rest[:5].upper() != b"FROM:":
            self._mistake(b"501 5.5.4 syntax: MAIL FROM:<address>")
        elif refusal := self._refused_parameter(found[2] or b""):
            self._mistake(refusal)
        elif (sender := self._decoded(found[1])) is None:
            self._mistake(b"553 5.6.7 address needs SMTPUTF8")
        else:
            self._sender = sender
            self._reply(b"250 2.1.0 sender ok")

    def _refused_parameter(self, text: bytes) -> bytes:
        for parameter in text.upper().split():
            name, _, value = parameter.partition(b"=")
            if name == b"SIZE" and value.isdigit() and len(value) <= 20:
                if int(value) > MAX_MESSAGE_BYTES:
                    self._judge.refused["too_long"] += 1
                    return b"552 5.3.4 message too big"
            elif parameter == b"SMTPUTF8":
                self._is_utf8 = True
            elif parameter not in (b"BODY=7BIT", b"BODY=8BITMIME"):
                return b"555 5.5.4 parameter not recognised"
        return b""

    def _decoded(self, path: bytes) -> str | None:
        """Return the address as text, or None where it holds what this message was not announced to hold."""
        try:
            return path.decode("utf-8" if self._is_utf8 else "ascii")
        except UnicodeDecodeError:
            return None

    def _rcpt(self, rest: bytes) -> None:
        found = _PATH.fullmatch(rest)
        if self._sender is None:
            self._mistake(b"503 5.5.1 MAIL first")
            return
        if not found or found[2] or rest[:3].upper() != b"TO:":
            self._mistake(b"501 5.5.4 syntax: RCPT TO:<address>")
            return
        if len(self._recipients) >= MAX_RECIPIENTS:
            self._mistake(b"452 4.5.3 too many recipients")
            return
        rcpt = self._decoded(found[1])
        local, _, domain = (rcpt or "").rpartition("@")
        if rcpt is None or not local or not domain:
            self._mistake(b"553 5.6.7 address needs SMTPUTF8" if rcpt is None else b"553 5.1.3 bad address")
            return
        self._answer_recipient(rcpt, domain.lower())

    def _answer_recipient(self, rcpt: str, domain: str) -> None:
        verdict = self._judge.recipient(self.visitor, self._sender or "", rcpt, domain)
        if verdict.wait_seconds:
            self._events.append(Wait(verdict.wait_seconds))
        self._events.append(Send(verdict.reply))
        if verdict.accepted:
            self._recipients.append(Recipient(rcpt, domain, verdict.personality))
            self._wait_seconds = max(self._wait_seconds, verdict.wait_seconds)
        elif verdict.closes:
            self._end(Close())

    def _data(self, rest: bytes) -> None:
        if rest:
            self._mistake(b"501 5.5.4 syntax: DATA")
        elif not self._recipients:
            if self._sender is None:
                self._mistake(b"503 5.5.1 MAIL first")
            else:
                # Not the client's mistake: in a pipelined group DATA follows recipients that we refused (RFC 2920 3.1).
                self._reply(b"503 5.5.1 no valid recipients")
        else:
            self._wait_for_provider()
            self._reply(b"354 go ahead, end with <CRLF>.<CRLF>")
            self._reads = self._read_message

    def _wait_for_provider(self) -> None:
        if self._wait_seconds:
            self._events.append(Wait(self._wait_seconds))

    def _starttls(self, rest: bytes) -> None:
        if rest or not self._offers_tls or self.visitor.encrypted:
            self._mistake(b"503 5.5.1 STARTTLS is not available")
        elif self._framer:
            # Bytes that travelled in the clear behind STARTTLS must never count as encrypted (CVE-2011-0411).
            self._hang_up(b"503 5.5.1 nothing may follow STARTTLS")
        else:
            self._reply(b"220 2.0.0 ready to start TLS")
            self._events.append(StartTls())
            self._reads = self._read_nothing

    def _read_nothing(self) -> bool:
        return False

    def _rset(self, _rest: bytes) -> None:
        self._forget_message()
        self._reply(b"250 2.0.0 ok")

    def _quit(self, _rest: bytes) -> None:
        self._hang_up(b"221 2.0.0 bye")

    # -- message

    def _read_message(self) -> bool:
        body = self._framer.next_message()
        if body is None:
            return False
        self._wait_for_provider()
        if isinstance(body, Fault):
            self._refuse_framing(body)
        else:
            self._take(body)
        self._forget_message()
        self._reads = self._read_command
        return True

    def _take(self, body: bytes) -> None:
        facts = read_facts(body)
        for one in self._recipients:
            self._judge.message_taken(self.visitor, one.personality)
        answered = not any(
            self._judge.drops(one.personality, facts.message_id, one.address) for one in self._recipients
        )
        self._events.append(
            Take(Arrival(self._sender or "", tuple(self._recipients), body, facts, self.visitor.encrypted, answered))
        )
        if not answered:
            self._end(Close(lingers=False))


_COMMANDS: dict[bytes, Callable[[SinkSession, bytes], None]] = {
    b"EHLO": SinkSession._ehlo,
    b"HELO": SinkSession._helo,
    b"MAIL": SinkSession._mail,
    b"RCPT": SinkSession._rcpt,
    b"DATA": SinkSession._data,
    b"STARTTLS": SinkSession._starttls,
    b"RSET": SinkSession._rset,
    b"QUIT": SinkSession._quit,
}

_ANSWERS = {
    b"NOOP": b"250 2.0.0 ok",
    b"VRFY": b"252 2.5.2 send a message and see",
    b"HELP": b"214 2.0.0 every message is kept, none is forwarded",
}
