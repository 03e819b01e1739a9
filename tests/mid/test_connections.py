"""How long one round over the hosts of a destination lasts, with hosts that take a connection and say nothing."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

import pytest

from midsource.mid import connections
from midsource.mid.connections import Connections, Outfit
from midsource.mid.desk import Desk
from midsource.mid.held import Destination
from midsource.model.outcome import Attempt, Lost, Stage
from midsource.net.dialer import TcpDialer
from midsource.net.resolver import MailHost, MxAnswer
from midsource.net.timeouts import Timeouts
from midsource.policy.paths import Limits


class Idle:
    """As much of a desk as a round without a conversation asks for."""

    stopping = False

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.refused = asyncio.get_running_loop().create_future()
        self.dest = Destination("b.example")

    def queues(self) -> dict[str, object]:
        return {self.dest.name: self.dest.queue(0)}

    def destination(self, _name: str) -> Destination:
        return self.dest

    def put_back(self, *_: object) -> None:
        pass

    def refuse_all(self, _dest: Destination, attempt: Attempt) -> None:
        self.refused.set_result(attempt)


class Hosts:
    """A domain with as many hosts as a resolver gives."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def mx(self, domain: str) -> MxAnswer:
        return MxAnswer(tuple(MailHost(f"mx{n}.{domain}", n, ("127.0.0.1",), self.port) for n in range(5)))


@pytest.mark.parametrize(("seconds", "dialled"), [(0.3, 2), (60.0, 5)])
def test_a_round_over_silent_hosts_ends(monkeypatch: pytest.MonkeyPatch, seconds: float, dialled: int) -> None:
    monkeypatch.setattr(connections, "ROUND_SECONDS", seconds)
    monkeypatch.setattr(connections, "plan_connections", lambda *_: {"b.example": 1})
    arrived = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        arrived += 1
        await reader.read()
        writer.close()

    async def story() -> Attempt:
        listening = socket.create_server(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        timeouts = Timeouts(banner_seconds=0.2)
        outfit = Outfit("me", TcpDialer(), Hosts(port), Limits(1), timeouts=timeouts)
        async with await asyncio.start_server(serve, sock=listening), asyncio.TaskGroup() as tasks:
            desk = Idle()
            Connections(cast("Desk", desk), outfit, tasks).open_planned()
            return cast("Attempt", await desk.refused)

    assert asyncio.run(story()) == Attempt(Stage.BANNER, Lost("no answer within 0.2 s"))
    assert arrived == dialled
