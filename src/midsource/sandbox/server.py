"""The sink on a real socket: one ``SinkSession`` per connection, performed by an asyncio protocol.

Order of events for what one read brought: the session's events are performed in turn; messages and replies pile up;
then the messages are kept with two writes, however many they are, and only then the replies leave together. A slow
provider's ``Wait`` first sends what is due, then stops reading until the time is over.

Limits: ``MAX_CONNECTIONS`` at a time, ``IDLE_SECONDS`` without a byte, ``LINGER_SECONDS`` for a peer to read our last
words. A peer that does not read its replies is not read either.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import cast

import structlog

from midsource.sandbox.events import Close, Send, StartTls, Take, Wait
from midsource.sandbox.inbox import Inbox
from midsource.sandbox.judge import Judge
from midsource.sandbox.session import SinkSession

MAX_CONNECTIONS = 1_000
"""Above the 500 connections one ``mta`` process is measured with, below the usual limit of 1 024 open files."""
IDLE_SECONDS = 300
"""RFC 5321 4.5.3.2.7: a server waits at least 5 minutes for the next command."""
LINGER_SECONDS = 2.0
SWEEP_SECONDS = 10.0
TLS_SECONDS = 10.0
"""Handshake on loopback takes milliseconds."""

_log = structlog.get_logger("midsource.sandbox")


class Sink:
    """The listener's state: who is connected, where messages go."""

    def __init__(
        self, name: str, inbox: Inbox, judge: Judge, tasks: asyncio.TaskGroup, tls: ssl.SSLContext | None
    ) -> None:
        self.name = name
        self.inbox = inbox
        self.judge = judge
        self.tasks = tasks
        self.tls = tls
        self.connections: set[Connection] = set()

    async def listen(self, listener: socket.socket) -> asyncio.Server:
        """Begin to serve whoever connects."""
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: Connection(self, loop), sock=listener, backlog=MAX_CONNECTIONS)

    async def sweep(self) -> None:
        """Hang up on idle connections, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for connection in list(self.connections):
                if loop.time() - connection.last_heard > IDLE_SECONDS:
                    connection.hang_up(b"421 4.4.2 idle for too long\r\n")

    def hang_up_all(self) -> None:
        """Say good-bye to everybody: the sink stops."""
        for connection in list(self.connections):
            connection.hang_up(b"421 4.3.2 the sandbox is stopping\r\n")


class Connection(asyncio.Protocol):
    """Performs what the session decides."""

    def __init__(self, sink: Sink, loop: asyncio.AbstractEventLoop) -> None:
        self._sink = sink
        self._loop = loop
        self._session = SinkSession(sink.judge, sink.name, offers_tls=sink.tls is not None)
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.TimerHandle | None = None
        self._is_full = False
        self._is_upgrading = False
        self._is_closing = False
        self.last_heard = loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or turn away whoever is one too many."""
        transport = cast("asyncio.Transport", transport)  # uvloop's transports have its methods, not its class
        self._transport = transport
        self._sink.connections.add(self)
        if len(self._sink.connections) > MAX_CONNECTIONS:
            self.hang_up(b"421 4.3.2 too many connections\r\n")
        else:
            transport.write(self._session.greeting())

    def data_received(self, data: bytes) -> None:
        """Hand the bytes to the session and perform what follows."""
        self.last_heard = self._loop.time()
        if not self._is_closing:
            self._session.receive(data)
            self._perform()

    def eof_received(self) -> bool:
        """Close: a peer that has finished talking gets no more answers."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget the connection."""
        self._is_closing = True
        if self._waiting:
            self._waiting.cancel()
        self._sink.connections.discard(self)
        self._sink.judge.release(self._session.visitor)

    def pause_writing(self) -> None:
        """Stop reading from a peer that does not read."""
        self._is_full = True
        self._pause()

    def resume_writing(self) -> None:
        """Go on."""
        self._is_full = False
        self._perform()

    def hang_up(self, last_words: bytes = b"") -> None:
        """Close so that the last words can still be read: a close with unread input would reset them away."""
        if self._is_closing or self._transport is None:
            return
        self._is_closing = True
        self._transport.write(last_words)
        with suppress(RuntimeError):  # a listener's transport resumed twice says so
            self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self._loop.call_later(LINGER_SECONDS, self._transport.abort)
        else:
            self._transport.close()

    def _pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def _perform(self) -> None:
        """Perform the session's events until it needs more bytes, or must wait."""
        if self._waiting or self._is_full or self._is_upgrading or self._is_closing or self._transport is None:
            return
        out: list[bytes | Take] = []
        last: Wait | StartTls | Close | None = None
        while (event := self._session.next_event()) is not None:
            if isinstance(event, Send):
                out.append(event.data)
            elif isinstance(event, Take):
                out.append(event)
            else:
                last = event
                break
        if isinstance(last, StartTls):
            self._pause()  # before the 220 leaves: the client's first TLS bytes belong to the upgraded transport
        if out:
            self._transport.write(self._kept(out))
        self._turn(self._transport, last)

    def _turn(self, transport: asyncio.Transport, last: Wait | StartTls | Close | None) -> None:
        match last:
            case Wait(seconds):
                self._pause()
                self._waiting = self._loop.call_later(seconds, self._waited)
            case StartTls():
                self._is_upgrading = True
                self._sink.tasks.create_task(self._upgrade())
            case Close(lingers=True):
                self.hang_up()
            case Close():
                self._is_closing = True
                transport.close()
            case None:
                if not self._is_full and not transport.is_reading():
                    transport.resume_reading()

    def _waited(self) -> None:
        self._waiting = None
        self._perform()

    def _kept(self, out: list[bytes | Take]) -> bytes:
        """Keep the messages among ``out`` and return the replies in their order."""
        takes = [one for one in out if isinstance(one, Take)]
        numbers: list[int] = []
        if takes:
            try:
                numbers = self._sink.inbox.keep([one.arrival for one in takes])
            except OSError as problem:
                self._sink.judge.refused["storage"] += len(takes)
                _log.error("sandbox.keep_failed", action="keep", messages=len(takes), error=str(problem))
        left = iter(numbers)
        replies = []
        for one in out:
            if isinstance(one, bytes):
                replies.append(one)
            elif not numbers:
                replies.append(b"452 4.3.1 the sandbox cannot store: is the disk full?\r\n")
            else:
                number = next(left)
                replies.append(b"250 2.0.0 kept as %d\r\n" % number if one.arrival.answered else b"")
        return b"".join(replies)

    async def _upgrade(self) -> None:
        assert self._transport is not None
        assert self._sink.tls is not None
        try:
            encrypted = await self._loop.start_tls(
                self._transport, self, self._sink.tls, server_side=True, ssl_handshake_timeout=TLS_SECONDS
            )
        except Exception as problem:  # noqa: BLE001 - loops raise many kinds here, and none may end the other connections
            _log.info("sandbox.tls_failed", action="starttls", error=str(problem))
            self._is_closing = True
            self._transport.abort()
            return
        if encrypted is None:  # the peer left during the handshake
            return
        self._transport = encrypted
        self._session.tls_started()
        self._is_upgrading = False
        self._perform()
