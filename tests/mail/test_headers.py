from datetime import UTC, datetime, timedelta, timezone
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.utils import parseaddr, parsedate_to_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from midsource.mail import headers

# Everything a header may hold: no controls, no surrogates, no line separators.
HEADER_TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=300)


def parsed(name: str, value: str) -> str:
    message = message_from_bytes(f"{name}: {value}\r\n\r\n".encode(), policy=policy.default)
    return str(message[name])


@given(HEADER_TEXT.map(str.strip))
@example("=?utf-8?q?not_an_encoded_word?=")
@example("two  blanks")
@example("x" * 400)
@example("L'été arrive à Besançon, " * 8)
@example("🎉" * 60)
@example("a " * 150 + "b")
def test_free_text_comes_back_exactly_and_folds(text: str) -> None:
    value = headers.unstructured("Subject", text)
    assert parsed("Subject", value) == text
    assert value.isascii()
    assert all(len(line) <= 78 for line in f"Subject: {value}".split("\r\n"))


@given(HEADER_TEXT.map(str.strip).filter(bool))
@example('He said "no" \\ left')
@example("Müller, Zoé (Dr.) <x@y>")
def test_a_display_name_comes_back_exactly(name: str) -> None:
    value = headers.mailbox("From", name, "alice@example.org")
    assert value.isascii()
    assert all(len(line) <= 78 for line in f"From: {value}".split("\r\n"))
    # Not the parser of policy.default: it shows a blank between adjacent encoded words of a phrase (RFC 2047, 6.2).
    raw, address = parseaddr(value.replace("\r\n", ""))
    assert (str(make_header(decode_header(raw))), address) == (name, "alice@example.org")


@pytest.mark.parametrize(
    "bad", ["a\r\nBcc: x@y", "a\nb", "a\rb", "a\x00b", "a\x0bb", "a\x85b", "a\u2028b", "a\ud800", "a\tb"]
)
def test_controls_are_refused_not_dropped(bad: str) -> None:
    with pytest.raises(ValueError, match=r"U\+"):
        headers.unstructured("X-A", bad)
    with pytest.raises(ValueError, match=r"U\+"):
        headers.phrase("To", bad)


@pytest.mark.parametrize(
    "bad",
    [
        "", "a", "@b.fr", "a@", "a@b@c.fr", "a b@c.fr", "a@b..fr", "a@-b.fr", "a@b.fr\r\nBcc: x@y.fr", "<a@b.fr>", ".a@b.fr",
        "a..b@c.fr", '"a b"@c.fr', "a@[127.0.0.1]", "a@b.fr,c@d.fr", "a" * 65 + "@b.fr", "é" * 33 + "@b.fr", "a\x00@b.fr",
        "a@" + "b." * 130 + "fr", "a@exämple.fr", "a\x85@b.fr", "a@b.fr\n",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="address"):
        headers.address(bad)


@pytest.mark.parametrize(
    "good", ["a@b.fr", "a.b+c@x-y.example", "o'connor@b.fr", "zoé@b.fr", "a@localhost", "A@xn--exmple-cua.fr"]
)
def test_addresses_are_kept_as_written(good: str) -> None:
    assert headers.address(good) == good


def test_message_ids_and_links_cannot_carry_a_line() -> None:
    assert headers.message_id("a.b@c.fr") == "<a.b@c.fr>" == headers.message_id("<a.b@c.fr>")
    for bad in ("a", "a b@c", "a@b>\r\nX: y", "a@b\n", "é@b.fr"):
        with pytest.raises(ValueError, match="message id"):
            headers.message_id(bad)
    for bad in (
        "ftp://a",
        "https://a b",
        "https://a>",
        "https://a\r\nX: y",
        "javascript:x",
        "https://é.fr",
        "https://" + "a" * 900,
        "",
    ):
        with pytest.raises(ValueError, match="link"):
            headers.url_list(bad)


@given(st.floats(0, 4_102_444_800), st.integers(-720, 840))
def test_dates_are_written_in_utc(second: float, minutes: int) -> None:
    aware = datetime.fromtimestamp(second, timezone(timedelta(minutes=minutes)))
    assert parsedate_to_datetime(headers.date(aware)) == aware.astimezone(UTC).replace(microsecond=0)


def test_a_date_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        headers.date(datetime(2024, 1, 1))  # noqa: DTZ001 - the mistake under test
