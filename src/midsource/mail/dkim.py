"""DKIM signatures (RFC 6376), RSA-2048 and Ed25519 (RFC 8463), relaxed/relaxed, several to a message.

A ``DkimKey`` is loaded once; ``sign`` returns the DKIM-Signature fields to put in front of a message. A body made by
``mail.skeleton`` is already in relaxed form and is hashed as it is; any other body is canonicalised first (about 0.5 ms
for 20 kB). The private-key operation releases the interpreter lock, so threads sign in parallel.

What is signed: the fields of SIGNED_FIELDS that are present, each as often as it occurs, and *From* once more
(oversigned): a second From added on the way breaks the signature. ``l=`` is never used, so nothing can be appended.
"""

from __future__ import annotations

import re
from base64 import b64encode
from binascii import b2a_base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import Literal, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from midsource.model.errors import UserError

KeyKind: TypeAlias = Literal["rsa", "ed25519"]

RSA_BITS = 2048
"""What every receiver verifies and one DNS answer holds (RFC 8301: at least 1 024 to verify, 2 048 to sign)."""
SIGNED_FIELDS = (
    "from", "to", "subject", "date", "message-id", "reply-to", "list-unsubscribe", "list-unsubscribe-post",
    "feedback-id", "mime-version", "content-type", "content-transfer-encoding",
)  # fmt: skip
_SIGNED = frozenset(name.encode() for name in SIGNED_FIELDS)
_PADDING = padding.PKCS1v15()
_PREHASHED = Prehashed(hashes.SHA256())
_FOLD = re.compile(rb"\r\n(?=[ \t])")
_BLANKS = re.compile(rb"[ \t]+")
_BLANKS_AT_END = re.compile(rb"[ \t]+(?=\r\n)")
_BLANKS_WITHIN = re.compile(rb"[ \t]{2,}|\t")
_LABELS = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,250}[A-Za-z0-9])?")
_B64_LINE = 72
_HASHED_WITH_LOCK = 2_047
_NAMES_FOLD = ":\r\n  "
_NAMES_FOLD_RELAXED = ": "


