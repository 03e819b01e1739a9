"""How long a connection may last: what a peer that says little at a time cannot do, and what a slow one may."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
from tests.net.test_sender import GROUP, LOOPS, Record, converse, script
from tests.net.test_sender_writes import SmallDialer

from midsource.model.outcome import Attempt, Lost, Reply, Stage
from midsource.net.dialer import Endpoint, TcpDialer
from midsource.net.sender import ConnectionEnd, run_connection
from midsource.net.source import TransactionQueue
from midsource.net.timeouts import Timeouts
from midsource.smtp.events import Transaction
from midsource.smtp.session import ClientSession
from midsource.testing.peer import ScriptedPeer, transactions_of

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
STEP = 0.3
"""Seconds of every time-out here."""
BRIEF = Timeouts(*(STEP,) * 6, quit_seconds=STEP, idle_seconds=STEP)


def queue_of(count: int, body: bytes = b"x\r\n") -> TransactionQueue:
    queue = TransactionQueue(
        [Transaction(n, "a@a.example", f"u{n}@b.example", body, prestuffed=True) for n in range(1, count + 1)]
    )
    queue.close()
    return queue


async def against(
    serve: Serve,
    queue: TransactionQueue,
    record: Record,
    timeouts: Timeouts,
    dialer: TcpDialer | None = None,
    window: int = 0,
) -> ConnectionEnd:
    """Run one connection to a server that does what ``serve`` does, with a receive buffer of ``window`` bytes."""
    listening = socket.create_server(("127.0.0.1", 0))
    if window:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    done = asyncio.Event()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client left, as some of these clients should
        finally:
            writer.close()
            done.set()

    async with await asyncio.start_server(one, sock=listening, limit=20_000):
        endpoint = Endpoint("mx.b.example", "127.0.0.1", listening.getsockname()[1])
        end = await run_connection(dialer or TcpDialer(), endpoint, ClientSession("me"), queue, record, timeouts)
        async with asyncio.timeout(5):
            await done.wait()
        return end


async def drip(writer: asyncio.StreamWriter, pieces: Iterator[bytes]) -> None:
    """Say one piece every third of a time-out."""
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(STEP / 3)


@pytest.mark.parametrize("loop_factory", LOOPS, ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("stage", [Stage.BANNER, Stage.EHLO, Stage.BODY])
def test_pieces_of_a_reply_buy_no_time(stage: Stage, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Bytes of a banner, lines of an answer to EHLO, bytes behind the final dot: the time is that of the whole reply."""
    record = Record()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if stage is Stage.BANNER:
            await drip(writer, (bytes([byte]) for byte in b"220 a name of fifty letters and a little more\r\n"))
        writer.write(b"220 mx\r\n")
        await reader.readline()
        if stage is Stage.EHLO:
            await drip(writer, (b"250-EXTENSION%d\r\n" % n for n in range(50)))
        writer.write(b"250 mx\r\n")
        for answer in (b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            await reader.readline()
            writer.write(answer)
        await reader.readuntil(b"\r\n.\r\n")
        await drip(writer, (bytes([byte]) for byte in b"250 kept for you and for nobody else\r\n"))

    begun = time.monotonic()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        end = runner.run(against(serve, queue_of(1), record, BRIEF))
    assert (end.stage, end.answer) == (stage, Lost(f"no answer within {STEP:g} s"))
    assert time.monotonic() - begun < 3 * STEP


def test_each_answer_has_its_own_time() -> None:
    """A server that needs nearly all of each time-out, in two segments each, is served to the end."""
    record = Record()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def say(answer: bytes) -> None:
            for half in (answer[:3], answer[3:] + b"\r\n"):
                await asyncio.sleep(STEP / 3)
                writer.write(half)

        await say(b"220 mx")
        for answer in (b"250 mx", b"250 ok", b"250 ok", b"354 go"):
            await reader.readline()
            await say(answer)
        await reader.readuntil(b"\r\n.\r\n")
        await say(b"250 kept")
        await reader.readline()

    asyncio.run(against(serve, queue_of(1), record, BRIEF))
    assert record.attempts == [(1, Attempt(Stage.BODY, Reply(250, "", "kept")))]


@pytest.mark.parametrize("loop_factory", LOOPS, ids=["asyncio", "uvloop"])
def test_a_large_body_has_its_time_for_each_chunk(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A slow reader takes several time-outs for the whole, and is not given up while it takes a chunk in one."""
    record = Record()
    body = (b"x" * 70 + b"\r\n") * 5_000

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mx\r\n")
        for answer in (b"250 mx\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            await reader.readline()
            writer.write(answer)
        left = len(body) + 3
        while left:
            left -= len(await reader.read(min(left, 20_000)))
            await asyncio.sleep(STEP / 8)
        writer.write(b"250 kept\r\n")
        await reader.readline()

    begun = time.monotonic()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(against(serve, queue_of(1, body), record, BRIEF, SmallDialer(), 8_192))
    assert record.attempts == [(1, Attempt(Stage.BODY, Reply(250, "", "kept")))]
    assert time.monotonic() - begun > 2 * STEP


def test_a_connection_that_is_never_ready_for_mail_is_left() -> None:
    """Every answer comes in its time, and the whole in no time we give."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (b"220 mx\r\n", b"500 what\r\n", b"250 mx\r\n"):
            await asyncio.sleep(STEP * 0.7)
            writer.write(answer)
            await reader.readline()

    record = Record()
    end = asyncio.run(against(serve, queue_of(1), record, Timeouts(*(STEP,) * 6, opening_seconds=STEP * 1.2)))
    assert (end.stage, end.never_opened) == (Stage.EHLO, True)
    assert end.answer == Lost(f"not ready for mail within {STEP * 1.2:g} s")
    assert record.attempts == []


def test_a_connection_grows_old() -> None:
    """After the time for opening it gets no more messages, and at the end of its life it is cut."""
    record = Record()
    timeouts = Timeouts(opening_seconds=STEP, life_seconds=STEP * 3)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, last: bytes | None) -> None:
        writer.write(b"220 mx\r\n")
        while line := await reader.readline():
            if line == b"DATA\r\n":
                writer.write(b"354 go\r\n")
                await reader.readuntil(b".\r\n")
                await asyncio.sleep(STEP / 3)
                if last is not None:
                    writer.write(last)
            else:
                writer.write(b"250 ok\r\n")

    queue = queue_of(100)
    end = asyncio.run(against(lambda r, w: serve(r, w, last=b"250 kept\r\n"), queue, record, timeouts))
    assert (end.stage, end.answer) == (None, None)
    assert 1 <= end.finished <= 5
    assert len(queue.drain()) == 100 - end.finished
    record = Record()
    end = asyncio.run(against(lambda r, w: serve(r, w, last=None), queue_of(100), record, timeouts))
    old = Lost(f"the connection was {STEP * 3:g} s old")
    assert (end.stage, end.answer) == (Stage.BODY, old)
    assert record.attempts == [(1, Attempt(Stage.BODY, old))]


def test_a_peer_that_refuses_and_reads_nothing_keeps_no_socket() -> None:
    """It says 421 into a body that it does not read: what is buffered is not kept for it."""
    record = Record()
    heard = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        writer.write(b"220 mx\r\n")
        for answer in (b"250 mx\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            await reader.readline()
            writer.write(answer)
        await record.first_began.wait()
        writer.write(b"421 too much\r\n")
        await asyncio.sleep(STEP)
        while data := await reader.read(65_536):
            heard += len(data)

    body = (b"x" * 70 + b"\r\n") * 5_000
    asyncio.run(against(serve, queue_of(1, body), record, Timeouts(), SmallDialer(), 8_192))
    assert record.attempts == [(1, Attempt(Stage.BODY, Reply(421, "", "too much")))]
    assert heard < 65_536


def test_a_late_note_of_a_start_leaves_the_body_its_time() -> None:
    """No time-out runs while a start is noted, whatever the server says meanwhile; the one of the body begins with the body."""

    class Slow(Record):
        def started(self, token: int, go: Callable[[BaseException | None], None]) -> None:
            super().started(token, lambda _: None)
            asyncio.get_running_loop().call_later(STEP * 2, go, None)

    record = Slow()

    async def story() -> ConnectionEnd:
        transcript = script(GROUP + "S! 25\nC: Subject: 1\nC:\nC: hello 1\nC: .\nhang")
        async with ScriptedPeer(transcript) as peer:
            return await converse(peer, TransactionQueue(transactions_of(transcript)), record, BRIEF)

    end = asyncio.run(story())
    assert (end.stage, end.answer) == (Stage.BODY, Lost(f"no answer within {STEP:g} s"))
