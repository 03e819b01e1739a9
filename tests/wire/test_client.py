"""What the client says about everything that can sit at the other end of the link: real sockets, one case each."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import zstandard
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from midsource.model.errors import MidsourceError, RemoteRefused
from midsource.net.clock import SystemClock
from midsource.testing.proxy import Answer, CutAnswer, Delay, FaultProxy, Pass, Seen
from midsource.wire.client import MidClient, Page, Timeouts
from midsource.wire.failures import LinkFailure, answer_of
from midsource.wire.schema import DeliverySpec, FeedHead, Hello, LogRow, Problem, Rewound

KEY = "abc.secret"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SPEC = DeliverySpec(id=1, label="l", subject="s", html="", text="t", from_name="", from_address="a@b.test", brand="b")


@pytest.fixture
def answers() -> Iterator[FaultProxy]:
    """A server that answers what the test says, in the mid's place."""
    with FaultProxy(1) as proxy:
        yield proxy


def client(url: str, **timeouts: float) -> MidClient:
    return MidClient(url, KEY, SystemClock(), timeouts=Timeouts(**timeouts))


def always(answer: Answer) -> Callable[[Seen], Answer]:
    return lambda _seen: answer


def json_answer(body: object, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    return Answer(status, headers, msgspec.json.encode(body), "application/json")


def hello(**changes: object) -> Hello:
    values = {
        "product": "midsource", "version": "0.1", "protocols": (1,), "instance": "mid1", "account": "a",
        "generation": "g", "now": NOW, "transport": "sandbox", "dispatch": True,
    }  # fmt: skip
    return msgspec.convert(values | changes, Hello)


def page(rows: int, told: int | None = None) -> bytes:
    head = FeedHead(
        generation="g",
        cursor="c",
        rows=rows if told is None else told,
        more=False,
        reached_at=NOW,
        now=NOW,
        seq=1,
        head_seq=1,
    )
    lines = [
        LogRow(
            delivery=1,
            id=n,
            state=1,
            reason=0,
            attempts=1,
            revision=2,
            event_at=1_700_000_000_000_000,
            reply="250 ok",
            message_id="m",
        )
        for n in range(rows)
    ]
    return b"\n".join(msgspec.json.encode(item) for item in (head, *lines)) + b"\n"


def failure(call: Callable[[], object]) -> MidsourceError:
    with pytest.raises((LinkFailure, RemoteRefused)) as caught:
        call()
    return caught.value


def test_a_mid_says_who_it_is_and_how_far_its_clock_is(answers: FaultProxy) -> None:
    answers.fault = always(json_answer(hello(now=SystemClock().now() + timedelta(minutes=2))))
    with client(answers.url) as mid:
        said = mid.hello()
        assert said.instance == "mid1"
        assert 110 < mid.skew_seconds(said.now) < 130


def test_a_web_page_is_not_a_mid(answers: FaultProxy) -> None:
    answers.fault = always(Answer(200, (), b"<html>Welcome to nginx!</html>", "text/html"))
    with client(answers.url) as mid:
        error = failure(mid.hello)
    assert isinstance(error, RemoteRefused)
    assert "not a mid-sourcing server (HTTP 200, text/html)" in str(error)


def test_json_of_another_product_is_not_a_mid(answers: FaultProxy) -> None:
    answers.fault = always(json_answer(hello(product="other")))
    with client(answers.url) as mid:
        assert "not a mid-sourcing server (it says it is 'other')" in str(failure(mid.hello))


def test_a_path_that_is_not_there_is_not_a_mid(answers: FaultProxy) -> None:
    answers.fault = always(Answer(404, (), b"not found", "text/html"))
    with client(answers.url) as mid:
        assert "not a mid-sourcing server (HTTP 404)" in str(failure(lambda: mid.put_delivery(SPEC)))


def test_another_version_says_which_side_to_upgrade(answers: FaultProxy) -> None:
    answers.fault = always(json_answer(hello(protocols=(3, 2))))
    with client(answers.url) as mid:
        assert "speaks protocol 3, 2, this instance 1" in str(failure(mid.hello))
    answers.fault = always(
        json_answer(Problem(code="MS-1", cause="protocol 1 is too old", remedy="upgrade marketing"), 426)
    )
    with client(answers.url) as mid:
        assert str(failure(mid.hello)) == "another version: protocol 1 is too old: upgrade marketing."


def test_a_wrong_key_is_refused_for_good(answers: FaultProxy) -> None:
    answers.fault = always(json_answer(Problem(code="MS-1", cause="unknown key"), 401))
    with client(answers.url) as mid:
        error = failure(mid.hello)
    assert isinstance(error, RemoteRefused)
    assert error.status == 401
    assert "does not know the key" in str(error)


def test_a_redirect_is_told_and_not_followed(answers: FaultProxy) -> None:
    answers.fault = always(Answer(301, (("Location", "https://elsewhere.example/"),)))
    with client(answers.url) as mid:
        assert "redirects to https://elsewhere.example/" in str(failure(mid.hello))
    assert len(answers.seen) == 1


def test_nobody_listening_reached_nobody() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with client(url) as mid:
        error = failure(mid.hello)
    assert isinstance(error, LinkFailure)
    assert not error.reached
    assert answer_of(error) == "no answer (connection refused)"
    assert "midsource status" in str(error)


def test_a_host_without_address_is_named() -> None:
    with client("http://mid.invalid:8101") as mid:
        error = failure(mid.hello)
    assert isinstance(error, LinkFailure)
    assert answer_of(error) == "no answer (no such host)"


def test_a_host_that_no_resolver_takes_is_no_address() -> None:
    with client("http://mid..example:8101") as mid:
        assert "is no address of a mid" in str(failure(mid.hello))


@pytest.mark.parametrize(
    ("status", "reached"), [(408, True), (413, False), (429, False), (500, True), (503, True), (507, True)]
)
def test_a_passing_refusal_carries_its_code(answers: FaultProxy, status: int, reached: bool) -> None:
    answers.fault = always(Answer(status, (("Retry-After", "7"),)))
    with client(answers.url) as mid:
        error = failure(lambda: mid.put_part(1, "17", b"x", "h"))
    assert isinstance(error, LinkFailure)
    assert (error.status, error.reached, error.retry_after_seconds) == (status, reached, 7.0)
    assert answer_of(error) == f"HTTP {status}"


def test_a_slow_answer_is_cut_off_by_the_whole_time(answers: FaultProxy) -> None:
    answers.fault = lambda _seen: Delay(3)
    with client(answers.url, call=0.5) as mid:
        error = failure(mid.hello)
    assert isinstance(error, LinkFailure)
    assert error.reached
    assert "time-out" in error.answer


def test_a_trickling_answer_is_cut_off_too() -> None:
    """One byte every 50 ms would satisfy a limit between two bytes for ever."""
    stop = threading.Event()

    def trickle(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not stop.wait(0.05):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=trickle, args=(listener,))
        thread.start()
        with client(f"http://127.0.0.1:{listener.getsockname()[1]}", call=0.6) as mid:
            error = failure(mid.hello)
        stop.set()
        thread.join()
    assert "time-out" in answer_of(error)


def test_an_answer_cut_in_mid_body_is_a_cut(answers: FaultProxy) -> None:
    with FaultProxy(int(answers.url.rpartition(":")[2])) as cutting:
        answers.fault = always(Answer(200, (), page(100), "application/x-ndjson"))
        cutting.fault = lambda _seen: CutAnswer(1000)
        with client(cutting.url) as mid:
            error = failure(lambda: mid.feed_logs(after="", since=None, limit=10))
        assert isinstance(error, LinkFailure)
        assert error.answer == "no answer (connection cut)"
        cutting.fault = lambda _seen: Pass()
        with client(cutting.url) as mid:
            whole = mid.feed_logs(after="", since=None, limit=10)
            assert isinstance(whole, Page)
            assert len(whole.rows) == 100


def test_a_page_with_fewer_rows_than_it_says_is_not_taken(answers: FaultProxy) -> None:
    answers.fault = always(Answer(200, (), page(10, told=11), "application/x-ndjson"))
    with client(answers.url) as mid:
        assert "10 of 11 rows" in str(failure(lambda: mid.feed_logs(after="", since=None, limit=10)))


@pytest.mark.parametrize(
    ("encoding", "pack"), [("zstd", zstandard.compress), ("gzip", gzip.compress), ("identity", bytes)]
)
def test_pages_come_compressed(answers: FaultProxy, encoding: str, pack: Callable[[bytes], bytes]) -> None:
    answers.fault = always(Answer(200, (("Content-Encoding", encoding),), pack(page(50)), "application/x-ndjson"))
    with client(answers.url) as mid:
        found = mid.feed_logs(after="c0", since=None, limit=50, wait=3)
    assert isinstance(found, Page)
    assert [row.id for row in found.rows] == list(range(50))
    assert answers.seen[0].path == "/mid/v1/feed/logs?limit=50&after=c0&wait=3"


def test_broken_compression_is_a_cut(answers: FaultProxy) -> None:
    answers.fault = always(Answer(200, (("Content-Encoding", "zstd"),), b"no zstd", "application/x-ndjson"))
    with client(answers.url) as mid:
        assert isinstance(failure(lambda: mid.feed_logs(after="", since=None, limit=1)), LinkFailure)


def test_a_small_body_cannot_become_a_large_one(answers: FaultProxy) -> None:
    bomb = zstandard.compress(b" " * 100_000_000)
    answers.fault = always(Answer(200, (("Content-Encoding", "zstd"),), bomb, "application/json"))
    with client(answers.url) as mid:
        assert "inflates to more than" in str(failure(mid.hello))


def test_rewound_is_an_answer(answers: FaultProxy) -> None:
    answers.fault = always(json_answer(Rewound(generation="g2", head_seq=7, oldest_seq=1), 409))
    with client(answers.url) as mid:
        assert mid.feed_deliveries(after="c", since=None, limit=1) == Rewound(generation="g2", head_seq=7, oldest_seq=1)


def test_a_part_the_mid_does_not_hold_is_none(answers: FaultProxy) -> None:
    answers.fault = always(json_answer(Problem(code="MS-120", cause="no such part"), 404))
    with client(answers.url) as mid:
        assert mid.get_part(1, "17") is None


@pytest.fixture
def expired_tls(tmp_path: Path) -> Iterator[str]:
    """A TLS server whose certificate ended yesterday."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = SystemClock().now()
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(days=30)).not_valid_after(now - timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = tmp_path / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            try:
                context.wrap_socket(connection, server_side=True).close()
            except OSError:
                return  # the client hangs up on the certificate, as it should

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield f"https://localhost:{listener.getsockname()[1]} {pem}"
        thread.join()


def test_an_expired_certificate_is_named(expired_tls: str) -> None:
    url, _, pem = expired_tls.partition(" ")
    with MidClient(url, KEY, SystemClock(), verify=ssl.create_default_context(cafile=pem)) as mid:
        error = failure(mid.hello)
    assert isinstance(error, LinkFailure)
    assert not error.reached
    assert "certificate has expired: renew the certificate of the mid" in str(error)
