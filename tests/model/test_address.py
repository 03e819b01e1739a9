from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midsource.model.address import AddressProblem, EmailAddress, domain_to_ascii


@pytest.mark.parametrize(
    ("text", "local", "domain"),
    [
        ("bob@b.example", "bob", "b.example"),
        ("Bob.Smith+News@B.Example", "Bob.Smith+News", "b.example"),
        ("o'neil!#$%&*/=?^_`{|}~-@b.example", "o'neil!#$%&*/=?^_`{|}~-", "b.example"),
        ('"a b"@b.example', '"a b"', "b.example"),
        ('"a@b\\""@b.example', '"a@b\\""', "b.example"),
        ("zoé@b.example", "zoé", "b.example"),
        ("bob@bücher.example", "bob", "xn--bcher-kva.example"),
        ("bob@BÜCHER.example", "bob", "xn--bcher-kva.example"),
        ("bob@faß.example", "bob", "xn--fa-hia.example"),  # IDNA 2008, where IDNA 2003 says fass
        ("bob@xn--bcher-kva.example", "bob", "xn--bcher-kva.example"),
        ("bob@例え.テスト", "bob", "xn--r8jz45g.xn--zckzah"),
        ("bob@a--b.example", "bob", "a--b.example"),
        ("bob@3com.example", "bob", "3com.example"),
        (f"{'x' * 64}@b.example", "x" * 64, "b.example"),
    ],
)
def test_what_is_an_address(text: str, local: str, domain: str) -> None:
    address = EmailAddress.parse(text)
    assert (address.local, address.domain) == (local, domain)
    assert str(address) == f"{local}@{domain}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        ("bob", "it has no @"),
        ("@b.example", "nothing stands before"),
        ("bob@", "nothing stands after"),
        ("bob@b", "no dot"),
        ("bob@localhost", "no dot"),
        ("bob@b..example", "empty label"),
        ("bob@b.example.", "empty label"),
        ("bob@.b.example", "empty label"),
        ("bob@-b.example", "no domain has"),
        ("bob@b_c.example", "no domain has"),
        ("bob@b .example", "no domain has"),
        ("bob@192.0.2.1", "ends in a number"),
        ("bob@[192.0.2.1]", "address literal"),
        ("bob@xn--a.example", "not a valid international"),
        ("bob@\u2488.example", "not a valid international"),
        (f"bob@{'x' * 64}.example", "label of the domain is longer"),
        (f"bob@{'x.' * 126}example", "domain is longer than 253"),
        (f"{'x' * 65}@b.example", "longer than 64"),
        (f"{'é' * 33}@b.example", "longer than 64"),
        (f"{'x' * 64}@{'y' * 60}.{'y' * 60}.{'y' * 60}.example", "longer than 254"),
        ("a..b@b.example", "a dot before the @"),
        (".a@b.example", "a dot before the @"),
        ("a.@b.example", "a dot before the @"),
        ("a b@b.example", "a blank"),
        ("a\u00a0b@b.example", "a blank"),
        ("a\u202eb@b.example", "a blank"),
        (" bob@b.example", "a blank"),
        ("bob@b.example ", "no domain has"),
        ("a,b@b.example", "must be quoted"),
        ("a@b@b.example", "must be quoted"),
        ('"a"b@b.example', "not well formed"),
        ('"a@b.example', "not well formed"),
        ("Bob <bob@b.example>", "angle brackets"),
        ("bob(comment)@b.example", "must be quoted"),
        ("bob@b.example\r\nBcc: x@y.example", "control character U+000D"),
        ("bob\x00@b.example", "control character U+0000"),
        ("bob@b.example\n", "control character U+000A"),
        ('"a\nb"@b.example', "control character U+000A"),
        ("bob\ud800@b.example", "control character U+D800"),
        ("bob\u2028@b.example", "control character U+2028"),
    ],
)
def test_what_is_none_and_why(text: str, why: str) -> None:
    with pytest.raises(AddressProblem) as caught:
        EmailAddress.parse(text)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Bob@b.example", "bob@B.EXAMPLE"),
        ("bob@bücher.example", "BOB@xn--bcher-kva.example"),
        ("zo\u00e9@b.example", "ZOE\u0301@b.example"),
        ("straße@b.example", "STRASSE@b.example"),
    ],
)
def test_spellings_of_one_mailbox_share_their_key(one: str, other: str) -> None:
    assert EmailAddress.parse(one).key == EmailAddress.parse(other).key


def test_only_the_local_part_needs_smtputf8() -> None:
    assert EmailAddress.parse("zoé@b.example").needs_smtputf8
    assert not EmailAddress.parse("zoe@bücher.example").needs_smtputf8


def test_a_domain_alone_is_converted_alike() -> None:
    assert domain_to_ascii("Bücher.Example") == "xn--bcher-kva.example"


@given(st.text(max_size=40) | st.emails() | st.from_regex(r"[^@]{1,10}@[^@]{1,20}"))
def test_parsing_is_stable_and_raises_nothing_else(text: str) -> None:
    try:
        address = EmailAddress.parse(text)
    except AddressProblem:
        return
    again = EmailAddress.parse(str(address))
    assert again == address
    assert EmailAddress.parse(address.key).key == address.key
    assert not set("\r\n\x00") & set(str(address))
    assert address.domain.isascii()
