"""How each demo provider behaves: the table the sink obeys, and the only place that knows it.

A recipient's domain picks the personality; a domain that is not in the table accepts everything. The first label names
the behaviour for the training domains (``slow.example`` …); the provider names (``gmail.example`` …) accept, so that a
demo's figures look like a normal day. Every name exists under ``.example`` and ``.test``, both reserved (RFC 2606):
nothing here can be mistaken for a real mailbox.

A share is decided by a stable hash of the recipient (or of message and recipient for ``drop_after_dot``), never by
chance: the same recipients CSV meets the same refusals in every run.

``MX_HOSTS`` gives each domain an MX host name of its own, some of them shared (as ``hotmail`` and ``live`` share
outlook's), so that MX rules by host mask have something to match. All of them are this one sink on this one port.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from types import MappingProxyType


class Kind(StrEnum):
    """What a provider does to mail."""

    ACCEPT = "accept"
    SLOW = "slow"  # each reply from RCPT on comes late
    GREYLIST = "greylist"  # 451 4.7.1 until the same sender tries the same recipient again later
    THROTTLE = "throttle"  # 421 4.7.0 after so many messages on a connection, or with too many connections open
    UNKNOWN_USER = "unknown_user"  # 550 5.1.1 for a share of the local parts
    MAILBOX_FULL = "mailbox_full"  # 552 5.2.2 for a share of the local parts
    DROP_AFTER_DOT = "drop_after_dot"  # keeps the message, then hangs up instead of answering
    TLS = "tls"  # 530 5.7.0 unless the session is encrypted
    POLICY_BLOCK = "policy_block"  # 550 5.7.1 for everybody


@dataclass(frozen=True, slots=True)
class Personality:
    """One provider's behaviour; only the fields its ``kind`` names are used."""

    kind: Kind = Kind.ACCEPT
    share: float = 1.0
    """Part of the recipients concerned, 0 to 1 (unknown_user, mailbox_full, drop_after_dot)."""
    delay_seconds: float = 0.2
    """Time before each reply (slow); time until a second try is welcome (greylist)."""
    messages_per_connection: int = 20
    """Messages taken before the 421 (throttle)."""
    connections: int = 4
    """Connections to the same domain at a time (throttle)."""


ACCEPT = Personality()

_BEHAVIOURS: Mapping[str, Personality] = {
    "slow": Personality(Kind.SLOW, delay_seconds=0.2),
    "greylist": Personality(Kind.GREYLIST, delay_seconds=3.0),
    "throttle": Personality(Kind.THROTTLE),
    "unknown": Personality(Kind.UNKNOWN_USER, share=0.3),
    "nobody": Personality(Kind.UNKNOWN_USER, share=1.0),
    "full": Personality(Kind.MAILBOX_FULL, share=0.3),
    "drop": Personality(Kind.DROP_AFTER_DOT, share=0.1),
    "tls": Personality(Kind.TLS),
    "block": Personality(Kind.POLICY_BLOCK),
}

_PROVIDERS: Mapping[str, str] = {
    "gmail": "gmail-smtp-in.l.gmail",
    "googlemail": "gmail-smtp-in.l.gmail",
    "outlook": "mx.olc.outlook",
    "hotmail": "mx.olc.outlook",
    "live": "mx.olc.outlook",
    "yahoo": "mta5.am0.yahoo",
    "icloud": "mx01.mail.icloud",
    "orange": "smtp-in.orange",
    "wanadoo": "smtp-in.orange",
    "free": "mx1.free",
    "sfr": "smtp-in.sfr",
    "laposte": "smtpz4.laposte",
    "sapo": "mx.ptmail.sapo",
    "mail": "mx.ptmail.sapo",
    "proton": "mail.proton",
    "gmx": "mx00.gmx",
    "web": "mx-ha02.web",
    "libero": "smtp-in.libero",
    "acme": "mx.acme",
}
"""Domain name to MX host name, both without their ending."""

_ENDINGS = ("example", "test")


def _personalities() -> Mapping[str, Personality]:
    table = {f"{name}.{ending}": value for name, value in _BEHAVIOURS.items() for ending in _ENDINGS}
    table |= {f"{name}.{ending}": ACCEPT for name in _PROVIDERS for ending in _ENDINGS}
    return MappingProxyType(table)


def _mx_hosts() -> Mapping[str, str]:
    hosts = {f"{name}.{ending}": f"{host}.{ending}" for name, host in _PROVIDERS.items() for ending in _ENDINGS}
    hosts |= {f"{name}.{ending}": f"mx.{name}.{ending}" for name in _BEHAVIOURS for ending in _ENDINGS}
    return MappingProxyType(hosts)


PERSONALITIES: Mapping[str, Personality] = _personalities()
"""Domain (lower case, A-label) to its behaviour."""

MX_HOSTS: Mapping[str, str] = _mx_hosts()
"""Domain to the MX host name a resolver of the demo may announce for it."""


def personality_of(domain: str) -> Personality:
    """Return how ``domain`` behaves; unknown domains accept."""
    return PERSONALITIES.get(domain, ACCEPT)


def mx_host_of(domain: str) -> str:
    """Return the MX host name of ``domain``; unknown domains get ``mx.`` before their own name."""
    return MX_HOSTS.get(domain, f"mx.{domain}")


def falls_in_share(share: float, *parts: str) -> bool:
    """Whether these texts belong to the given share of all texts: the same answer in every process and every run."""
    if share >= 1.0:
        return True
    digest = blake2b("\0".join(parts).encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64
