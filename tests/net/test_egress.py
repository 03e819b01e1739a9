"""Requests to addresses that operators enter, on real sockets: what is refused, bounded, verified."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.hook import Hook, receiving

from midsource.model.errors import RemoteRefused, RemoteUnavailable, UserError
from midsource.net import egress
from midsource.net.clock import SystemClock
from midsource.net.egress import ANSWER_BYTES, BODY_BYTES, Egress, check_url, is_public, shown
from midsource.sandbox.certificate import make_tls

OPEN = Egress(SystemClock(), private=True)


@pytest.fixture
def hook() -> Iterator[Hook]:
    with receiving("/hook?x=1") as server:
        yield server


def test_a_body_arrives_as_it_is_with_the_name_of_the_host(hook: Hook) -> None:
    assert OPEN.post(hook.url, b'{"a":1}', {"X-A": "1"}) == 204
    ((path, headers, body),) = hook.seen
    assert (path, body, headers["X-A"], headers["Host"]) == ("/hook?x=1", b'{"a":1}', "1", hook.url.split("/")[2])


def test_private_addresses_are_refused_unless_the_configuration_allows_them(hook: Hook) -> None:
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(RemoteRefused, match="no public address: set private_networks = true"):
            Egress(SystemClock()).post(hook.url.replace("127.0.0.1", host), b"{}", {})
    assert hook.seen == []


@pytest.mark.parametrize(
    "address",
    ["10.1.2.3", "172.16.0.1", "192.168.1.1", "127.0.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "2002:7f00:1::", "::"],
)  # fmt: skip
def test_what_is_no_public_address(address: str) -> None:
    assert not is_public(address)


def test_what_is_a_public_address() -> None:
    assert is_public("93.184.216.34")
    assert is_public("2606:2800:220:1:248:1893:25c8:1946")


@pytest.mark.parametrize(
    ("status", "kind"), [(302, RemoteRefused), (404, RemoteRefused), (429, RemoteUnavailable), (503, RemoteUnavailable)]
)
def test_an_answer_that_is_no_success(hook: Hook, status: int, kind: type[Exception]) -> None:
    hook.status = status
    with pytest.raises(kind, match=f"HTTP {status}"):
        OPEN.post(hook.url, b"{}", {})
    assert len(hook.seen) == 1, "redirects are not followed"


def test_bounds(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="too many"):
        OPEN.post(hook.url, b"x" * (BODY_BYTES + 1), {})
    hook.status, hook.answer = 200, b"x" * (ANSWER_BYTES + 1)
    with pytest.raises(RemoteRefused, match="more than"):
        OPEN.post(hook.url, b"{}", {})
    monkeypatch.setattr(egress, "REQUEST_SECONDS", 0.0)
    hook.answer = b"x"
    with pytest.raises(RemoteUnavailable):
        OPEN.post(hook.url, b"{}", {})


def test_nobody_there_and_no_such_name() -> None:
    with pytest.raises(RemoteUnavailable, match="could not be reached"):
        OPEN.post("http://127.0.0.1:9/x", b"{}", {})
    with pytest.raises(RemoteUnavailable, match="no address"):
        OPEN.post("http://nothing.invalid/x", b"{}", {})


def test_tls_verifies_the_name_though_the_address_is_pinned(hook: Hook, tmp_path: Path) -> None:
    context = make_tls(tmp_path, "localhost", SystemClock().now())
    hook.socket = context.wrap_socket(hook.socket, server_side=True)
    url = hook.url.replace("http://127.0.0.1", "https://localhost")
    trusting = Egress(SystemClock(), private=True, verify=ssl.create_default_context(cafile=str(tmp_path / "tls.pem")))
    assert trusting.post(url, b"{}", {}) == 204
    with pytest.raises(RemoteUnavailable, match="certificate"):
        OPEN.post(url, b"{}", {})  # the system does not know who signed it


def test_a_certificate_of_another_name_is_refused(hook: Hook, tmp_path: Path) -> None:
    hook.socket = make_tls(tmp_path, "other.test", SystemClock().now()).wrap_socket(hook.socket, server_side=True)
    trusting = Egress(SystemClock(), private=True, verify=ssl.create_default_context(cafile=str(tmp_path / "tls.pem")))
    with pytest.raises(RemoteUnavailable, match="localhost"):
        trusting.post(hook.url.replace("http://127.0.0.1", "https://localhost"), b"{}", {})


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.example/",
        "https://",
        "https://u:p@a.example/",
        "https://a.example:x/",
        "https://a.example/ b",
        "https://a.example/#x",
        "/x",
        "http://[::1",
        "https://a..example/",
        f"https://{'x' * 64}.example/",
        "https://xn--a.example/",
    ],
)
def test_what_is_no_address_of_a_webhook(url: str) -> None:
    with pytest.raises(UserError):
        check_url(url)


def test_a_host_in_any_script_is_named_to_its_server_in_ascii(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the look-up is not the real one: no resolver knows this name."""
    asked: list[str] = []

    def found(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr("midsource.net.egress.socket.getaddrinfo", found)
    url = hook.url.replace("127.0.0.1", "München.example")
    assert check_url(url) == hook.url.replace("127.0.0.1", "xn--mnchen-3ya.example")
    assert OPEN.post(url, b"{}", {}) == 204
    assert hook.seen[0][1]["Host"].partition(":")[0] == asked[0] == "xn--mnchen-3ya.example"


def test_a_token_in_the_path_is_not_shown() -> None:
    assert shown("https://alerts.example:8443/T0KEN?k=1") == "https://alerts.example:8443"
