"""Where a mid's mail goes: the sandbox until the operator says otherwise, a smarthost, or the MX hosts of the world.

*sandbox*: every domain is the sink on this machine, whose port is in ``<home>/sandbox/ports.json`` while it runs; each
domain keeps the MX host name the sink announces for it. Not running: it is waited for, then messages are put off.
There is no way from here to the real world: neither DNS nor any other address is ever asked. *smarthost*: every domain
is that host and port. *mx*: the DNS.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import random
import socket
import time
from pathlib import Path
from typing import Any

from midsource.config import Config, InstanceConfig
from midsource.model.clock import Clock
from midsource.model.outcome import Attempt, Lost, Stage
from midsource.net.resolver import DnsResolver, MailHost, MxAnswer, Resolver
from midsource.smtp.events import Pipelining

PORTS_SECONDS = 1.0
"""How long what the sandbox announced is believed: it may be started anew on another port."""
STARTING_SECONDS = 15.0
"""How long a sandbox that does not run is waited for: processes of a home start side by side, and a message that is put off
waits for its retry period."""
POLL_SECONDS = 0.1
SMARTHOST_SECONDS = 60.0
"""How long a smarthost's address is believed."""
SANDBOX_HOST = "127.0.0.1"


class SandboxResolver:
    """Every domain is the sandbox of this home."""

    def __init__(self, home: Path) -> None:
        self._path = home / "sandbox" / "ports.json"
        self._read_at = float("-inf")
        self._ports: dict[str, Any] | None = None

    async def mx(self, domain: str) -> MxAnswer:
        """Return the sink under the name it has for ``domain``."""
        started = time.monotonic()
        while self._ports is None or time.monotonic() - self._read_at > PORTS_SECONDS:
            self._ports, self._read_at = self._read(), time.monotonic()
            if self._ports is not None or self._read_at - started > STARTING_SECONDS:
                break
            await asyncio.sleep(POLL_SECONDS)
        if self._ports is None:
            return MxAnswer(failure=Attempt(Stage.RESOLVE, Lost("the sandbox does not run")))
        name = self._ports.get("mx", {}).get(domain, f"mx.{domain}")
        return MxAnswer((MailHost(name, 0, (SANDBOX_HOST,), int(self._ports["smtp"])),))

    def _read(self) -> dict[str, Any] | None:
        try:
            ports = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return ports if isinstance(ports, dict) and isinstance(ports.get("smtp"), int) else None


class SmarthostResolver:
    """Every domain is one host, by name or address."""

    def __init__(self, host: str, port: int, *, ipv6: bool) -> None:
        self._host, self._port = host, port
        self._family = socket.AF_UNSPEC if ipv6 else socket.AF_INET
        self._asked_at = float("-inf")
        self._answer = MxAnswer()

    async def mx(self, domain: str) -> MxAnswer:  # noqa: ARG002 - every domain alike
        """Return the smarthost; a name that cannot be resolved puts messages off and blames nobody."""
        if time.monotonic() - self._asked_at > SMARTHOST_SECONDS or self._answer.failure is not None:
            self._answer, self._asked_at = await self._ask(), time.monotonic()
        return self._answer

    async def _ask(self) -> MxAnswer:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                self._host, self._port, family=self._family, type=socket.SOCK_STREAM
            )
        except OSError as error:
            why = f"the smarthost {self._host} has no address ({error.strerror or error})"
            return MxAnswer(failure=Attempt(Stage.RESOLVE, Lost(why)))
        addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))[:4]
        return MxAnswer((MailHost(self._host, 0, addresses, self._port),))


def resolver_of(config: Config, instance: InstanceConfig, clock: Clock) -> Resolver:
    """Return who answers where mail goes, as ``instance.transport`` says. Raises Failed where DNS is not set up."""
    match instance.transport:
        case "sandbox":
            return SandboxResolver(config.home)
        case "smarthost":
            host, _, port = instance.smarthost.rpartition(":")
            return SmarthostResolver(host.strip("[]"), int(port), ipv6=instance.ipv6)
        case "mx":
            return DnsResolver(
                clock, random.random, ipv6=instance.ipv6,
                own_names=frozenset({instance.helo.lower(), "localhost"}), own_addresses=_own_addresses(),
            )  # fmt: skip


def pipelining_of(instance: InstanceConfig) -> Pipelining:
    """Return how much is said before listening: across messages where the server is ours or a proven one (design 7)."""
    return Pipelining.GROUPED if instance.transport == "mx" else Pipelining.ACROSS


def _own_addresses() -> frozenset[str]:
    """Return the addresses this machine's name stands for: mail to them would loop."""
    try:
        found = socket.getaddrinfo(socket.gethostname(), None)
    except OSError:
        return frozenset()
    return frozenset(str(ipaddress.ip_address(str(entry[4][0]).partition("%")[0])) for entry in found)
