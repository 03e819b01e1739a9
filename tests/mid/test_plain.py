"""Mail servers that offer TLS and cannot do it: stories with a real mta process, and what is remembered of them."""

from __future__ import annotations

import socketserver
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.mid.test_mta import DEFERRED, SENT, people, replies

from midsource.mid import plain
from midsource.mid.connections import INSISTS
from midsource.mid.held import REST_SECONDS
from midsource.mid.plain import PLAIN_SECONDS, PlainServers
from midsource.net.clock import SystemClock
from midsource.net.dialer import Endpoint
from midsource.net.resolver import StaticRoute
from midsource.sandbox.certificate import make_tls
from midsource.testing.field import Field

ALERT = b"\x15\x03\x01\x00\x02\x02\x46"
"""What a server of TLS 1.0 answers to one that begins at 1.2: fatal, protocol version (RFC 8446 6)."""


class Server(socketserver.ThreadingTCPServer):
    """A mail server that offers STARTTLS. Its first ``broken`` handshakes fail; where it ``insists``, MAIL in plain is refused."""

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext, broken: int, *, insists: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Visit)
        self.tls, self.broken, self.insists = tls, broken, insists
        self.handshakes = 0
        self.kept: list[bool] = []
        self.lock = threading.Lock()

    @contextmanager
    def serving(self, domain: str) -> Iterator[StaticRoute]:
        """Serve; the value is the way to it."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        with self:
            yield StaticRoute(domain, "127.0.0.1", self.server_address[1], domain)
            self.shutdown()


class _Visit(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        server, connection, encrypted = self.server, self.request, False
        lines, say = self.rfile, connection.sendall
        say(b"220 mx\r\n")
        while line := lines.readline():
            verb = line[:4].upper()
            if verb == b"EHLO":
                say(b"250 mx\r\n" if encrypted else b"250-mx\r\n250 STARTTLS\r\n")
            elif verb == b"STAR":
                say(b"220 go\r\n")
                with server.lock:
                    server.handshakes += 1
                    fails = server.handshakes <= server.broken
                if fails:
                    connection.recv(65_536)
                    say(ALERT)
                    return
                connection = server.tls.wrap_socket(connection, server_side=True)
                lines, say, encrypted = connection.makefile("rb"), connection.sendall, True
            elif verb == b"MAIL" and server.insists and not encrypted:
                say(b"530 5.7.0 Must issue a STARTTLS command first\r\n")
            elif verb == b"DATA":
                say(b"354 go\r\n")
                while lines.readline() != b".\r\n":
                    pass
                server.kept.append(encrypted)
                say(b"250 kept\r\n")
            else:
                say(b"250 ok\r\n")


@pytest.fixture
def a_field(tmp_path: Path, mid_template: str, make_database: Callable[..., str]) -> Iterator[Field]:
    with Field(tmp_path, make_database(mid_template)) as made:
        yield made


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    return make_tls(tmp_path, "old.example", SystemClock().now())


def test_a_server_whose_tls_breaks_gets_its_mail_in_plain_text(a_field: Field, tls: ssl.SSLContext) -> None:
    """It is found out by the connections opened at once and by none after them, and said once."""
    a_field.sandbox()
    server = Server(tls, broken=1_000_000)
    with server.serving("old.example") as route:
        a_field.routes.append(route)
        a_field.mta()
        delivery = a_field.deliver(people(500, "old.example"))
        a_field.wait_finished(delivery)
    assert a_field.ledger(delivery) == {SENT: 500}
    assert server.kept == [False] * 500
    assert 1 <= server.handshakes <= a_field.connections
    assert a_field.log().count("tls.broken") == 1


@pytest.mark.slow
def test_a_server_that_insists_on_tls_is_not_blamed_for_a_broken_one(a_field: Field, tls: ssl.SSLContext) -> None:
    """One message is refused in plain text, all are put off while the destination rests, and the next try begins with TLS."""
    a_field.connections = 1
    a_field.sandbox()
    server = Server(tls, broken=1, insists=True)
    with server.serving("strict.example") as route:
        a_field.routes.append(route)
        a_field.mta()
        delivery = a_field.deliver(people(5, "strict.example"), retry_period_seconds=int(REST_SECONDS) + 2)
        a_field.wait_until(lambda: a_field.ledger(delivery) == {DEFERRED: 5})
        said = Counter(row[3] for row in replies(a_field, delivery))
        assert said == {"530 5.7.0 Must issue a STARTTLS command first": 1, INSISTS.why: 4}
        a_field.wait_finished(delivery)
    assert a_field.ledger(delivery) == {SENT: 5}
    assert (server.kept, server.handshakes) == ([True] * 5, 2)


def test_what_is_remembered_of_servers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "MOST", 3)
    servers = PlainServers()
    a, b, c, d = (Endpoint(name, "192.0.2.1") for name in "abcd")
    assert servers.add(a, 0)
    assert not servers.add(a, 1)
    assert servers.has(a, PLAIN_SECONDS - 1)
    assert not servers.has(a, PLAIN_SECONDS)
    assert servers.add(a, PLAIN_SECONDS), "it is news again"
    for one in (b, c, d):
        servers.add(one, PLAIN_SECONDS)
    assert len(servers) == 3
    assert [servers.has(one, PLAIN_SECONDS) for one in (a, b, c, d)] == [False, True, True, True]
    servers.forget(b)
    servers.forget(a)
    assert [servers.has(one, PLAIN_SECONDS) for one in (b, c)] == [False, True]
