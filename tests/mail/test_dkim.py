"""Signatures judged by dkimpy's verifier, an implementation that is not ours.

dkimpy checks Ed25519 through PyNaCl, which nothing else of ours needs; the fixture gives it the same primitive from
``cryptography``, and the first test proves the pair on the published example of RFC 8463.
"""

import sys
import types
from base64 import b64decode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import dkim
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from midsource.bench.newsletter import envelope, newsletter, person
from midsource.mail.dkim import DkimKey, KeyKind, canonical_body, dns_name, dns_record, generate_key, sign
from midsource.mail.skeleton import Skeleton
from midsource.model.errors import UserError

AT = datetime(2024, 6, 21, tzinfo=UTC)
KEYS = {kind: DkimKey.load("news.exemple.fr", f"s-{kind}", generate_key(kind)) for kind in ("rsa", "ed25519")}  # type: dict[KeyKind, DkimKey]

RFC_8463_MESSAGE = b"""\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
""".replace(b"\n", b"\r\n")
RFC_8463_RECORD = b"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


class BadSignature(Exception):
    pass


class VerifyKey:
    def __init__(self, key: bytes, encoder: Callable[[bytes], bytes]) -> None:
        self.key = Ed25519PublicKey.from_public_bytes(encoder(key))

    def verify(self, message: bytes, signature: bytes) -> bytes:
        try:
            self.key.verify(signature, message)
        except InvalidSignature as error:
            raise BadSignature from error
        return message


@pytest.fixture(autouse=True, scope="module")
def ed25519_for_dkimpy() -> Iterator[None]:
    if "nacl" in sys.modules:
        yield  # the real one
        return
    nacl = types.SimpleNamespace(
        signing=types.SimpleNamespace(VerifyKey=VerifyKey),
        encoding=types.SimpleNamespace(Base64Encoder=b64decode),
        exceptions=types.SimpleNamespace(BadSignatureError=BadSignature, ValueError=ValueError),
    )
    dkim.nacl = nacl
    yield
    del dkim.nacl


def verifies(message: bytes, index: int = 0) -> bool:
    records = {f"{dns_name(key)}.".encode(): dns_record(key).encode() for key in KEYS.values()}
    records[b"brisbane._domainkey.football.example.com."] = RFC_8463_RECORD

    def lookup(name: bytes, timeout: int = 5) -> bytes | None:
        return records.get(name)

    try:
        return bool(dkim.DKIM(message).verify(idx=index, dnsfunc=lookup))
    except dkim.ValidationError:  # another body than the one that was hashed
        return False


def signed(headers: list[bytes], body: bytes, *kinds: KeyKind) -> bytes:
    signatures = sign(headers, body, [KEYS[kind] for kind in kinds], AT)
    # SMTP ends every message with a line break, so that is what a receiver sees.
    ended = body if not body or body.endswith(b"\r\n") else body + b"\r\n"
    return signatures + b"".join(headers) + b"\r\n" + ended


HEADERS = [
    b"From: a@news.exemple.fr\r\n",
    b"To: b@c.fr\r\n",
    b"Subject: Hello\r\n",
    b"Date: Fri, 21 Jun 2024 08:30:03 +0000\r\n",
]


def test_the_verifier_accepts_the_example_of_rfc_8463() -> None:
    assert verifies(RFC_8463_MESSAGE)
    assert not verifies(RFC_8463_MESSAGE.replace(b"We lost", b"We won"))


