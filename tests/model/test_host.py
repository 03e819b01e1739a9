from __future__ import annotations

import contextlib
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midsource.model.host import HostProblem, host_to_ascii, split_url


@pytest.mark.parametrize(
    ("host", "ascii_host"),
    [
        ("logs.example", "logs.example"),
        ("Logs.Example", "logs.example"),
        ("münchen.example", "xn--mnchen-3ya.example"),
        ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("localhost", "localhost"),
        ("mid_1", "mid_1"),
        ("logs.example.", "logs.example."),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("3com", "3com"),
        ("x" * 63, "x" * 63),
    ],
)
def test_what_is_a_host(host: str, ascii_host: str) -> None:
    assert host_to_ascii(host) == ascii_host


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("", "names no host"),
        (".", "empty label"),
        ("logs..example", "empty label"),
        (".logs.example", "empty label"),
        ("logs.example..", "empty label"),
        ("x" * 64, "longer than 63"),
        ("ü" * 64 + ".example", "international"),
        ("x." * 127 + "example", "longer than 253"),
        ("a b.example", "no host name has"),
        ("a/b", "no host name has"),
        ("-a.example", "no host name has"),
        ("xn--a.example", "international"),
        ("256.1.1.1", "no IP address"),
        ("1.2.3", "no IP address"),
        ("::1::", "no IPv6 address"),
    ],
)
def test_what_is_no_host(host: str, why: str) -> None:
    with pytest.raises(HostProblem, match=why):
        host_to_ascii(host)


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("https://münchen.example/hook?x=ü", "https://xn--mnchen-3ya.example/hook?x=ü"),
        ("http://Mid.Example:8101/", "http://mid.example:8101/"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
        ("smtp://u:p@RELAY/?to=a@b.example", "smtp://u:p@relay/?to=a@b.example"),
    ],
)
def test_a_url_keeps_all_but_the_spelling_of_its_host(url: str, read: str) -> None:
    assert split_url(url).geturl() == read


@pytest.mark.parametrize("url", ["http://[::1", "http://a.example:x", "http://a.example:99999", "/x", "http://[x]/"])
def test_what_is_no_url_of_a_host(url: str) -> None:
    with pytest.raises(HostProblem):
        split_url(url)


@given(st.text(max_size=80))
def test_whatever_is_typed_it_is_refused_or_can_be_looked_up(text: str) -> None:
    """What passes makes neither the resolver's codec nor a Host header raise (no name is looked up here)."""
    with contextlib.suppress(HostProblem):
        host_to_ascii(text).encode("idna")
    with contextlib.suppress(HostProblem):
        str(split_url(f"https://{text}/").hostname).encode("ascii")


def test_why_names_are_checked_at_the_door() -> None:
    """The resolver answers an empty label with an error of no network."""
    with pytest.raises(UnicodeError):
        socket.getaddrinfo("logs..example", 514)
