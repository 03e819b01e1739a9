"""Host names and URLs that operators enter, read once into what sockets, TLS and HTTP take.

A host is an IP address, or a name as lower-case A-labels (IDNA 2008, UTS 46 mapping). Unlike the domain of a mailbox it may be one label
(``localhost``), end in a dot and hold underscores: inside networks there are such names, and they resolve. What is refused here would make
a resolver raise something else than "no such host".
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

import idna

from midsource.model.address import DOMAIN_OCTETS, LABEL_OCTETS

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")


class HostProblem(ValueError):
    """The text names no host; its one clause says why and may be shown to an operator."""


def host_to_ascii(host: str) -> str:
    """Return ``host`` (without brackets) as it is looked up and named to a server; raises HostProblem."""
    if not host:
        raise HostProblem("it names no host")
    if ":" in host:
        return _ipv6(host)
    if not host.isascii() or "xn--" in host.lower():
        try:
            host = idna.encode(host, uts46=True, transitional=False).decode("ascii")
        except (idna.IDNAError, UnicodeError) as error:
            raise HostProblem("its host is not a valid international domain name") from error
    host = host.lower()
    _check(host.removesuffix("."))
    return host


def split_url(url: str) -> SplitResult:
    """Return ``url`` in parts, its host as `host_to_ascii` says; ``port`` then never raises. Raises HostProblem."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise HostProblem("its host or port cannot be read") from error
    host = host_to_ascii(parts.hostname or "")
    user, at, _ = parts.netloc.rpartition("@")
    netloc = f"{user}{at}[{host}]" if ":" in host else f"{user}{at}{host}"
    return parts._replace(netloc=netloc if port is None else f"{netloc}:{port}")


def _ipv6(host: str) -> str:
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError as error:
        raise HostProblem("its host is no IPv6 address") from error


def _check(host: str) -> None:
    if len(host) > DOMAIN_OCTETS:
        raise HostProblem(f"its host is longer than {DOMAIN_OCTETS} bytes")
    labels = host.split(".")
    for label in labels:
        if not label:
            raise HostProblem("its host has an empty label")
        if len(label) > LABEL_OCTETS:
            raise HostProblem(f"a label of its host is longer than {LABEL_OCTETS} bytes")
        if not _LABEL.fullmatch(label):
            raise HostProblem("its host holds a character no host name has")
    if labels[-1].isdigit():
        try:
            ipaddress.IPv4Address(host)
        except ValueError as error:
            raise HostProblem("its host ends in a number and is no IP address") from error