@dataclass(frozen=True, slots=True)
class DkimKey:
    """One signing key: the domain it speaks for, the selector its public half is published under, the private half."""

    domain: str
    selector: str
    private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey = field(repr=False)

    @classmethod
    def load(cls, domain: str, selector: str, pem: str | bytes) -> DkimKey:
        """Read an unencrypted PEM; raise UserError where it is none, is too weak, or the names are no DNS names."""
        for what, name in (("domain", domain), ("selector", selector)):
            if not _LABELS.fullmatch(name):
                raise UserError(f"the DKIM {what} '{name}' is not a DNS name", "write it in ASCII, without a final dot")
        try:
            private = serialization.load_pem_private_key(pem.encode() if isinstance(pem, str) else pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise UserError(
                f"the DKIM key of {selector}._domainkey.{domain} is not an unencrypted PEM private key",
                "create one with mail.dkim.generate_key or openssl genrsa 2048",
            ) from error
        if isinstance(private, rsa.RSAPrivateKey) and private.key_size >= RSA_BITS:
            return cls(domain, selector, private)
        if isinstance(private, ed25519.Ed25519PrivateKey):
            return cls(domain, selector, private)
        raise UserError(f"the DKIM key of {domain} is neither RSA of {RSA_BITS} bits or more nor Ed25519", "replace it")

    @property
    def algorithm(self) -> str:
        """The value of the tag ``a=``."""
        return "rsa-sha256" if isinstance(self.private, rsa.RSAPrivateKey) else "ed25519-sha256"

    def sign_digest(self, digest: bytes) -> bytes:
        """Sign a SHA-256 digest (RFC 8463, 3: Ed25519 signs the digest itself)."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(digest, _PADDING, _PREHASHED)
        return self.private.sign(digest)


def generate_key(kind: KeyKind) -> str:
    """Return a new private key as PEM (PKCS#8, unencrypted: the caller encrypts it at rest)."""
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    key = rsa.generate_private_key(65_537, RSA_BITS) if kind == "rsa" else ed25519.Ed25519PrivateKey.generate()
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode("ascii")


def dns_name(key: DkimKey) -> str:
    """Return where the public half is published."""
    return f"{key.selector}._domainkey.{key.domain}"


def dns_record(key: DkimKey) -> str:
    """Return the TXT record's text; longer than 255 characters for RSA, so a zone file cuts it into strings."""
    if isinstance(key.private, rsa.RSAPrivateKey):
        info = serialization.PublicFormat.SubjectPublicKeyInfo
        public = key.private.public_key().public_bytes(serialization.Encoding.DER, info)
        return f"v=DKIM1; k=rsa; p={b64encode(public).decode()}"
    raw = key.private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return f"v=DKIM1; k=ed25519; p={b64encode(raw).decode()}"


def canonical_body(body: bytes) -> bytes:
    """Return ``body`` (CRLF) in relaxed form (RFC 6376, 3.4.4)."""
    body = _BLANKS_WITHIN.sub(b" ", _BLANKS_AT_END.sub(b"", body)).rstrip(b" \t")
    while body.endswith(b"\r\n"):
        body = body[:-2]
    return body + b"\r\n" if body else b""


def canonical_header(field_bytes: bytes) -> bytes:
    """Return one header field (CRLF at its end) in relaxed form (RFC 6376, 3.4.2), with its CRLF."""
    name, _, value = field_bytes.partition(b":")
    if _is_plain(value):
        return name.strip().lower() + b":" + value.strip(b" \r\n") + b"\r\n"
    unfolded = _FOLD.sub(b"", value.removesuffix(b"\r\n"))
    return name.strip().lower() + b":" + _BLANKS.sub(b" ", unfolded).strip(b" ") + b"\r\n"


def _is_plain(value: bytes) -> bool:
    """Whether a field's value is one line that needs no more than its ends trimmed: most are."""
    return b"\n" not in value[:-1] and b"  " not in value and b"\t" not in value


@lru_cache(512)  # most fields of a delivery are the same in every message; none is longer than some 2 kB
def _signed_field(header: bytes) -> tuple[str, bytes] | None:
    """Return name and relaxed form of a field, None for one that is not signed."""
    written, _, value = header.partition(b":")
    name = _signed_name(written)
    if name is None:
        return None
    if _is_plain(value):
        return name, b"%b:%b\r\n" % (name.encode(), value.strip(b" \r\n"))
    return name, canonical_header(header)


@lru_cache(64)
def _signed_name(written: bytes) -> str | None:
    """Return the name of a field that is signed, in lower case."""
    name = written.strip().lower()
    return name.decode() if name in _SIGNED else None


@dataclass(frozen=True, slots=True)
class Due:
    """A signature that is due: everything but the private-key operation, which may wait until others are due too."""

    key: DkimKey
    unsigned: str
    digest: bytes

    def signed(self) -> bytes:
        """Return the DKIM-Signature field with its CRLF."""
        made = b2a_base64(self.key.sign_digest(self.digest), newline=False).decode()
        lines = [made[start : start + _B64_LINE] for start in range(0, len(made), _B64_LINE)]
        return (self.unsigned + "\r\n ".join(lines) + "\r\n").encode("ascii")


def due(
    headers: Sequence[bytes], body: bytes, keys: Sequence[DkimKey], at: datetime, *, body_is_canonical: bool = False
) -> list[Due]:
    """Return what there is to sign, one for each key; arguments as of `sign`."""
    if not keys:
        return []
    digest = b2a_base64(_body_digest(body if body_is_canonical else canonical_body(body)), newline=False).decode()
    names, signed = _signed_fields(headers)
    return [_due(key, names, signed, digest, int(at.timestamp())) for key in keys]


def sign(
    headers: Sequence[bytes], body: bytes, keys: Sequence[DkimKey], at: datetime, *, body_is_canonical: bool = False
) -> bytes:
    """Return one DKIM-Signature field per key, each with its CRLF, to be put before ``headers``.

    ``headers`` are whole fields in wire form, each ending in CRLF; ``at`` becomes ``t=``. Pass ``body_is_canonical``
    only for a body of ``mail.skeleton``; a wrong promise makes a signature that no receiver accepts.
    """
    return b"".join([one.signed() for one in due(headers, body, keys, at, body_is_canonical=body_is_canonical)])


def _body_digest(body: bytes) -> bytes:
    """Hash in pieces for which hashlib keeps the interpreter lock: getting it back costs more than these 10 us."""
    digest = sha256()
    update = digest.update
    for at in range(0, len(body), _HASHED_WITH_LOCK):
        update(body[at : at + _HASHED_WITH_LOCK])  # a copy of 2 kB costs less than a view
    return digest.digest()


def _signed_fields(headers: Sequence[bytes]) -> tuple[str, bytes]:
    """Return the value of ``h=`` and the canonical fields, bottom first where a name repeats (RFC 6376, 5.4.2)."""
    found = [field for header in reversed(headers) if (field := _signed_field(header)) is not None]
    # The extra "from" stands last: the occurrences that exist are consumed first.
    return ":".join([*[name for name, _ in found], "from"]), b"".join([canonical for _, canonical in found])


def _due(key: DkimKey, names: str, signed: bytes, digest: str, second: int) -> Due:
    unsigned = (
        f"DKIM-Signature: v=1; a={key.algorithm}; c=relaxed/relaxed;\r\n d={key.domain}; s={key.selector}; t={second};"
        f"\r\n h={_folded_names(names)};\r\n bh={digest};\r\n b="
    )
    relaxed = (
        f"dkim-signature:v=1; a={key.algorithm}; c=relaxed/relaxed; d={key.domain}; s={key.selector}; t={second};"
        f" h={_folded_names(names).replace(_NAMES_FOLD, _NAMES_FOLD_RELAXED)}; bh={digest}; b="
    )
    return Due(key, unsigned, sha256(signed + relaxed.encode("ascii")).digest())


@lru_cache(64)
def _folded_names(names: str) -> str:
    """Fold ``h=`` after every fourth name, so that no line passes 78 characters."""
    parts = names.split(":")
    return _NAMES_FOLD.join(":".join(parts[start : start + 4]) for start in range(0, len(parts), 4))
