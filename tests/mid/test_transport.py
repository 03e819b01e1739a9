from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from midsource.config import Config, InstanceConfig
from midsource.mid import transport
from midsource.mid.transport import SandboxResolver, resolver_of
from midsource.model.outcome import Lost
from midsource.net.clock import SystemClock
from midsource.net.dialer import Endpoint


def test_a_fresh_instance_mails_the_sandbox_of_its_home_only(tmp_path: Path) -> None:
    (tmp_path / "sandbox").mkdir()
    (tmp_path / "sandbox" / "ports.json").write_text(
        json.dumps({"smtp": 4025, "mx": {"gmail.example": "mx.g.example"}})
    )
    instance = InstanceConfig("mid1", "mid")
    resolver = resolver_of(Config(tmp_path, instances=(instance,)), instance, SystemClock())
    assert isinstance(resolver, SandboxResolver)
    for domain, host in (
        ("gmail.example", "mx.g.example"),
        ("gmail.com", "mx.gmail.com"),
        ("localhost", "mx.localhost"),
    ):
        assert asyncio.run(resolver.mx(domain)).endpoints == (Endpoint(host, "127.0.0.1", 4025),)


def test_a_sandbox_that_starts_a_moment_later_is_waited_for(tmp_path: Path) -> None:
    async def story() -> tuple[Endpoint, ...]:
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(SandboxResolver(tmp_path).mx("a.example"))
            await asyncio.sleep(0.3)
            (tmp_path / "sandbox").mkdir()
            (tmp_path / "sandbox" / "ports.json").write_text('{"smtp": 4025}')
        return asked.result().endpoints

    assert asyncio.run(story()) == (Endpoint("mx.a.example", "127.0.0.1", 4025),)


@pytest.mark.parametrize("content", [None, "", "[]", '{"smtp": "x"}'])
def test_a_sandbox_that_does_not_run_puts_mail_off(
    tmp_path: Path, content: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "STARTING_SECONDS", 0.0)
    if content is not None:
        (tmp_path / "sandbox").mkdir()
        (tmp_path / "sandbox" / "ports.json").write_text(content)
    answer = asyncio.run(SandboxResolver(tmp_path).mx("a.example"))
    assert answer.endpoints == ()
    assert answer.failure is not None
    assert answer.failure.answer == Lost("the sandbox does not run")


def test_a_smarthost_takes_every_domain() -> None:
    instance = InstanceConfig("mid1", "mid", transport="smarthost", smarthost="127.0.0.1:2526")
    resolver = resolver_of(Config(Path("/nowhere"), instances=(instance,)), instance, SystemClock())
    for domain in ("a.example", "gmail.com"):
        assert asyncio.run(resolver.mx(domain)).endpoints == (Endpoint("127.0.0.1", "127.0.0.1", 2526),)


def test_a_smarthost_without_an_address_puts_mail_off() -> None:
    instance = InstanceConfig("mid1", "mid", transport="smarthost", smarthost="no-such-host.invalid:25")
    resolver = resolver_of(Config(Path("/nowhere"), instances=(instance,)), instance, SystemClock())
    answer = asyncio.run(resolver.mx("a.example"))
    assert answer.failure is not None
    assert "no-such-host.invalid has no address" in str(answer.failure.answer)
