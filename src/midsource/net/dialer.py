"""Opens the sockets mail leaves by: TCP without delay, TLS on demand. The one place that connects to a mail server."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect: the MX host's name (rules and TLS know it by name), one of its addresses, the port."""

    host: str
    ip: str
    port: int = 25

    def __str__(self) -> str:
        """Return it as a mail log writes it."""
        return f"{self.host}[{self.ip}]:{self.port}"


class Dialer(Protocol):
    """Connects a protocol to an endpoint."""

    async def connect(
        self, endpoint: Endpoint, protocol: asyncio.Protocol, timeout_seconds: float, source_ip: str | None = None
    ) -> None:
        """Connect; ``protocol.connection_made`` is called. Raises OSError (TimeoutError among them)."""

    async def start_tls(
        self, transport: asyncio.Transport, protocol: asyncio.Protocol, host: str, timeout_seconds: float
    ) -> asyncio.Transport:
        """Do the handshake and return the encrypted transport. Raises OSError (ssl.SSLError among them)."""


class TcpDialer:
    """The real one. TLS is opportunistic: any certificate is better than plain text (RFC 7435), versions 1.2 and up."""

    def __init__(self, tls_context: ssl.SSLContext | None = None) -> None:
        self._tls_context = tls_context or opportunistic_context()

    async def connect(
        self, endpoint: Endpoint, protocol: asyncio.Protocol, timeout_seconds: float, source_ip: str | None = None
    ) -> None:
        """Connect from ``source_ip`` (None: as the system chooses)."""
        try:
            async with asyncio.timeout(timeout_seconds):
                transport, _ = await asyncio.get_running_loop().create_connection(
                    lambda: protocol,
                    endpoint.ip,
                    endpoint.port,
                    local_addr=(source_ip, 0) if source_ip else None,
                    flags=socket.AI_NUMERICHOST,  # names are the resolver's: a second, unbounded look-up hides here
                )
        except TimeoutError as error:
            raise TimeoutError(f"no connection within {timeout_seconds:g} s") from error
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def start_tls(
        self, transport: asyncio.Transport, protocol: asyncio.Protocol, host: str, timeout_seconds: float
    ) -> asyncio.Transport:
        """Do the handshake, naming ``host`` to the server."""
        upgraded = await asyncio.get_running_loop().start_tls(
            transport,
            protocol,
            self._tls_context,
            server_hostname=host,
            ssl_handshake_timeout=timeout_seconds,
        )
        if upgraded is None:  # the connection closed under the handshake
            raise ConnectionAbortedError("the connection closed during the TLS handshake")
        return upgraded


def opportunistic_context() -> ssl.SSLContext:
    """Return a client context that encrypts without judging the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
