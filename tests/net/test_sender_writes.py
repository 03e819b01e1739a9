"""What leaves when: cut writes, and the note that comes before a body."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

import pytest
from tests.net.test_sender import GROUP, LOOPS, PATIENT, Record, converse, script

from midsource.net.dialer import Endpoint, TcpDialer
from midsource.net.sender import ConnectionEnd, run_connection
from midsource.net.source import TransactionQueue
from midsource.smtp.events import Pipelining, Transaction
from midsource.smtp.session import ClientSession
from midsource.testing.peer import ScriptedPeer, transactions_of


class SmallDialer(TcpDialer):
    """One whose sockets take a few kB at a time, so that every body is written in pieces."""

    async def connect(
        self, endpoint: Endpoint, protocol: asyncio.Protocol, timeout_seconds: float, source_ip: str | None = None
    ) -> None:
        await super().connect(endpoint, protocol, timeout_seconds, source_ip)
        transport = cast("Any", protocol)._transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)


@pytest.mark.parametrize("loop_factory", LOOPS, ids=["asyncio", "uvloop"])
def test_across_messages_each_write_may_be_cut_anywhere(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A server with a tiny window reads a little at a time: body, dot and the next commands arrive whole and in order."""
    record = Record()
    bodies = [b"".join(b"%d line %d\r\n" % (token, at) for at in range(4_000)) for token in range(1, 7)]
    heard: list[bytes] = []
    served = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mx\r\n")
        while line := await reader.readline():
            match line[:4].upper():
                case b"EHLO":
                    writer.write(b"250-mx\r\n250 PIPELINING\r\n")
                case b"DATA":
                    writer.write(b"354 go\r\n")
                    await asyncio.sleep(0.02)  # the client writes until nothing more is taken
                    heard.append((await reader.readuntil(b"\r\n.\r\n"))[:-3])
                    writer.write(b"250 kept\r\n")
                case _:
                    writer.write(b"250 ok\r\n")
        writer.close()
        await writer.wait_closed()
        served.set()

    async def story() -> ConnectionEnd:
        queue = TransactionQueue(
            [
                Transaction(n, "a@a.example", f"u{n}@b.example", body, prestuffed=True)
                for n, body in enumerate(bodies, 1)
            ]
        )
        queue.close()
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        server = await asyncio.start_server(serve, sock=listening, limit=100_000)
        async with server:
            endpoint = Endpoint("mx", "127.0.0.1", listening.getsockname()[1])
            session = ClientSession("me", pipelining=Pipelining.ACROSS)
            end = await run_connection(SmallDialer(), endpoint, session, queue, record, PATIENT)
            await served.wait()
            return end

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        end = runner.run(story())
    assert (end.answer, end.finished) == (None, 6)
    assert heard == bodies
    assert record.lines == [f"{token} body 250 kept" for token in range(1, 7)]


def test_nothing_of_a_body_leaves_before_its_start_is_noted() -> None:
    """The note comes late, the server talks out of turn meanwhile, and then hangs up: the message never began."""

    class Late(Record):
        def started(self, token: int, go: Callable[[BaseException | None], None]) -> None:
            super().started(token, lambda _: None)
            asyncio.get_running_loop().call_later(0.3, go, None)

    record = Late()

    async def story() -> list[str]:
        transcript = script(GROUP + "S: 250 what\ndrop")
        async with ScriptedPeer(transcript) as peer:
            await converse(peer, TransactionQueue(transactions_of(transcript)), record)
            await asyncio.sleep(0.4)  # the note arrives after the end
        return peer.problems

    assert asyncio.run(story()) == []
    assert record.lines == ["1 data lost: unasked reply: 250 what"]
