"""A mail server that follows a script, on a real socket; and the transcript files the scripts come from.

A transcript is text. Above the line ``---`` stand settings and expectations, ``name: value``; below it the conversation:

    S: 250 ok             the server sends this line (``S!`` sends it without line end)
    C: MAIL FROM:<a@b>    the server reads a line and it must be this
    starttls              the handshake happens here
    drop                  the server closes the connection
    reset                 the server closes it abruptly
    hang                  the server says nothing more and ignores what comes, until the client goes

Lines beginning with ``#`` are comments. Consecutive S lines may be delivered in any segmentation: `Chop` names three.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from midsource.smtp.events import Transaction


class Chop(StrEnum):
    """How the server's lines are cut into segments."""

    TOGETHER = "together"  # all lines between two of the client's in one segment
    LINES = "lines"
    BYTES = "bytes"

    def cut(self, lines: Sequence[bytes]) -> Iterator[bytes]:
        """Yield the segments."""
        match self:
            case Chop.TOGETHER:
                yield b"".join(lines)
            case Chop.LINES:
                yield from lines
            case Chop.BYTES:
                yield from (bytes([byte]) for byte in b"".join(lines))


class Do(StrEnum):
    """The steps that are neither a line sent nor a line read."""

    STARTTLS = "starttls"
    DROP = "drop"
    RESET = "reset"
    HANG = "hang"


@dataclass(frozen=True, slots=True)
class Say:
    """Lines the server sends."""

    lines: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Hear:
    """A line the client must send."""

    line: bytes


@dataclass(frozen=True, slots=True)
class Transcript:
    """A parsed transcript file."""

    settings: dict[str, tuple[str, ...]]
    steps: tuple[Say | Hear | Do, ...]

    @classmethod
    def parse(cls, text: str) -> Transcript:
        """Return the transcript; raises ValueError for a line that is none of the above."""
        head, _, script = text.partition("\n---\n")
        settings: dict[str, tuple[str, ...]] = {}
        for line in head.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.partition(":")
                settings[name] = (*settings.get(name, ()), value.strip())
        steps: list[Say | Hear | Do] = []
        for line in script.splitlines():
            if not line or line.startswith("#"):
                continue
            mark, text_bytes = line[:2], line[3:].encode().decode("unicode_escape").encode("latin-1")
            if mark in ("S:", "S!"):
                said = text_bytes + (b"\r\n" if mark == "S:" else b"")
                last = steps[-1] if steps else None
                if isinstance(last, Say):
                    steps[-1] = Say((*last.lines, said))
                else:
                    steps.append(Say((said,)))
            elif mark == "C:":
                steps.append(Hear(text_bytes))
            else:
                steps.append(Do(line.strip()))
        return cls(settings, tuple(steps))

    def setting(self, name: str, default: str) -> str:
        """Return a setting that is said at most once."""
        return self.settings.get(name, (default,))[0]


@dataclass
class ScriptedPeer:
    """Serves one transcript to each connection; ``async with`` starts and stops it. ``problems`` must stay empty."""

    transcript: Transcript
    chop: Chop = Chop.TOGETHER
    tls: ssl.SSLContext | None = None
    patience_seconds: float = 10
    problems: list[str] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> ScriptedPeer:
        """Listen on a free loopback port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening."""
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = 0
        try:
            async with asyncio.timeout(self.patience_seconds):
                for number, step in enumerate(self.transcript.steps):
                    await self._play(number, step, reader, writer)
                rest = await reader.read()
            if rest:
                self.problems.append(f"after the script the client sent {rest!r}")
        except TimeoutError:
            self.problems.append("the client neither went on nor went away")
        except _Gone:
            pass
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError) as error:
            if any(isinstance(step, Hear) for step in self.transcript.steps[number:]):  # else it had heard enough
                self.problems.append(f"step {number}: the client went away: {error!r}")
        finally:
            writer.close()

    async def _play(
        self, number: int, step: Say | Hear | Do, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        match step:
            case Say(lines):
                for segment in self.chop.cut(lines):
                    writer.write(segment)
                    await writer.drain()
                    await asyncio.sleep(0)
            case Hear(line):
                heard = await reader.readuntil(b"\n")
                if heard != line + b"\r\n":
                    self.problems.append(f"step {number}: expected {line!r}, heard {heard!r}")
                    raise _Gone
            case Do.STARTTLS:
                assert self.tls is not None
                await writer.start_tls(self.tls)
            case Do.DROP:
                raise _Gone
            case Do.RESET:
                writer.transport.abort()
                raise _Gone
            case Do.HANG:
                await reader.read()
                raise _Gone


class _Gone(Exception):
    """The script closes the connection here."""


def transactions_of(transcript: Transcript) -> list[Transaction]:
    """Return the messages a transcript's settings describe.

    ``messages: n`` makes tokens 1 to n, from news@a.example to user1@b.example ...; ``smtputf8``, ``eightbit`` name
    tokens, ``rcpt``, ``body`` (with escapes) and ``size`` (bytes to pad to) follow a token.
    """
    chosen = {
        name: {token: value for token, _, value in (line.partition(" ") for line in transcript.settings.get(name, ()))}
        for name in ("rcpt", "body", "size", "smtputf8", "eightbit")
    }
    made = []
    for token in map(str, range(1, int(transcript.setting("messages", "1")) + 1)):
        body = f"Subject: {token}\r\n\r\nhello {token}\r\n"
        body = chosen["body"].get(token, body).encode().decode("unicode_escape")
        if token in chosen["size"]:
            body = body[:-2].ljust(int(chosen["size"][token]) - 2, "x") + "\r\n"
        made.append(
            Transaction(
                token=int(token),
                mail_from="news@a.example",
                rcpt=chosen["rcpt"].get(token, f"user{token}@b.example"),
                body=body.encode(),
                smtputf8=token in chosen["smtputf8"],
                eightbit=token in chosen["eightbit"],
            )
        )
    return made
