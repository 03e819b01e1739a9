"""One SMTP connection from dialling to QUIT: performs what `smtp.session` decides.

Order of events for each message: taken from the source; `Recorder.may_send_body`; `Recorder.started`, which calls back
when the start is noted (notes of many connections are one write); body; `Recorder.finished` with the attempt.
`may_send_body` is asked again right before the bytes with the final dot are written, since a process may be stopped for
minutes at any moment; a body above 64 kB has left this process by then but for its dot.

Whatever happens, every message taken ends in exactly one of: `finished`, or a place in ``ConnectionEnd.returned``
(nothing about it was ever written). An exception of the recorder ends the connection and is raised, and the message it
was about has not been written. Cancelling closes the socket and reports what was open, a body under way as Lost at Stage.BODY.

Everything runs inside the protocol's callbacks, without a task or a stream buffer per connection: at full speed a
message costs two turns of the loop. Bounds: `Timeouts`, and one write buffer of one chunk. A time-out begins when what is
awaited begins: with a whole reply, with what we say, with a chunk that has left; bytes of a reply that is not whole yet buy no time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, assert_never, cast

from midsource.model.outcome import Attempt, Lost, Reply, Stage
from midsource.net.dialer import Dialer, Endpoint
from midsource.net.source import Source
from midsource.net.timeouts import RFC_TIMEOUTS, Timeouts
from midsource.smtp.events import (
    Closed,
    Event,
    Finished,
    NeedData,
    Ready,
    Replied,
    Returned,
    Send,
    Started,
    StartTls,
    Transaction,
)
from midsource.smtp.session import ClientSession

WITHHELD = "withheld: our lease on the message ends"
MESSAGES_PER_CONNECTION = 1000
"""Providers cut between 20 and 1000 (MX rules say where); more gains nothing over a new connection."""
PAUSE_LOOK_SECONDS = 1.0
"""While writing is paused, how often the buffer is looked at: a transport that forgets to resume costs this, not a time-out."""


class Recorder(Protocol):
    """Who is told, synchronously, what becomes of each message."""

    def may_send_body(self, token: int) -> bool:
        """Whether the message may still leave (its lease lasts long enough)."""

    def started(self, token: int, go: Callable[[BaseException | None], None]) -> None:
        """Note that the body goes out, then call ``go``: with None where it may, with the error where it must not."""

    def finished(self, token: int, attempt: Attempt) -> None:
        """Note what the attempt came to."""


@dataclass(frozen=True, slots=True)
class ConnectionEnd:
    """How a connection ended. ``answer`` None: we said QUIT. Else why, and the stage (None: while idle)."""

    stage: Stage | None
    answer: Reply | Lost | None
    finished: int = 0
    returned: tuple[Transaction, ...] = ()
    encrypted: bool = False

    @property
    def never_opened(self) -> bool:
        """Whether no message could be tried: the answer is then the path's, not a message's."""
        return self.answer is not None and self.stage in _OPENING


_OPENING = (Stage.RESOLVE, Stage.CONNECT, Stage.BANNER, Stage.EHLO, Stage.TLS)


async def run_connection(
    dialer: Dialer,
    endpoint: Endpoint,
    session: ClientSession,
    source: Source,
    recorder: Recorder,
    timeouts: Timeouts = RFC_TIMEOUTS,
    *,
    source_ip: str | None = None,
    messages_per_connection: int = MESSAGES_PER_CONNECTION,
) -> ConnectionEnd:
    """Connect, send what the source has until it ends or the connection does, and return how that was."""
    link = _Link(session, source, recorder, timeouts, messages_per_connection)
    try:
        try:
            await dialer.connect(endpoint, link, timeouts.connect_seconds, source_ip)
        except OSError as error:
            return ConnectionEnd(Stage.CONNECT, Lost(f"no connection to {endpoint}: {_clause(error)}"))
        while (end := await link.turn()) is None:
            await link.upgrade(dialer, endpoint.host)
    finally:
        link.abandon("we stopped")
    return end


class _Link(asyncio.Protocol):
    """The session's hands and ears."""

    def __init__(
        self, session: ClientSession, source: Source, recorder: Recorder, timeouts: Timeouts, messages: int
    ) -> None:
        self._session = session
        self._source = source
        self._recorder = recorder
        self._timeouts = timeouts
        self._messages_left = messages
        self._loop = asyncio.get_running_loop()
        self._turn: asyncio.Future[ConnectionEnd | None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._over = self._paused = self._pumping = False
        self._asked_for_more = self._more_there = False
        self._deadline = self._timer_at = 0.0
        self._stepped = False  # the conversation went on since the deadline was set
        self._timer: asyncio.TimerHandle | None = None
        self._age: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._noting = False
        self._finished = 0
        self._returned: list[Transaction] = []

    # -- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._take_transport(cast("asyncio.Transport", transport))
        self._age = self._loop.call_later(self._timeouts.opening_seconds, self._come_of_age)
        self._stepped = True
        self.pump()

    def data_received(self, data: bytes) -> None:
        if self._session.receive(data):
            self._stepped = True
        self.pump()

    def eof_received(self) -> bool:
        self._session.receive(b"")
        self.pump()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._session.lost(_clause(exc) if exc else "the connection closed")
        self.pump()

    def pause_writing(self) -> None:
        self._paused = True
        if self._look is None:
            self._look = self._loop.call_later(PAUSE_LOOK_SECONDS, self._look_at_buffer)

    def resume_writing(self) -> None:
        self._paused = False
        self._stepped = True  # all that was handed over has left
        self.pump()

    # -- what run_connection calls

    async def turn(self) -> ConnectionEnd | None:
        """Wait for the end, or None: the handshake is due."""
        return await self._turn

    async def upgrade(self, dialer: Dialer, host: str) -> None:
        """Do the TLS handshake the session asked for."""
        if self._over:
            return
        assert self._transport is not None
        self._turn = self._loop.create_future()
        try:
            encrypted = await dialer.start_tls(self._transport, self, host, self._timeouts.tls_seconds)
        except OSError as error:
            self._session.tls_failed(f"TLS handshake failed: {_clause(error)}")
        else:
            self._take_transport(encrypted)
            self._session.tls_started()
        self.pump()

    def abandon(self, why: str) -> None:
        """Close whatever is open and report it; nothing to do after a regular end."""
        for timer in (self._timer, self._look, self._age):
            if timer is not None:
                timer.cancel()
        if not self._over:
            self._session.lost(why)
            self.pump()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.abort()

    # -- performing events

    def _take_transport(self, transport: asyncio.Transport) -> None:
        # With no buffer allowed, "paused" says that bytes wait in this process: the final dot then waits too. TLS
        # transports pause at *or* above the limit, zero would pause an empty buffer and nothing would resume it.
        transport.set_write_buffer_limits(high=0 if transport.get_extra_info("sslcontext") is None else 1, low=0)
        self._transport = transport

    def pump(self) -> None:
        """Perform events until the session needs bytes, or ours have to leave, or be noted, first."""
        if self._pumping or self._over:
            return
        self._pumping = True
        session = self._session
        try:
            if self._more_there:
                self._more_there = False
                self._feed()
            while not self._over and (not (self._paused or self._noting) or session.is_over):
                if not self._perform(session.next_event()):
                    break
        except BaseException as error:  # noqa: BLE001 - whatever the recorder raised belongs to whoever runs the connection
            self._fail(error)
        finally:
            self._pumping = False
        if self._stepped and not self._over and not self._noting:
            self._stepped = False
            self._arm()

    def _go(self, error: BaseException | None) -> None:
        self._noting = False
        self._stepped = True  # no timer ran while the start was noted
        if error is not None and not self._over:
            self._fail(error)
        self.pump()

    def _perform(self, event: Event) -> bool:
        """Do one event; False when the rest has to wait."""
        match event:
            case Send():
                self._write(event)
            case NeedData():
                return False
            case Ready():
                self._feed()
            case StartTls():
                if not self._turn.done():
                    self._turn.set_result(None)
                return False
            case Closed(stage, answer):
                self._close(stage, answer)
            case _:
                self._report(event)
        return True

    def _report(self, event: Started | Finished | Returned | Replied) -> None:
        match event:
            case Started(token):
                if self._recorder.may_send_body(token):
                    self._noting = True
                    self._recorder.started(token, self._go)
                else:
                    self._session.withhold(WITHHELD)
            case Finished(token, attempt):
                self._finished += 1
                self._recorder.finished(token, attempt)
            case Returned(transaction):
                self._returned.append(transaction)
            case Replied():
                pass
            case _:
                assert_never(event)

    def _write(self, send: Send) -> None:
        assert self._transport is not None
        if send.ends is not None and not self._recorder.may_send_body(send.ends):
            self._session.withhold(WITHHELD)
        else:
            self._stepped = True
            self._transport.write(send.data)

    def _feed(self) -> None:
        """Give the session what it wants, as far as there is anything."""
        while self._session.wants_work:
            if self._messages_left <= 0 or self._source.ended:
                self._session.quit()
                return
            transaction = self._source.take()
            if transaction is None:
                if not self._asked_for_more:
                    self._asked_for_more = True
                    self._source.when_more(self._more)
                return
            self._messages_left -= 1
            try:
                self._session.submit(transaction)
            except ValueError as error:  # its bytes would break the protocol: ours to mend, and no other's fault
                self._finished += 1
                self._recorder.finished(transaction.token, Attempt(Stage.RENDER, Lost(str(error))))

    def _more(self) -> None:
        self._asked_for_more = False
        self._more_there = True
        self.pump()

    def _close(self, stage: Stage | None, answer: Reply | Lost | None) -> None:
        self._over = True
        if self._transport is not None:
            if isinstance(answer, Lost) or self._transport.get_write_buffer_size():
                # A buffered final dot must not leave after its loss was reported; and a peer that reads nothing would
                # keep a socket open that still has something to say.
                self._transport.abort()
            else:
                self._transport.close()
        end = ConnectionEnd(stage, answer, self._finished, tuple(self._returned), self._session.encrypted)
        if self._turn.done():
            self._turn = self._loop.create_future()
        self._turn.set_result(end)

    def _fail(self, error: BaseException) -> None:
        self._over = True
        if self._transport is not None:
            self._transport.abort()
        if self._turn.done():
            self._turn = self._loop.create_future()
        self._turn.set_exception(error)

    # -- time

    def _look_at_buffer(self) -> None:
        self._look = None
        if self._over or not self._paused or self._transport is None:
            return
        if self._transport.get_write_buffer_size() == 0:
            self.resume_writing()
        else:
            self._look = self._loop.call_later(PAUSE_LOOK_SECONDS, self._look_at_buffer)

    def _come_of_age(self) -> None:
        """Leave a connection that is not open yet; give one that is no more messages, and those it has the rest of its life."""
        self._age = None
        if self._over:
            return
        if not self._session.is_open:
            self._session.lost(f"not ready for mail within {self._timeouts.opening_seconds:g} s")
            self.pump()
            return
        self._messages_left = 0
        left = self._timeouts.life_seconds - self._timeouts.opening_seconds
        self._age = self._loop.call_later(max(0.0, left), self._grow_old)

    def _grow_old(self) -> None:
        self._age = None
        if not self._over:
            self._session.lost(f"the connection was {self._timeouts.life_seconds:g} s old")
            self.pump()

    def _arm(self) -> None:
        stage = self._session.awaits
        seconds = self._timeouts.quit_seconds if self._session.is_leaving else self._timeouts.of(stage)
        self._deadline = self._loop.time() + seconds
        # Moving a timer costs more than a message: it is left to ring early, and then looks at the deadline.
        if self._timer is None or self._timer_at > self._deadline:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._deadline
        self._timer = self._loop.call_at(self._deadline, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._over or self._noting:  # what is being noted is ours to do, and sets the timer when it goes on
            return
        if self._loop.time() < self._deadline - 0.001:  # the clock of timers is coarser than the one we read
            self._set_timer()
            return
        stage = self._session.awaits
        if stage is None:
            self._session.quit()
        else:
            self._session.lost(f"no answer within {self._timeouts.of(stage):g} s")
        self.pump()


def _clause(error: BaseException) -> str:
    """Return what happened, in the system's words without its number."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
