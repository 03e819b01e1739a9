"""One message to a syslog server: RFC 5424, one datagram over UDP (RFC 5426), or octet-counted over TCP (RFC 6587).

UDP tells nothing of its arrival: what can be noticed is a host without an address and a port that refuses at once. Bounds:
MAX_BYTES a message, SECONDS for connection and sending.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from midsource.model.errors import RemoteUnavailable

MAX_BYTES = 2_000
"""Receivers take 2 048 bytes at least (RFC 5424 6.1)."""
SECONDS = 5.0
FACILITY = 16
"""local0."""
SEVERITY = {"critical": 2, "error": 3, "warning": 4, "info": 6}
_ENTERPRISE = "midsource@32473"
"""The number that RFC 5612 keeps for examples: we have none of our own."""
_LINE = re.compile(r"[\x00-\x1f\x7f]+")
Protocol = Literal["udp", "tcp"]


def message(severity: str, at: datetime, host: str, message_id: str, data: Mapping[str, str], text: str) -> bytes:
    """Return one RFC 5424 message. ``text`` is put on one line and cut at the bound; structured data is kept whole."""
    stamp = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    pairs = " ".join(f'{name}="{_value(value)}"' for name, value in data.items())
    head = (
        f"<{FACILITY * 8 + SEVERITY[severity]}>1 {stamp} {_name(host, 255)} midsource - {_name(message_id, 32)} "
        f"[{_ENTERPRISE} {pairs}] "
    ).encode()
    body = b"\xef\xbb\xbf" + _LINE.sub(" ", text).encode()
    room = max(0, MAX_BYTES - len(head))
    return head + body[:room].decode("utf-8", "ignore").encode()


def send(protocol: Protocol, host: str, port: int, datagram: bytes) -> None:
    """Send one message. Raises RemoteUnavailable."""
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=kind)[0]
        with socket.socket(family, kind) as sock:
            sock.settimeout(SECONDS)
            sock.connect(address)
            if protocol == "udp":
                sock.send(datagram)
                _refused_at_once(sock)
            else:
                sock.sendall(f"{len(datagram)} ".encode() + datagram)
    except (OSError, UnicodeError) as exc:
        why = (exc.strerror if isinstance(exc, OSError) else "") or exc
        raise RemoteUnavailable(
            f"the syslog server at {host}:{port} ({protocol}) cannot be reached ({why})",
            "check that it listens there, and firewalls",
        ) from exc


def _refused_at_once(sock: socket.socket) -> None:
    """Raise what the system already knows: a port nobody listens at is refused within the machine's round trip."""
    sock.settimeout(0.1)
    try:
        sock.recv(1)
    except TimeoutError:
        return


def _name(text: str, most: int) -> str:
    return re.sub(r"[^\x21-\x7e]", "_", text)[:most] or "-"


def _value(text: str) -> str:
    return re.sub(r'(["\\\]])', r"\\\1", _LINE.sub(" ", text))[:200]
