"""Syslog messages as RFC 5424 has them, and on real sockets."""

from __future__ import annotations

import re
import socket
from datetime import UTC, datetime

import pytest

from midsource.model.errors import RemoteUnavailable
from midsource.net import syslog

AT = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def test_a_message_is_what_the_rfc_says() -> None:
    made = syslog.message(
        "critical", AT, "host one", "opened", {"instance": "mid1", "subject": 'a"]\\'}, "it\nstands still: é"
    )
    assert made == (
        b"<130>1 2026-03-01T12:00:00.123Z host_one midsource - opened "
        b'[midsource@32473 instance="mid1" subject="a\\"\\]\\\\"] \xef\xbb\xbfit stands still: \xc3\xa9'
    )


@pytest.mark.parametrize(("severity", "number"), [("critical", 2), ("error", 3), ("warning", 4), ("info", 6)])
def test_severities(severity: str, number: int) -> None:
    made = syslog.message(severity, AT, "h", "x", {"a": "b"}, "t")
    assert made.startswith(f"<{16 * 8 + number}>1 ".encode())


def test_a_long_text_is_cut_at_a_character() -> None:
    made = syslog.message("error", AT, "h", "x", {"a": "b" * 500}, "é" * 5_000)
    assert len(made) <= syslog.MAX_BYTES
    assert re.search("é$", made.decode())


def test_a_datagram_arrives() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        syslog.send("udp", "127.0.0.1", server.getsockname()[1], b"<130>1 hello")
        assert server.recv(100) == b"<130>1 hello"


def test_octets_are_counted_over_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        syslog.send("tcp", "127.0.0.1", server.getsockname()[1], b"<130>1 hello")
        connection, _ = server.accept()
        with connection:
            assert connection.recv(100) == b"12 <130>1 hello"


def test_a_name_that_no_resolver_takes_is_a_server_that_cannot_be_reached() -> None:
    with pytest.raises(RemoteUnavailable, match="cannot be reached"):
        syslog.send("udp", "logs..example", 514, b"x")


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_nobody_listens(protocol: syslog.Protocol) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(RemoteUnavailable, match="cannot be reached"):
            syslog.send(protocol, "127.0.0.1", taken.getsockname()[1], b"x")
