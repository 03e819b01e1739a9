"""Email addresses, parsed once into a frozen value.

``EmailAddress.parse`` is the only door. The local part is kept as written (its owner decides what case means), the
domain becomes A-labels in lower case (IDNA 2008, UTS 46 mapping), and ``key`` is what two spellings are compared by.
Quoted local parts (RFC 5321 4.1.2) and UTF-8 local parts (RFC 6531) are addresses; comments, display names, address
literals, domains without a dot and anything with a control character are not. Blanks around an address are the caller's to strip:
here they are part of the text and refused.

``idna`` is the one import of this package beyond the standard library: pure, no input or output.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import idna

LOCAL_OCTETS = 64
"""RFC 5321 4.5.3.1.1."""

PATH_OCTETS = 256
"""RFC 5321 4.5.3.1.3, with the two angle brackets: an address itself has at most 254."""

DOMAIN_OCTETS = 253
"""RFC 1035 3.1: 255 in wire form, less the first length and the root."""

LABEL_OCTETS = 63

_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
_PLAIN = re.compile(
    rf"({_ATEXT}{{1,64}}(?:\.{_ATEXT}+)*)@"
    r"((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)",
)
_DOT_ATOM = re.compile(rf"(?:{_ATEXT}|[^\x00-\x7f])+(?:\.(?:{_ATEXT}|[^\x00-\x7f])+)*")
_QUOTED = re.compile(r'"(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*"')  # RFC 5321 Quoted-string, RFC 6531 beyond ASCII
_INVISIBLE = {"Zs", "Cf", "Cn", "Co"}  # blanks of all widths, joiners and direction marks, what Unicode does not define
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")


class AddressProblem(ValueError):
    """The text is not an address we can send to; its one clause says why and may be shown to an operator."""


@dataclass(frozen=True, slots=True)
class EmailAddress:
    """A mailbox: local part as written, domain as lower-case A-labels. Built by `parse` only."""

    local: str
    domain: str

    @classmethod
    def parse(cls, text: str) -> EmailAddress:
        """Return the address in ``text``; raises AddressProblem with one clause."""
        plain = _PLAIN.fullmatch(text)
        if plain is not None and len(text) <= PATH_OCTETS - 2 and "--" not in text:
            local, domain = plain.groups()
            if len(local) <= LOCAL_OCTETS and len(domain) <= DOMAIN_OCTETS:
                return cls(local, domain.lower())
        return cls._parse_any(text)

    @classmethod
    def _parse_any(cls, text: str) -> EmailAddress:
        if not text:
            raise AddressProblem("it is empty")
        for char in text:
            if unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}:
                raise AddressProblem(f"it holds the control character U+{ord(char):04X}")
        local, at, domain = text.rpartition("@")
        if not at:
            raise AddressProblem("it has no @")
        _check_local(local)
        address = cls(local, domain_to_ascii(domain))
        if len(str(address).encode()) > PATH_OCTETS - 2:
            raise AddressProblem(f"it is longer than {PATH_OCTETS - 2} bytes")
        return address

    @property
    def key(self) -> str:
        """What two spellings of one mailbox have in common: the local part composed and casefolded, and the domain."""
        local = self.local
        if not local.isascii():
            local = unicodedata.normalize("NFC", unicodedata.normalize("NFC", local).casefold())
        else:
            local = local.lower()
        return f"{local}@{self.domain}"

    @property
    def needs_smtputf8(self) -> bool:
        """Whether only a server with SMTPUTF8 (RFC 6531) can take it. A non-ASCII domain alone does not need it."""
        return not self.local.isascii()

    def __str__(self) -> str:
        """Return the address as it goes on the wire."""
        return f"{self.local}@{self.domain}"


def _check_local(local: str) -> None:
    if not local:
        raise AddressProblem("nothing stands before the @")
    if len(local.encode()) > LOCAL_OCTETS:
        raise AddressProblem(f"the part before the @ is longer than {LOCAL_OCTETS} bytes")
    if local.startswith('"'):
        if not _QUOTED.fullmatch(local):
            raise AddressProblem("the quotes before the @ are not well formed")
    elif "<" in local or ">" in local:
        raise AddressProblem("a name or angle brackets stand around it")
    elif ".." in local or local.startswith(".") or local.endswith("."):
        raise AddressProblem("a dot before the @ has no character beside it")
    elif not _DOT_ATOM.fullmatch(local) or any(unicodedata.category(char) in _INVISIBLE for char in local):
        raise AddressProblem("the part before the @ holds a blank or a character that must be quoted")


def domain_to_ascii(domain: str) -> str:
    """Return ``domain`` as lower-case A-labels; raises AddressProblem where it cannot be the domain of a mailbox."""
    if not domain:
        raise AddressProblem("nothing stands after the @")
    if domain.startswith("["):
        raise AddressProblem("it names an address literal instead of a domain")
    if not domain.isascii() or "xn--" in domain.lower():
        try:
            domain = idna.encode(domain, uts46=True, transitional=False).decode("ascii")
        except (idna.IDNAError, UnicodeError) as error:
            raise AddressProblem("the domain is not a valid international domain name") from error
    domain = domain.lower()
    _check_domain(domain)
    return domain


def _check_domain(domain: str) -> None:
    if len(domain) > DOMAIN_OCTETS:
        raise AddressProblem(f"the domain is longer than {DOMAIN_OCTETS} bytes")
    labels = domain.split(".")
    if len(labels) < 2:
        raise AddressProblem("the domain has no dot")
    for label in labels:
        if not label:
            raise AddressProblem("the domain has an empty label")
        if len(label) > LABEL_OCTETS:
            raise AddressProblem(f"a label of the domain is longer than {LABEL_OCTETS} bytes")
        if not _LABEL.fullmatch(label):
            raise AddressProblem("the domain holds a character no domain has")
    if labels[-1].isdigit():
        raise AddressProblem("the domain ends in a number")
