"""One mail by a relay: into the sandbox, and where it does not go."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from tests.sandbox.sandbox_process import RunningSandbox, sandbox_starter

from midsource.model.errors import RemoteRefused, RemoteUnavailable
from midsource.net import relay

MAIL = b"Subject: hello\r\nMessage-ID: <1@x.test>\r\n\r\n.a dot first\r\n"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    with sandbox_starter() as start:
        yield start(tmp_path_factory.mktemp("home"))


def test_a_mail_arrives_as_it_is(sandbox: RunningSandbox) -> None:
    said = relay.send("127.0.0.1", sandbox.smtp_port, "tests.test", "a@x.test", "ops@y.test", MAIL)
    assert said.startswith("250")
    (kept,) = sandbox.json("/inbox.json")["messages"]
    raw = sandbox.get(f"/inbox/{kept['n']}/raw")[2]
    assert b"\n.a dot first" in raw
    assert b"ops@y.test" in raw + str(kept).encode()


def test_a_refusal_for_good_and_one_for_now(sandbox: RunningSandbox) -> None:
    with pytest.raises(RemoteRefused, match=r"550 5\.1\.1"):
        relay.send("127.0.0.1", sandbox.smtp_port, "tests.test", "a@x.test", "ops@nobody.test", MAIL)
    with pytest.raises(RemoteUnavailable, match="451"):
        relay.send("127.0.0.1", sandbox.smtp_port, "tests.test", "a@x.test", "ops@greylist.test", MAIL)


def test_nobody_listens_and_no_such_host() -> None:
    with pytest.raises(RemoteUnavailable, match="no connection"):
        relay.send("127.0.0.1", 9, "tests.test", "a@x.test", "b@y.test", MAIL)
    with pytest.raises(RemoteUnavailable, match="no address"):
        relay.send("nothing.invalid", 25, "tests.test", "a@x.test", "b@y.test", MAIL)
    with pytest.raises(RemoteUnavailable, match="no address"):
        relay.send("relay..example", 25, "tests.test", "a@x.test", "b@y.test", MAIL)


def test_a_server_that_says_nothing_costs_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "SECONDS", 0.3)

    def take() -> None:
        with server.accept()[0] as client:
            client.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = threading.Thread(target=take)
        silent.start()
        with pytest.raises(RemoteUnavailable, match=r"no answer within 0\.3 s"):
            relay.send("127.0.0.1", server.getsockname()[1], "tests.test", "a@x.test", "b@y.test", MAIL)
        silent.join(10)
