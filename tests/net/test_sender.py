"""One connection over a real socket: every transcript again, and what only a shell can do."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from midsource.model.outcome import Attempt, Lost, Reply, Stage
from midsource.net.dialer import Endpoint, TcpDialer
from midsource.net.sender import WITHHELD, ConnectionEnd, run_connection
from midsource.net.source import TransactionQueue
from midsource.net.timeouts import Timeouts
from midsource.smtp.events import Pipelining, TlsPolicy, Transaction
from midsource.smtp.session import ClientSession
from midsource.testing.peer import Chop, Do, ScriptedPeer, Transcript, transactions_of

TRANSCRIPTS = sorted((Path(__file__).parents[1] / "smtp" / "transcripts").glob("*.txt"))
LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]
QUICK = Timeouts(5, 5, 5, 5, 5, 5, 1, 1)
PATIENT = Timeouts(20, 20, 20, 20, 20, 20, 1, 1)
IMPATIENT = Timeouts(5, 5, 5, 5, 0.2, 5, 1, 1)

GROUP = """
S: 220 mx
C: EHLO me.example
S: 250-mx
S: 250 PIPELINING
C: MAIL FROM:<news@a.example>
C: RCPT TO:<user1@b.example>
C: DATA
S: 250 ok
S: 250 ok
S: 354 go
"""
BODY = "C: Subject: 1\nC:\nC: hello 1\nC: .\n"


class Record:
    """A recorder that keeps what it is told."""

    def __init__(self, *, may_send: bool = True) -> None:
        self.may_send = may_send
        self.began: list[int] = []
        self.first_began = asyncio.Event()
        self.attempts: list[tuple[int, Attempt]] = []

    def may_send_body(self, token: int) -> bool:
        return self.may_send

    def started(self, token: int, go: Callable[[BaseException | None], None]) -> None:
        self.began.append(token)
        self.first_began.set()
        go(None)

    def finished(self, token: int, attempt: Attempt) -> None:
        self.attempts.append((token, attempt))

    @property
    def lines(self) -> list[str]:
        return [
            f"{token} {attempt.stage} {'lost: ' if isinstance(attempt.answer, Lost) else ''}{attempt.answer}"
            for token, attempt in self.attempts
        ]


@pytest.fixture(scope="module")
def server_tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mx.b.example")])
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=36500))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


async def converse(
    peer: ScriptedPeer,
    queue: TransactionQueue,
    record: Record,
    timeouts: Timeouts = QUICK,
    session: ClientSession | None = None,
    messages: int = 1000,
) -> ConnectionEnd:
    endpoint = Endpoint("mx.b.example", "127.0.0.1", peer.port)
    return await run_connection(
        TcpDialer(),
        endpoint,
        session or ClientSession("me.example"),
        queue,
        record,
        timeouts,
        messages_per_connection=messages,
    )


def script(text: str, settings: str = "messages: 1") -> Transcript:
    return Transcript.parse(f"{settings}\n---\n{text}")


@pytest.mark.parametrize("loop_factory", LOOPS, ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("chop", list(Chop))
@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript_over_a_socket(
    path: Path, chop: Chop, loop_factory: Callable[[], asyncio.AbstractEventLoop], server_tls: ssl.SSLContext
) -> None:
    transcript = Transcript.parse(path.read_text("utf-8"))
    record = Record()

    async def story() -> tuple[ConnectionEnd, list[str], list[int]]:
        queue = TransactionQueue(transactions_of(transcript))
        queue.close()
        session = ClientSession(
            "me.example",
            tls=TlsPolicy(transcript.setting("tls", "opportunistic")),
            pipelining=Pipelining(transcript.setting("pipelining", "grouped")),
        )
        async with ScriptedPeer(transcript, chop, server_tls) as peer:
            hangs = Do.HANG in transcript.steps
            end = await converse(peer, queue, record, IMPATIENT if hangs else QUICK, session)
        return end, peer.problems, [message.token for message in queue.drain()]

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        end, problems, untaken = runner.run(story())
    assert problems == []
    expected = transcript.settings.get("result", ())
    assert len(record.lines) == len(expected), record.lines
    for got, wanted in zip(record.lines, expected, strict=True):
        assert got.startswith(wanted) if " lost" in wanted else got == wanted
    assert [message.token for message in end.returned] == [int(t) for t in transcript.settings.get("returned", ())]
    assert untaken == [int(token) for token in transcript.settings.get("untaken", ())]
    assert (end.answer is None) is (transcript.setting("end", "quit") == "quit")
    assert end.encrypted is (transcript.setting("encrypted", "no") == "yes")


def test_nobody_listens() -> None:
    async def story() -> ConnectionEnd:
        queue = TransactionQueue(transactions_of(script("")))
        async with ScriptedPeer(script("")) as peer:
            pass
        return await converse(peer, queue, Record())

    end = asyncio.run(story())
    assert end.never_opened
    assert end.stage is Stage.CONNECT
    assert str(end.answer).startswith("no connection to mx.b.example[127.0.0.1]:")


def test_a_banner_that_does_not_come() -> None:
    async def story() -> ConnectionEnd:
        async with ScriptedPeer(script("hang")) as peer:
            return await converse(peer, TransactionQueue(), Record(), Timeouts(banner_seconds=0.1))

    end = asyncio.run(story())
    assert end.never_opened
    assert (end.stage, end.answer) == (Stage.BANNER, Lost("no answer within 0.1 s"))


def test_a_body_is_not_sent_when_the_lease_ends() -> None:
    record = Record(may_send=False)

    async def story() -> ConnectionEnd:
        transcript = script(GROUP + "hang")
        queue = TransactionQueue(transactions_of(transcript))
        async with ScriptedPeer(transcript) as peer:
            end = await converse(peer, queue, record)
        assert peer.problems == []
        return end

    end = asyncio.run(story())
    assert [message.token for message in end.returned] == [1]
    assert record.began == []
    assert record.attempts == []
    assert end.answer == Lost(WITHHELD)


def test_a_lease_that_ends_while_the_start_is_noted_keeps_the_body_back() -> None:
    """A process may be stopped for minutes between the look at its lease and the note in its journal."""

    class Stopped(Record):
        def started(self, token: int, go: Callable[[BaseException | None], None]) -> None:
            self.may_send = False
            super().started(token, go)

    record = Stopped()

    async def story() -> ConnectionEnd:
        transcript = script(GROUP + "hang")
        async with ScriptedPeer(transcript) as peer:
            end = await converse(peer, TransactionQueue(transactions_of(transcript)), record)
        assert peer.problems == []
        return end

    end = asyncio.run(story())
    assert record.began == [1]
    assert record.attempts == [(1, Attempt(Stage.DATA, Lost(WITHHELD)))], "so its note is taken back"
    assert end.returned == ()


def test_the_final_dot_waits_until_a_large_body_has_left_and_is_then_withheld() -> None:
    """The peer stops reading: the lease ends while the body is stuck, so the dot never goes out."""
    record = Record()

    async def story() -> tuple[ConnectionEnd, bytes]:
        body = b"x" * 70 + b"\r\n"
        queue = TransactionQueue([Transaction(1, "a@a.example", "b@b.example", body * 200_000, prestuffed=True)])
        stalled = asyncio.Event()
        heard = bytearray()
        server_done = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mx\r\n")
            for answer in (b"250 mx\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
                await reader.readuntil(b"\n")
                writer.write(answer)
            await stalled.wait()
            try:
                while data := await reader.read(65536):
                    heard[:] = (heard + data)[-10:]
            except ConnectionError:
                pass
            writer.close()
            server_done.set()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1024)

        async def expire() -> None:
            await record.first_began.wait()
            await asyncio.sleep(0.1)  # ample for this process to fill the socket
            assert record.attempts == []
            record.may_send = False
            stalled.set()

        async with server, asyncio.TaskGroup() as group:
            endpoint = Endpoint("mx", "127.0.0.1", server.sockets[0].getsockname()[1])
            task = group.create_task(run_connection(TcpDialer(), endpoint, ClientSession("me"), queue, record, QUICK))
            group.create_task(expire())
            end = await task
            await server_done.wait()
        return end, bytes(heard)

    end, heard = asyncio.run(story())
    assert record.attempts == [(1, Attempt(Stage.DATA, Lost(WITHHELD)))]
    assert end.answer == Lost(WITHHELD)
    assert not heard.endswith(b"\r\n.\r\n")


class Forgetful:
    """A TLS transport that does not say it is one, so that a high mark of zero is set: it pauses with an empty buffer."""

    def __init__(self, real: asyncio.Transport) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default if name == "sslcontext" else self._real.get_extra_info(name, default)


class ForgetfulDialer(TcpDialer):
    async def start_tls(
        self, transport: asyncio.Transport, protocol: asyncio.Protocol, host: str, timeout_seconds: float
    ) -> asyncio.Transport:
        return cast("asyncio.Transport", Forgetful(await super().start_tls(transport, protocol, host, timeout_seconds)))


@pytest.mark.parametrize("loop_factory", LOOPS, ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("dialer", [TcpDialer, ForgetfulDialer])
def test_bodies_larger_than_any_buffer_pass_over_tls(
    dialer: type[TcpDialer], loop_factory: Callable[[], asyncio.AbstractEventLoop], server_tls: ssl.SSLContext
) -> None:
    """Writing is paused and resumed many times; a pause that nobody ends is found by looking, not by a time-out."""
    record = Record()
    size = 3 * 2**20 if dialer is TcpDialer else 70_000  # the forgetful one is looked at for every chunk
    heard: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mx\r\n")
        while line := await reader.readline():
            match line[:4].upper():
                case b"STAR":
                    writer.write(b"220 go\r\n")
                    await writer.start_tls(server_tls)
                case b"EHLO":
                    encrypted = writer.get_extra_info("sslcontext") is not None
                    writer.write(b"250-mx\r\n250 SIZE\r\n" if encrypted else b"250-mx\r\n250 STARTTLS\r\n")
                case b"DATA":
                    writer.write(b"354 go\r\n")
                    length = 0
                    while (data := await reader.readline()) != b".\r\n":
                        length += len(data)
                        if length % (1 << 20) < 72:
                            await asyncio.sleep(0.05)  # the client's buffers fill meanwhile
                    heard.append(length)
                    writer.write(b"250 kept\r\n")
                case _:
                    writer.write(b"250 ok\r\n")
        writer.close()

    async def story() -> ConnectionEnd:
        body = (b"x" * 70 + b"\r\n") * (size // 72)
        queue = TransactionQueue([Transaction(n, "a@a.example", "b@b.example", body, prestuffed=True) for n in (1, 2)])
        queue.close()
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            endpoint = Endpoint("mx", "127.0.0.1", server.sockets[0].getsockname()[1])
            return await run_connection(dialer(), endpoint, ClientSession("me"), queue, record, PATIENT)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        end = runner.run(story())
    assert end.encrypted
    assert record.lines == ["1 body 250 kept", "2 body 250 kept"]
    assert heard == [size // 72 * 72] * 2


@pytest.mark.parametrize("at_once", [True, False])
def test_a_recorder_that_fails_stops_the_body(at_once: bool) -> None:
    class Full(Record):
        def started(self, token: int, go: Callable[[BaseException | None], None]) -> None:
            error = OSError(28, "No space left on device")
            if at_once:
                raise error
            asyncio.get_running_loop().call_later(0.05, go, error)

    async def story() -> list[str]:
        transcript = script(GROUP + "hang")
        async with ScriptedPeer(transcript) as peer:
            with pytest.raises(OSError, match="No space left"):
                await converse(peer, TransactionQueue(transactions_of(transcript)), Full())
        return peer.problems

    assert asyncio.run(story()) == []


def test_bytes_that_would_break_the_protocol_fail_alone() -> None:
    record = Record()

    async def story() -> ConnectionEnd:
        transcript = script(GROUP + BODY + "S: 250 ok\nC: QUIT\nS: 221 bye")
        bad = Transaction(9, "a@a.example", "b@b.example", b"bare\nLF\r\n")
        queue = TransactionQueue([bad, *transactions_of(transcript)])
        queue.close()
        async with ScriptedPeer(transcript) as peer:
            end = await converse(peer, queue, record)
        assert peer.problems == []
        return end

    assert asyncio.run(story()).answer is None
    assert record.lines == ["9 render lost: message 9: a line does not end in CRLF", "1 body 250 ok"]


def test_work_may_come_late_and_an_idle_connection_is_left() -> None:
    record = Record()

    async def story() -> ConnectionEnd:
        transcript = script(GROUP + BODY + "S: 250 ok\nC: QUIT\nS: 221 bye")
        queue = TransactionQueue()

        async def late() -> None:
            await asyncio.sleep(0.1)
            for transaction in transactions_of(transcript):
                await queue.put(transaction)

        async with ScriptedPeer(transcript) as peer:
            async with asyncio.TaskGroup() as group:
                group.create_task(late())
                task = group.create_task(converse(peer, queue, record, Timeouts(idle_seconds=0.3)))
            assert peer.problems == []
            return task.result()

    end = asyncio.run(story())
    assert record.lines == ["1 body 250 ok"]
    assert (end.stage, end.answer, end.finished) == (None, None, 1)


def test_no_more_messages_than_allowed_on_one_connection() -> None:
    record = Record()

    async def story() -> TransactionQueue:
        transcript = script(GROUP + BODY + "S: 250 ok\nC: QUIT\nS: 221 bye", "messages: 3")
        queue = TransactionQueue(transactions_of(transcript))
        async with ScriptedPeer(transcript) as peer:
            await converse(peer, queue, record, messages=1)
        assert peer.problems == []
        return queue

    queue = asyncio.run(story())
    assert record.lines == ["1 body 250 ok"]
    assert [message.token for message in queue.drain()] == [2, 3]


def test_a_silent_answer_to_quit_is_not_waited_for() -> None:
    async def story() -> ConnectionEnd:
        queue = TransactionQueue()
        queue.close()
        quit_script = script("S: 220 mx\nC: EHLO me.example\nS: 250 mx\nC: QUIT\nhang")
        async with ScriptedPeer(quit_script) as peer:
            return await converse(peer, queue, Record(), Timeouts(quit_seconds=0.1))

    assert asyncio.run(story()).answer is None


def test_cancelled_in_the_body_the_message_is_uncertain() -> None:
    record = Record()

    async def story() -> None:
        transcript = script(GROUP + BODY + "hang")
        async with ScriptedPeer(transcript) as peer:
            try:
                async with asyncio.timeout(0.3):
                    await converse(peer, TransactionQueue(transactions_of(transcript)), record)
            except TimeoutError:
                pass

    asyncio.run(story())
    assert record.attempts == [(1, Attempt(Stage.BODY, Lost("we stopped")))]


def test_many_connections_share_one_queue_without_loss() -> None:
    record = Record()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mx\r\n")
        while line := await reader.readline():
            if line.startswith(b"EHLO"):
                writer.write(b"250-mx\r\n250 PIPELINING\r\n")
            elif line.startswith(b"DATA"):
                writer.write(b"354 go\r\n")
                await reader.readuntil(b"\r\n.\r\n")
                writer.write(b"250 ok\r\n")
            elif line.startswith(b"QUIT"):
                writer.write(b"221 bye\r\n")
                break
            else:
                writer.write(b"250 ok\r\n")
        writer.close()

    async def story() -> int:
        queue = TransactionQueue(limit=10)
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        endpoint = Endpoint("mx", "127.0.0.1", server.sockets[0].getsockname()[1])
        async with server, asyncio.TaskGroup() as group:
            for mode in Pipelining:
                session = ClientSession("me", pipelining=mode)
                group.create_task(run_connection(TcpDialer(), endpoint, session, queue, record, QUICK))
            for transaction in transactions_of(script("", "messages: 300")):
                await queue.put(transaction)
            queue.close()
        return len(queue.drain())

    assert asyncio.run(story()) == 0
    assert sorted(token for token, _ in record.attempts) == list(range(1, 301))
    assert sorted(record.began) == list(range(1, 301))
    assert {attempt for _, attempt in record.attempts} == {Attempt(Stage.BODY, Reply(250, "", "ok"))}


def test_caps_only_shorten() -> None:
    timeouts = Timeouts().capped(connect=10, other=60, data=1200)
    assert (timeouts.connect_seconds, timeouts.command_seconds, timeouts.body_seconds) == (10, 60, 600)
    assert timeouts.of(Stage.BODY) == 600
    assert timeouts.of(Stage.RCPT) == 60
    assert timeouts.of(None) == timeouts.idle_seconds
