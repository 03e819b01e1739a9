"""Where the mail of a domain goes: its MX hosts and their addresses, or why it goes nowhere.

Order of events (RFC 5321 5.1): MX; none, then the domain's own addresses (implicit MX). A null MX (RFC 7505) and a domain that
does not exist are permanent answers; SERVFAIL, time-outs and broken configuration are losses at Stage.RESOLVE, and
whose fault they are stays open (`policy.classify` blames nobody). Aliases are followed. Hosts whose addresses are
ours or no place for mail (loopback, link-local, multicast) are left out: mail would loop.

`mx` never raises for what the DNS says. Bounds: hosts, addresses, seconds and cached domains, below; identical
questions asked at once are asked once. Nothing is durable.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver
from dns.rdtypes.ANY.MX import MX

from midsource.model.clock import Clock
from midsource.model.errors import Failed
from midsource.model.outcome import Attempt, Lost, Reply, Stage
from midsource.net.cache import ExpiringCache
from midsource.net.dialer import Endpoint

MAX_HOSTS = 5
"""Hosts tried of one domain: who is not reached on the fifth is not reached on the sixth, and a liar lists thousands."""

MAX_ADDRESSES = 4
"""Addresses tried of one host; the largest providers publish five of one family."""

LOOKUP_SECONDS = 10.0
MIN_TTL_SECONDS, MAX_TTL_SECONDS = 60.0, 3600.0
"""Published times to live are kept within these: zero would ask for every message, a day would outlive a move."""

NEGATIVE_TTL_SECONDS = 300.0
TRANSIENT_TTL_SECONDS = 30.0
"""One silent name server must not be asked again for each of ten thousand messages."""

CACHED_DOMAINS = 20_000
"""About 10 MB; a list of a million people has some 15 000 domains."""


@dataclass(frozen=True, slots=True)
class MailHost:
    """One host that takes the mail of a domain; addresses in the order to try."""

    name: str
    preference: int
    addresses: tuple[str, ...]
    port: int = 25


@dataclass(frozen=True, slots=True)
class MxAnswer:
    """The hosts in the order to try; or none, and ``failure`` is the attempt this is for every message to the domain."""

    hosts: tuple[MailHost, ...] = ()
    failure: Attempt | None = None

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every place to connect to, in the order to try."""
        return tuple(Endpoint(host.name, ip, host.port) for host in self.hosts for ip in host.addresses)


class Resolver(Protocol):
    """Answers where mail goes."""

    async def mx(self, domain: str) -> MxAnswer:
        """Return the hosts of ``domain`` (A-labels, lower case)."""


@dataclass(frozen=True, slots=True)
class StaticRoute:
    """Domains matching ``mask`` (``*``, ``?``) go to ``ip:port``; ``host`` is its name for MX rules (``{domain}`` is filled in)."""

    mask: str
    ip: str
    port: int = 25
    host: str = "{domain}"


class StaticResolver:
    """A fixed map, first match wins: sandbox, smarthost, tests. The rest goes to ``otherwise``, or is put off as ours."""

    def __init__(self, routes: Sequence[StaticRoute], otherwise: Resolver | None = None) -> None:
        for route in routes:
            ipaddress.ip_address(route.ip)  # names would be looked up behind our back
        self._routes = tuple(routes)
        self._otherwise = otherwise

    async def mx(self, domain: str) -> MxAnswer:
        """Return the route of ``domain``; loopback is allowed here, since somebody wrote it down."""
        for route in self._routes:
            if fnmatchcase(domain, route.mask):
                name = route.host.replace("{domain}", domain)
                return MxAnswer((MailHost(name, 0, (route.ip,), route.port),))
        if self._otherwise is not None:
            return await self._otherwise.mx(domain)
        return _lost(f"no static route for {domain}")


