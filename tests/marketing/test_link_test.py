"""The link tried step by step, over real sockets: where it breaks is the step that says so, and nothing after it is tried."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from midsource.marketing import accounts, link_test
from midsource.marketing.link_test import LinkTest, Outcome
from midsource.model.errors import NotFound
from midsource.testing.link import LinkedHalves
from midsource.testing.proxy import Answer, FaultProxy

NAME = accounts.DEFAULT_NAME


def tried(halves: LinkedHalves, url: str = "") -> LinkTest:
    if url:
        halves.link_to(url)
    return link_test.run(halves.marketing, halves.home, NAME, halves.clock)


def outcomes(found: LinkTest) -> dict[str, Outcome]:
    return {step.name: step.outcome for step in found.steps}


def test_each_step_of_a_link_that_works_says_what_it_found(halves: LinkedHalves) -> None:
    with halves.mid.connection() as conn:
        conn.execute("insert into process (name, kind, host, pid, executor) values ('mta@mid', 'mta', 'here', 1, 'x')")
    found = tried(halves)
    assert found.problems == ()
    told = {step.name: step.told for step in found.steps}
    assert list(told) == [name for name in link_test.STEPS if name != "tls"], "there is none to a plain address"
    assert told["name"] == "127.0.0.1"
    assert told["connection"].startswith("127.0.0.1 port ")
    assert "version" in told["mid"]
    assert (told["protocol"], told["dispatch"]) == ("1", "on")


def test_a_host_that_has_no_address(halves: LinkedHalves) -> None:
    found = tried(halves, "https://mid.invalid")
    assert found.steps[1].name == "name"
    assert "has no address" in found.steps[1].problem
    assert set(list(outcomes(found).values())[2:]) == {Outcome.UNTRIED}
    assert "tls" in outcomes(found)


def test_nobody_who_listens(halves: LinkedHalves) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = tried(halves, f"http://127.0.0.1:{port}")
    assert outcomes(found)["connection"] is Outcome.FAILED
    assert "nobody listens" in found.problems[0]
    assert outcomes(found)["mid"] is Outcome.UNTRIED
    with halves.marketing.connection() as conn:
        assert "nobody listens" in accounts.get(conn, NAME).last_problem


@contextmanager
def greeting(words: bytes) -> Iterator[int]:
    """Listen, and say ``words`` to the first who comes; then nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held = []

        def serve() -> None:
            peer, _ = listener.accept()
            held.append(peer)
            peer.sendall(words)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)
        for peer in held:
            peer.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [(b"220 mail.example ESMTP\r\n", "does not speak TLS"), (b"", "did not shake hands within 0 s")],
    ids=["another protocol", "silence"],
)
def test_a_server_that_speaks_no_tls(
    halves: LinkedHalves, words: bytes, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_test, "CONNECT_SECONDS", 0.3)
    with greeting(words) as port:
        found = tried(halves, f"https://127.0.0.1:{port}")
    assert outcomes(found)["tls"] is Outcome.FAILED
    assert said in found.problems[0]


@pytest.mark.parametrize(
    ("answer", "failed", "fine"),
    [
        (Answer(200, (), b"<html>", "text/html"), "mid", "connection"),
        (Answer(503), "mid", "connection"),
        (
            Answer(401, (), b'{"code":"MS-430","cause":"the key is not one of this mid\'s"}', "application/json"),
            "key",
            "mid",
        ),
        (
            Answer(426, (), b'{"code":"MS-440","cause":"this mid speaks protocol 2"}', "application/json"),
            "protocol",
            "key",
        ),
    ],
    ids=["another server", "overloaded", "another key", "another protocol"],
)
def test_what_a_call_is_refused_for(halves: LinkedHalves, answer: Answer, failed: str, fine: str) -> None:
    with FaultProxy(1, lambda _seen: answer) as proxy:
        found = tried(halves, proxy.url)
    assert outcomes(found)[fine] is Outcome.FINE
    assert outcomes(found)[failed] is Outcome.FAILED
    assert found.steps[-1].outcome is Outcome.UNTRIED
    assert found.problems[0].endswith(".")


def test_an_account_that_is_off_is_not_called(halves: LinkedHalves) -> None:
    with halves.marketing.transaction() as conn:
        accounts.set_active(conn, NAME, active=False)
    found = tried(halves)
    assert outcomes(found)["stored"] is Outcome.FAILED
    assert "switched off" in found.problems[0]


def test_an_unknown_account_is_no_answer(halves: LinkedHalves) -> None:
    with pytest.raises(NotFound):
        link_test.run(halves.marketing, halves.home, "other", halves.clock)