@pytest.mark.parametrize("kinds", [["rsa"], ["ed25519"], ["rsa", "ed25519"]])
def test_newsletters_verify(kinds: list[KeyKind]) -> None:
    skeleton = Skeleton.compile(
        newsletter(), boundary="abcdef0123", delivery={"label": "l", "id": 7}, brand={"name": "b"},
        one_click_url="{{ links.unsubscribe }}", feedback_id="{{ delivery.id }}:b",
    )  # fmt: skip
    for number in range(5):
        wire = skeleton.render(person(number), envelope(number)).signed([KEYS[kind] for kind in kinds], AT)
        assert wire.count(b"DKIM-Signature:") == len(kinds)
        for index in range(len(kinds)):
            assert verifies(wire, index)
            assert not verifies(wire.replace(b"Bonjour", b"Bonsoir"), index)
            assert not verifies(wire.replace(b"List-Unsubscribe: <https://t", b"List-Unsubscribe: <https://x"), index)
        assert all(len(line) <= 78 for line in wire.split(b"\r\n"))


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_a_second_from_breaks_the_signature(kind: KeyKind) -> None:
    message = signed(HEADERS, b"text\r\n", kind)
    assert verifies(message)
    assert not verifies(message.replace(b"To: b@c.fr", b"From: evil@x.fr\r\nTo: b@c.fr"))


@pytest.mark.parametrize(
    "headers",
    [
        [b"from:  A\r\n  B\t <a@news.exemple.fr>  \r\n", b"SUBJECT:\r\n"],
        [b"From: a@b.fr\r\n", b"Subject: one\r\n", b"X-A: b\r\n", b"Subject: two\r\n", b"Reply-To:\t\r\n x@y.fr\r\n"],
        [b"From: a@b.fr\r\n", b"To: a: b:c\r\n", "Subject: Été\r\n".encode()],
        [b"From: " + b"a" * 300 + b"@b.fr\r\n", b"List-Unsubscribe: <https://a>,\r\n\t<mailto:b>\r\n"],
    ],
)
@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_folded_repeated_and_odd_headers_verify(headers: list[bytes], kind: KeyKind) -> None:
    message = signed(headers, b"text\r\n", kind)
    assert verifies(message)
    assert not verifies(message.replace(b"text\r\n", b"next\r\n"))


@pytest.mark.parametrize(
    "body",
    [b"", b"\r\n", b"a", b"a \t \r\n\r\n \r\n", b" a\t\tb  c\r\n", b"a\r\n\r\n\r\nb\r\n\r\n", b" \r\n", b"a\r\n "],
)
def test_any_body_verifies_after_canonicalisation(body: bytes) -> None:
    assert verifies(signed(HEADERS, body, "rsa"))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"a", b".", b"=", "é".encode()]), max_size=30).map(b"".join))
def test_canonical_form_is_final_and_verifies(body: bytes) -> None:
    assert canonical_body(canonical_body(body)) == canonical_body(body)
    assert verifies(signed(HEADERS, body, "ed25519"))


def test_keys_survive_their_pem_and_hide_from_repr() -> None:
    for kind, key in KEYS.items():
        assert key.algorithm == f"{kind}-sha256"
        assert "private" not in repr(key)
    assert dns_record(KEYS["rsa"]).startswith("v=DKIM1; k=rsa; p=MIIB")
    assert dns_name(KEYS["ed25519"]) == "s-ed25519._domainkey.news.exemple.fr"


def pem(key: rsa.RSAPrivateKey | dsa.DSAPrivateKey, encryption: serialization.KeySerializationEncryption) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def test_a_key_that_receivers_would_refuse_is_not_loaded() -> None:
    plain = serialization.NoEncryption()
    weak = pem(rsa.generate_private_key(65_537, 1024), plain)
    other = pem(dsa.generate_private_key(2048), plain)
    locked = pem(rsa.generate_private_key(65_537, 2048), serialization.BestAvailableEncryption(b"secret"))
    for bad in (weak, other, locked, b"", b"not a key", dns_record(KEYS["rsa"]).encode()):
        with pytest.raises(UserError):
            DkimKey.load("a.fr", "s", bad)
    for domain, selector in (("a.fr.", "s"), ("a b", "s"), ("a.fr", "s;"), ("a.fr", ""), ("é.fr", "s"), ("a\r\n", "s")):
        with pytest.raises(UserError):
            DkimKey.load(domain, selector, generate_key("ed25519"))
