"""What the sandbox holds, asked from its JSON on the loopback interface (sandbox/web.py), with a limit on time and bytes.

The port stands in ``<home>/sandbox/ports.json`` while the sandbox runs. A sandbox that is down, slow, or something else at
its port is an answer (``Unreachable``), not an exception: the page says it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

import httpx2
import msgspec

from midsource.config import Config
from midsource.model.errors import NotFound

ANSWER_SECONDS = 1.0
"""All of it, connecting to last byte: the sandbox is on this machine."""
MAX_BYTES = 4_000_000
"""A summary names 5 000 domains and 5 000 deliveries at most, well under this."""
MESSAGES = 25
PROVIDERS = 15
_MAX_PORTS_FILE = 10_000
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Its pages are plain HTTP; without this a client reads the system's certificates first, 20 ms a page."""

T = TypeVar("T")


class Counted(msgspec.Struct, frozen=True):
    """Messages of one kind."""

    received: int = 0
    distinct: int = 0
    unanswered: int = 0


class Summary(msgspec.Struct, frozen=True):
    """The sandbox in figures."""

    received: int
    distinct: int
    duplicates: int
    unanswered: int
    by_domain: Mapping[str, Counted] = {}
    by_personality: Mapping[str, Counted] = {}
    refused_since_start: Mapping[str, int] = {}

    @property
    def refused(self) -> int:
        """Messages it said no to since it started."""
        return sum(self.refused_since_start.values())

    @property
    def providers(self) -> Sequence[tuple[str, Counted]]:
        """The largest domains."""
        return sorted(self.by_domain.items(), key=lambda item: (-item[1].distinct, item[0]))[:PROVIDERS]

    @property
    def personalities(self) -> Sequence[tuple[str, Counted]]:
        """How its providers behaved, the most frequent first."""
        return sorted(self.by_personality.items(), key=lambda item: (-item[1].distinct, item[0]))

    @property
    def others(self) -> int:
        """Distinct messages of the domains that are not among ``providers``."""
        return self.distinct - sum(counted.distinct for _, counted in self.providers)


class Message(msgspec.Struct, frozen=True):
    """One message as the inbox lists it."""

    n: int
    at: datetime
    rcpt: str
    subject: str
    answered: bool
    duplicate: bool


class Messages(msgspec.Struct, frozen=True):
    """Messages, newest first. ``after``: the number below which the next page goes on; None: there is none older."""

    messages: tuple[Message, ...]
    after: int | None = None


class Mail(msgspec.Struct, frozen=True):
    """One message, read. ``kept`` False: only its line is still there, and headers, text and html are None."""

    n: int
    at: datetime
    mail_from: str
    rcpt: str
    subject: str
    message_id: str
    delivery: str
    size: int
    personality: str
    answered: bool
    duplicate: bool
    tls: bool
    kept: bool
    headers: tuple[tuple[str, str], ...] | None = None
    text: str | None = None
    html: str | None = None
    attachments: tuple[str, ...] | None = None
    problems: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for: in recipient, sender, subject and Message-ID; of one domain; of one delivery; older than ``after``."""

    text: str = ""
    domain: str = ""
    delivery: str = ""
    after: int | None = None

    @property
    def is_newest(self) -> bool:
        """Whether nothing is looked for: the newest messages."""
        return self == Query()

    @property
    def fields(self) -> dict[str, str]:
        """What is asked for, as an address has it."""
        found = {"q": self.text, "domain": self.domain, "delivery": self.delivery}
        return {name: value for name, value in found.items() if value}


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Why nothing can be shown: ``why`` is the last part of a text's key; '' : there is no sandbox."""

    why: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Held:
    """What the sandbox holds, and the address of its own pages."""

    address: str
    summary: Summary
    messages: Sequence[Message]
    after: int | None = None


class _Ports(msgspec.Struct, frozen=True):
    http: int


class Inbox:
    """Asks the sandbox of one home."""

    def __init__(self, config: Config) -> None:
        self._ports = config.home / "sandbox" / "ports.json"
        beside = [mid.name for mid in config.instances if mid.role == "mid" and mid.transport == "sandbox"]
        self._process = f"sandbox@{beside[0]}" if beside and config.sandbox.enabled else ""

    async def look(self, query: Query | None) -> Held | Unreachable:
        """Return what it holds, with the messages of ``query`` (None: none)."""

        async def ask(client: httpx2.AsyncClient, address: str) -> Held:
            summary = await _ask(client, "/summary.json", Summary)
            found = Messages(())
            if query is not None:
                after = {} if query.after is None else {"after": str(query.after)}
                asked = urlencode({"limit": str(MESSAGES), **query.fields, **after})
                found = await _ask(client, f"/inbox.json?{asked}", Messages)
            return Held(address, summary, found.messages, found.after)

        return await self._asked(ask)

    async def mail(self, number: int) -> Mail | Unreachable:
        """Return one message. Raises NotFound."""

        async def ask(client: httpx2.AsyncClient, _address: str) -> Mail:
            return await _ask(client, f"/inbox/{number}.json", Mail)

        return await self._asked(ask)

    async def raw(self, number: int) -> bytes | Unreachable:
        """Return a message exactly as it arrived. Raises NotFound, also where it is not kept any more."""

        async def ask(client: httpx2.AsyncClient, _address: str) -> bytes:
            return await _body(client, f"/inbox/{number}/raw")

        return await self._asked(ask)

    async def _asked(self, ask: Callable[[httpx2.AsyncClient, str], Awaitable[T]]) -> T | Unreachable:
        port = self._port()
        if port is None:
            return Unreachable("stopped", {"name": self._process}) if self._process else Unreachable("absent", {})
        address = f"http://127.0.0.1:{port}"
        try:
            async with asyncio.timeout(ANSWER_SECONDS), _client(address) as client:
                return await ask(client, address)
        except (TimeoutError, httpx2.TimeoutException):
            return Unreachable("slow", {"seconds": int(ANSWER_SECONDS)})
        except httpx2.ConnectError:
            return Unreachable("refuses", {})
        except (httpx2.HTTPError, msgspec.MsgspecError, _NotTheSandbox):
            return Unreachable("garbled", {})

    def _port(self) -> int | None:
        try:
            with self._ports.open("rb") as file:
                return msgspec.json.decode(file.read(_MAX_PORTS_FILE), type=_Ports).http
        except (OSError, msgspec.MsgspecError):
            return None


class _NotTheSandbox(Exception):
    """Another status, or more bytes than a sandbox says."""


def _client(address: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        base_url=address, timeout=ANSWER_SECONDS, trust_env=False, follow_redirects=False, verify=_NO_TLS
    )


async def _ask(client: httpx2.AsyncClient, path: str, shape: type[T]) -> T:
    return msgspec.json.decode(await _body(client, path), type=shape)


async def _body(client: httpx2.AsyncClient, path: str) -> bytes:
    body = bytearray()
    async with client.stream("GET", path) as answer:
        if answer.status_code == 404 and path.startswith("/inbox/"):
            raise NotFound("the sandbox holds no message of that number", "it was cleared, or is not kept any more")
        if answer.status_code != 200:
            raise _NotTheSandbox
        async for piece in answer.aiter_bytes():
            body += piece
            if len(body) > MAX_BYTES:
                raise _NotTheSandbox
    return bytes(body)