class DnsResolver:
    """The DNS, by dnspython. ``chance`` in [0, 1) decides among hosts of equal preference, and addresses of one (RFC 5321 5.1)."""

    def __init__(
        self,
        clock: Clock,
        chance: Callable[[], float],
        *,
        servers: Sequence[tuple[str, int]] = (),
        ipv6: bool = False,
        own_names: frozenset[str] = frozenset(),
        own_addresses: frozenset[str] = frozenset(),
        lookup_seconds: float = LOOKUP_SECONDS,
    ) -> None:
        """Take ``servers`` (address, port), or the system's where empty; raises Failed where the system names none."""
        try:
            self._dns = dns.asyncresolver.Resolver(configure=not servers)
        except dns.resolver.NoResolverConfiguration as error:
            raise Failed("this system names no DNS server", "name one in the mid's configuration") from error
        if servers:
            self._dns.nameservers = [dns.nameserver.Do53Nameserver(ip, port) for ip, port in servers]
        self._dns.lifetime = lookup_seconds
        self._chance = chance
        self._ipv6 = ipv6
        self._own_names = own_names
        self._own_addresses = frozenset(ipaddress.ip_address(address) for address in own_addresses)
        self._cache: ExpiringCache[MxAnswer] = ExpiringCache(CACHED_DOMAINS, clock)

    async def mx(self, domain: str) -> MxAnswer:
        """Return the hosts of ``domain``, from the cache while they live."""
        return await self._cache.get(domain, self._look_up)

    async def _look_up(self, domain: str) -> tuple[MxAnswer, float]:
        """Return the answer and the seconds it may be kept."""
        try:
            named, ttl = await self._exchanges(domain)
        except dns.resolver.NXDOMAIN:
            return _refused(550, "5.1.2", f"the domain {domain} does not exist"), NEGATIVE_TTL_SECONDS
        except (dns.exception.DNSException, OSError) as error:
            return _lost(f"DNS, MX of {domain}: {_clause(error)}"), TRANSIENT_TTL_SECONDS
        if not named:
            return _refused(556, "5.1.10", f"the domain {domain} accepts no mail (null MX)"), NEGATIVE_TTL_SECONDS
        ranked = self._before_ourselves(named)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._addresses(name)) for _, name in ranked[:MAX_HOSTS]]
        found = [task.result() for task in tasks]
        hosts = tuple(
            MailHost(name, preference, addresses)
            for (preference, name), (addresses, _, _) in zip(ranked, found, strict=False)
            if addresses
        )
        if hosts:
            return MxAnswer(hosts), _clamped(min(ttl, *(seconds for addresses, seconds, _ in found if addresses)))
        return self._nowhere(domain, [why for _, _, why in found if why])

    def _nowhere(self, domain: str, troubles: list[str]) -> tuple[MxAnswer, float]:
        if troubles:
            return _lost(f"DNS, hosts of {domain}: {troubles[0]}"), TRANSIENT_TTL_SECONDS
        text = f"no mail host of {domain} has an address we may send to"
        return _refused(550, "5.4.4", text), NEGATIVE_TTL_SECONDS

    async def _exchanges(self, domain: str) -> tuple[list[tuple[int, str]], float]:
        """Return (preference, name) best first, none for a null MX, and the seconds this holds."""
        try:
            answer = await self._dns.resolve(f"{domain}.", "MX")
        except dns.resolver.NoAnswer:
            return [(0, domain)], MAX_TTL_SECONDS  # the implicit MX; its addresses bring their own time to live
        records = [record for record in answer if isinstance(record, MX)]
        named = [(record.preference, record.exchange.to_text(omit_final_dot=True).lower()) for record in records]
        named = [(preference, name) for preference, name in named if name not in ("", ".", "@")]
        drawn = sorted(sorted(named), key=lambda pair: (pair[0], self._chance()))
        return drawn, float(answer.chaining_result.minimum_ttl)

    def _before_ourselves(self, ranked: list[tuple[int, str]]) -> list[tuple[int, str]]:
        """Leave out ourselves and whoever is no better than we are (RFC 5321 5.1): they would send it back to us."""
        ours = min((preference for preference, name in ranked if name in self._own_names), default=None)
        return ranked if ours is None else [pair for pair in ranked if pair[0] < ours]

    async def _addresses(self, host: str) -> tuple[tuple[str, ...], float, str]:
        """Return usable addresses, the seconds they hold, and "" or why a family could not be asked for."""
        addresses: list[str] = []
        ttl, trouble = MAX_TTL_SECONDS, ""
        for kind in ("AAAA", "A") if self._ipv6 else ("A",):
            try:
                answer = await self._dns.resolve(f"{host}.", kind)
            except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
                continue
            except (dns.exception.DNSException, OSError) as error:
                trouble = f"{host}: {_clause(error)}"
                continue
            usable = sorted(text for text in (record.to_text() for record in answer) if self._may_connect(text))
            addresses += sorted(usable, key=lambda _: self._chance())[:MAX_ADDRESSES]
            ttl = min(ttl, float(answer.chaining_result.minimum_ttl))
        return tuple(addresses), ttl, trouble

    def _may_connect(self, text: str) -> bool:
        address = ipaddress.ip_address(text)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        nowhere = address.is_loopback or address.is_unspecified or address.is_multicast or address.is_link_local
        return not nowhere and address not in self._own_addresses


def _clamped(ttl: float) -> float:
    return max(MIN_TTL_SECONDS, min(MAX_TTL_SECONDS, ttl))


def _refused(code: int, enhanced: str, text: str) -> MxAnswer:
    return MxAnswer(failure=Attempt(Stage.RESOLVE, Reply(code, enhanced, text)))


def _lost(why: str) -> MxAnswer:
    return MxAnswer(failure=Attempt(Stage.RESOLVE, Lost(why)))


def _clause(error: Exception) -> str:
    """Return what happened in a few words: dnspython's own texts list every server and question."""
    if isinstance(error, dns.exception.Timeout):
        return "no answer in time"
    if isinstance(error, dns.resolver.NoNameservers):
        return "the name servers failed to answer"
    return str(error) or type(error).__name__
