"""Against a DNS server on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta

import pytest

from midsource.model.outcome import Attempt, Lost, Reply, Stage
from midsource.net.cache import ExpiringCache
from midsource.net.dialer import Endpoint
from midsource.net.resolver import (
    MAX_ADDRESSES,
    MAX_HOSTS,
    DnsResolver,
    MailHost,
    MxAnswer,
    Resolver,
    StaticResolver,
    StaticRoute,
)
from midsource.testing.clock import ManualClock
from midsource.testing.resolver import SERVFAIL, SILENT, ZoneServer

ZONE: Mapping[str, Sequence[str] | str] = {
    "b.example MX": ["20 mx2.b.example.", "10 MX1.b.example."],
    "mx1.b.example A": ["192.0.2.1"],
    "mx1.b.example AAAA": ["2001:db8::1"],
    "mx2.b.example A": ["192.0.2.2", "192.0.2.3"],
    "implicit.example A": ["192.0.2.9"],
    "empty.example TXT": ['"nothing here"'],
    "null.example MX": ["0 ."],
    "alias.example CNAME": ["b.example."],
    "hostalias.example MX": ["10 alias2.example."],
    "alias2.example CNAME": ["mx1.b.example."],
    "fails.example MX": SERVFAIL,
    "silent.example MX": SILENT,
    "halfdead.example MX": ["10 dead.example.", "20 mx2.b.example."],
    "dead.example A": SERVFAIL,
    "alldead.example MX": ["10 dead.example."],
    "dangling.example MX": ["10 nowhere.example."],
    "loop.example MX": ["10 localhost.example."],
    "localhost.example A": ["127.0.0.1"],
    "localhost.example AAAA": ["::1"],
    "ours.example MX": ["10 better.example.", "20 mx.ours.example.", "30 worse.example."],
    "equal.example MX": ["10 mx.ours.example.", "10 worse.example."],
    "better.example A": ["192.0.2.20"],
    "worse.example A": ["192.0.2.21"],
    "mx.ours.example A": ["192.0.2.50"],
    "byaddress.example MX": ["10 mx.ours.example."],
    "many.example MX": [f"{n} host{n}.example." for n in range(30)],
    **{f"host{n}.example A": [f"192.0.2.{100 + n}"] for n in range(30)},
    "wide.example A": [f"192.0.2.{n}" for n in range(1, 20)],
    "tied.example MX": ["10 mx1.b.example.", "10 mx2.b.example."],
    "xn--bcher-kva.example A": ["192.0.2.77"],
}


def ask(domain: str, *, ipv6: bool = False, chances: Sequence[float] = (0.0,)) -> MxAnswer:
    async def story() -> MxAnswer:
        turn = iter(list(chances) * 50)
        async with ZoneServer(ZONE) as server:
            resolver: Resolver = DnsResolver(
                ManualClock(),
                lambda: next(turn),
                servers=[("127.0.0.1", server.port)],
                ipv6=ipv6,
                own_names=frozenset({"mx.ours.example"}),
                own_addresses=frozenset({"192.0.2.50"}),
                lookup_seconds=0.5,
            )
            return await resolver.mx(domain)

    return asyncio.run(story())


def test_hosts_come_in_order_of_preference() -> None:
    answer = ask("b.example")
    assert answer.hosts == (
        MailHost("mx1.b.example", 10, ("192.0.2.1",)),
        MailHost("mx2.b.example", 20, ("192.0.2.2", "192.0.2.3")),
    )
    assert answer.endpoints[0] == Endpoint("mx1.b.example", "192.0.2.1", 25)
    assert len(answer.endpoints) == 3


def test_ipv6_comes_first_where_allowed() -> None:
    assert ask("b.example", ipv6=True).hosts[0].addresses == ("2001:db8::1", "192.0.2.1")


def test_equal_preference_is_left_to_chance() -> None:
    assert [host.name for host in ask("tied.example", chances=(0.1, 0.9)).hosts] != [
        host.name for host in ask("tied.example", chances=(0.9, 0.1)).hosts
    ]


@pytest.mark.parametrize(
    ("domain", "addresses"),
    [
        ("implicit.example", ["192.0.2.9"]),
        ("alias.example", ["192.0.2.1", "192.0.2.2", "192.0.2.3"]),
        ("hostalias.example", ["192.0.2.1"]),
        ("halfdead.example", ["192.0.2.2", "192.0.2.3"]),
        ("ours.example", ["192.0.2.20"]),
        ("xn--bcher-kva.example", ["192.0.2.77"]),
    ],
)
def test_where_mail_goes(domain: str, addresses: list[str]) -> None:
    answer = ask(domain)
    assert [endpoint.ip for endpoint in answer.endpoints] == addresses
    assert answer.failure is None


@pytest.mark.parametrize(
    ("domain", "code", "enhanced"),
    [
        ("nobody.example", 550, "5.1.2"),
        ("null.example", 556, "5.1.10"),
        ("empty.example", 550, "5.4.4"),
        ("dangling.example", 550, "5.4.4"),
        ("loop.example", 550, "5.4.4"),
        ("byaddress.example", 550, "5.4.4"),
        ("equal.example", 550, "5.4.4"),
    ],
)
def test_where_mail_goes_nowhere(domain: str, code: int, enhanced: str) -> None:
    answer = ask(domain, ipv6=True)
    assert answer.hosts == ()
    assert answer.failure is not None
    assert answer.failure.stage is Stage.RESOLVE
    assert isinstance(answer.failure.answer, Reply)
    assert (answer.failure.answer.code, answer.failure.answer.enhanced) == (code, enhanced)
    assert domain in answer.failure.answer.text


@pytest.mark.parametrize(
    ("domain", "why"),
    [
        ("fails.example", "DNS, MX of fails.example: the name servers failed to answer"),
        ("silent.example", "DNS, MX of silent.example: no answer in time"),
        ("alldead.example", "DNS, hosts of alldead.example: dead.example: the name servers failed to answer"),
    ],
)
def test_a_dns_that_does_not_answer_is_a_loss_not_a_refusal(domain: str, why: str) -> None:
    assert ask(domain).failure == Attempt(Stage.RESOLVE, Lost(why))


def test_hosts_and_addresses_are_bounded() -> None:
    assert len(ask("many.example").hosts) == MAX_HOSTS
    assert len(ask("wide.example").endpoints) == MAX_ADDRESSES


def test_answers_are_kept_as_long_as_they_live_and_asked_for_once() -> None:
    async def story() -> None:
        clock = ManualClock()
        async with ZoneServer(ZONE, ttl=600) as server:
            resolver = DnsResolver(clock, lambda: 0.0, servers=[("127.0.0.1", server.port)])
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(resolver.mx("b.example")) for _ in range(20)]
            assert len({task.result() for task in tasks}) == 1
            assert server.asked["b.example MX"] == 1
            clock.advance(timedelta(seconds=599))
            await resolver.mx("b.example")
            assert server.asked["b.example MX"] == 1
            clock.advance(timedelta(seconds=2))
            await resolver.mx("b.example")
            assert server.asked["b.example MX"] == 2

    asyncio.run(story())


def test_a_failure_is_remembered_briefly() -> None:
    async def story() -> None:
        clock = ManualClock()
        async with ZoneServer(ZONE) as server:
            resolver = DnsResolver(clock, lambda: 0.0, servers=[("127.0.0.1", server.port)])
            await resolver.mx("fails.example")
            asked = server.asked["fails.example MX"]
            await resolver.mx("fails.example")
            assert server.asked["fails.example MX"] == asked
            clock.advance(timedelta(seconds=31))
            await resolver.mx("fails.example")
            assert server.asked["fails.example MX"] > asked

    asyncio.run(story())


def test_the_cache_keeps_a_bounded_number() -> None:
    async def story() -> tuple[int, list[str]]:
        asked: list[str] = []

        async def look_up(name: str) -> tuple[str, float]:
            asked.append(name)
            return name.upper(), 60

        cache: ExpiringCache[str] = ExpiringCache(2, ManualClock())
        for name in ("a", "b", "a", "c", "a", "b"):
            assert await cache.get(name, look_up) == name.upper()
        return len(cache), asked

    assert asyncio.run(story()) == (2, ["a", "b", "c", "b"])


def test_when_the_one_who_asks_is_cancelled_another_asks() -> None:
    async def story() -> str:
        begun = asyncio.Event()

        async def hang(_: str) -> tuple[str, float]:
            begun.set()
            await asyncio.Event().wait()
            raise AssertionError

        async def answer(_: str) -> tuple[str, float]:
            return "answer", 60

        cache: ExpiringCache[str] = ExpiringCache(2, ManualClock())
        async with asyncio.TaskGroup() as group:
            first = group.create_task(cache.get("a", hang))
            await begun.wait()
            second = group.create_task(cache.get("a", answer))
            await asyncio.sleep(0)
            first.cancel()
        return second.result()

    assert asyncio.run(story()) == "answer"


def test_static_routes_name_their_host_and_allow_loopback() -> None:
    async def story() -> list[MxAnswer]:
        resolver = StaticResolver(
            [
                StaticRoute("*.orange.example", "127.0.0.1", 2525, "smtp-in.orange.example"),
                StaticRoute("*.example", "::1", 2526, "mx.{domain}"),
            ]
        )
        return [await resolver.mx(name) for name in ("a.orange.example", "free.example", "b.test")]

    orange, free, other = asyncio.run(story())
    assert orange.endpoints == (Endpoint("smtp-in.orange.example", "127.0.0.1", 2525),)
    assert free.endpoints == (Endpoint("mx.free.example", "::1", 2526),)
    assert other.failure == Attempt(Stage.RESOLVE, Lost("no static route for b.test"))


def test_what_has_no_static_route_may_go_to_the_dns() -> None:
    async def story() -> MxAnswer:
        async with ZoneServer(ZONE) as server:
            dns = DnsResolver(ManualClock(), lambda: 0.0, servers=[("127.0.0.1", server.port)])
            return await StaticResolver([StaticRoute("x.example", "127.0.0.1")], dns).mx("implicit.example")

    assert asyncio.run(story()).endpoints[0].ip == "192.0.2.9"


def test_a_static_route_needs_an_address() -> None:
    with pytest.raises(ValueError, match="relay"):
        StaticResolver([StaticRoute("*", "relay.example")])
