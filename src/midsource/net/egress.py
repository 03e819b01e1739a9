"""The one client for HTTP requests to addresses that operators enter: a webhook of a supervisor.

Order of events: the name is looked up once · each of its addresses is judged, private ones are refused unless the configuration
allows them · the connection goes to an address that was judged, whatever the name says a moment later; TLS verifies the name.
Redirects are not followed, proxy variables of the environment are not read. Bounds: REQUEST_SECONDS from connecting to the last byte of the
answer (`wire.whole`), ANSWER_BYTES of it, BODY_BYTES to be sent.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import httpx2

from midsource.model.clock import Clock
from midsource.model.errors import RemoteRefused, RemoteUnavailable, UserError
from midsource.model.host import HostProblem, split_url
from midsource.wire.whole import WholeTransport

REQUEST_SECONDS = 10.0
CONNECT_SECONDS = 5.0
ANSWER_BYTES = 64_000
"""Nothing in an answer is used but its status; more than this is no answer to a webhook."""
BODY_BYTES = 512_000
"""A digest of some hundred findings is a tenth of it."""
MAX_URL = 1_000


@dataclass(frozen=True, slots=True)
class Egress:
    """Posts to addresses outside. ``private``: also to loopback and private networks. ``verify``: TLS authorities, the system's if None."""

    clock: Clock
    private: bool = False
    verify: ssl.SSLContext | None = None

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Send ``body`` and return the status, 2xx. Raises RemoteUnavailable (later may work), RemoteRefused, UserError."""
        url = check_url(url)
        if len(body) > BODY_BYTES:
            raise UserError(f"{len(body)} bytes are too many for one request", f"send at most {BODY_BYTES}")
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        address = self._judged(host, port)
        netloc = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        extensions = {"sni_hostname": host} if parts.scheme == "https" else {}
        verify = (self.verify or ssl.create_default_context()) if parts.scheme == "https" else None
        timeout = httpx2.Timeout(REQUEST_SECONDS, connect=CONNECT_SECONDS)
        transport = WholeTransport(self.clock, verify)
        try:
            with (
                httpx2.Client(transport=transport, trust_env=False, follow_redirects=False, timeout=timeout) as client,
                client.stream(
                    "POST",
                    urlunsplit((parts.scheme, netloc, parts.path or "/", parts.query, "")),
                    content=body,
                    headers={**headers, "Host": parts.netloc.rpartition("@")[2]},
                    extensions=extensions,
                ) as response,
            ):
                self._read(response, url)
                status = response.status_code
        except httpx2.ReadTimeout as exc:
            raise RemoteUnavailable(
                f"{shown(url)} did not answer within {REQUEST_SECONDS:g} s", "see its own log"
            ) from exc
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, ssl.SSLError, OSError, UnicodeError) as exc:
            why = str(exc) or type(exc).__name__
            raise RemoteUnavailable(
                f"{shown(url)} could not be reached ({why[:200]})", "check the address, its certificate and the network"
            ) from exc
        if 200 <= status < 300:
            return status
        if status in (408, 425, 429) or status >= 500:
            raise RemoteUnavailable(f"{shown(url)} answered HTTP {status}", "see its own log", status=status)
        remedy = "give the address it leads to" if 300 <= status < 400 else "check address and secret with who runs it"
        raise RemoteRefused(f"{shown(url)} answered HTTP {status}", remedy, status=status)

    def _judged(self, host: str, port: int) -> str:
        """Return an address of ``host`` that may be connected to."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            raise RemoteUnavailable(f"{host} has no address ({exc})", "check the name, and DNS") from exc
        addresses = list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))
        refused = [] if self.private else [address for address in addresses if not is_public(address)]
        if refused or not addresses:
            raise RemoteRefused(
                f"{host} leads to {', '.join(refused[:4])}, which is no public address",
                "set private_networks = true in [egress] of midsource.toml where that is meant",
            )
        return addresses[0]

    def _read(self, response: httpx2.Response, url: str) -> None:
        size = 0
        for piece in response.iter_raw():
            size += len(piece)
            if size > ANSWER_BYTES:
                raise RemoteRefused(
                    f"{shown(url)} answers with more than {ANSWER_BYTES} bytes", "check that it is a webhook"
                )


def check_url(url: str) -> str:
    """Return the address of a webhook, its host as A-labels. Raises UserError for what is none.

    A password in it is refused: it would be shown in lists.
    """
    remedy = "write it like https://alerts.example/hook"
    if len(url) > MAX_URL or not url.isprintable() or " " in url:
        raise UserError(f"{url[:200]!r} is no address of a webhook", remedy)
    try:
        parts = split_url(url)
    except HostProblem as exc:
        raise UserError(f"{url[:200]!r} is no address of a webhook ({exc})", remedy) from exc
    if parts.scheme not in ("http", "https") or parts.username or parts.fragment:
        raise UserError(f"{url[:200]!r} is no address of a webhook", remedy)
    return parts.geturl()


def shown(url: str) -> str:
    """Return an address as errors and lists show it: path and query may hold a token."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def is_public(address: str) -> bool:
    """Tell whether an IP address is one of the public network, whatever form it is written in."""
    ip = ipaddress.ip_address(address)
    mapped = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    inner = mapped if mapped is not None else ip
    return inner.is_global and not (inner.is_multicast or inner.is_reserved or inner.is_unspecified)
