from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dkim
import msgspec
import pytest

from midsource.mail.dkim import DkimKey, dns_record, generate_key
from midsource.mid import dkim_keys
from midsource.mid.dispatch import Delivery, Message
from midsource.mid.render import (
    PREPARED_SECONDS,
    SIGNED_TOGETHER,
    Deliveries,
    Prepared,
    Rendered,
    Tokens,
    Unrendered,
    prepare,
    render,
)
from midsource.security import keys
from midsource.testing.mid import MidDatabase
from midsource.wire import identity
from midsource.wire.schema import DeliverySpec

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
KEY = (3, 202603 << 32 | 1)
TOKENS = Tokens(b"u" * 32, b"m" * 32)


def prepared(*dkim_keys: DkimKey, **changes: str) -> Prepared:
    spec = DeliverySpec(
        id=KEY[1], label="spring", subject="Hi {{ recipient.name }}", brand="shop", html="<p>{{ links.unsubscribe }}</p>",
        text="Dear {{ recipient.name }}", from_name="Shop", from_address="news@shop.test",
        unsubscribe_url="https://shop.test/u/{token}",
    )  # fmt: skip
    text = msgspec.json.encode(msgspec.structs.replace(spec, **changes)).decode()
    return prepare(KEY, Delivery(55, text, None), lambda domain: dkim_keys if domain == "shop.test" else ())


def message(id_: int, data: str = '{"name": "Zoé"}') -> Message:
    return Message(id_, f"p{id_}@a.example", data, 0)


def rendered(of: Prepared, id_: int = 7) -> Rendered:
    (made,) = render(of, [message(id_)], TOKENS, AT)
    assert isinstance(made, Rendered)
    return made


def test_a_message_carries_its_identity_and_is_the_same_at_every_try() -> None:
    made = rendered(prepared())
    parsed = email.message_from_bytes(made.wire, policy=email.policy.default)
    assert parsed["X-Midsource-Id"] == f"3.{KEY[1]}.7"
    assert parsed["Message-ID"] == made.message_id
    assert made.message_id.endswith("@shop.test>")
    assert parsed["Subject"] == "Hi Zoé"
    assert rendered(prepared()) == made
    assert rendered(prepared(), 8).message_id != made.message_id


def test_a_delivery_with_a_key_for_them_has_message_ids_that_both_halves_compute() -> None:
    of = prepared(message_key="5c" * 32)
    made = rendered(of)
    parsed = email.message_from_bytes(made.wire, policy=email.policy.default)
    assert parsed["Message-ID"] == identity.message_id(b"\x5c" * 32, 7, "news@shop.test")
    assert made.message_id == identity.DERIVED
    assert rendered(of) == made
    assert rendered(prepared(message_key="5d" * 32)).wire != made.wire


def test_the_unsubscribe_link_leads_back_to_the_message_and_cannot_be_made_up() -> None:
    url = str(email.message_from_bytes(rendered(prepared()).wire)["List-Unsubscribe"]).strip("<>\r\n ")
    token = url.rpartition("/")[2]
    assert TOKENS.read_unsubscribe(token) == (*KEY, 7)
    forged = Tokens(b"x" * 32, b"m" * 32).unsubscribe(*KEY, 7)
    for bad in (forged, token[:-1], token[:-4], "", "é", "A" * len(token), token + "=="):
        assert TOKENS.read_unsubscribe(bad) is None


def test_every_signature_verifies() -> None:
    both = [DkimKey.load("shop.test", selector, generate_key("rsa")) for selector in ("old", "new")]
    zone = {f"{key.selector}._domainkey.shop.test.".encode(): dns_record(key).encode() for key in both}
    wire = rendered(prepared(*both)).wire
    assert wire.count(b"DKIM-Signature:") == 2
    for index in range(2):
        assert dkim.DKIM(wire).verify(idx=index, dnsfunc=lambda name, timeout=5: zone[name])


def test_a_signed_batch_comes_back_in_its_order_and_one_that_fails_leaves_the_others_their_signatures() -> None:
    """Messages are composed some together and signed then: none may get another one's signature or place."""
    key = DkimKey.load("shop.test", "s1", generate_key("rsa"))
    zone = {b"s1._domainkey.shop.test.": dns_record(key).encode()}
    batch = [message(n, "{}" if n == 52 else f'{{"name": "n{n}"}}') for n in range(1, SIGNED_TOGETHER + 6)]
    made = render(prepared(key), batch, TOKENS, AT)
    assert [one.id for one in made] == [one.id for one in batch]
    assert [one.id for one in made if isinstance(one, Unrendered)] == [52]
    for one in made:
        if isinstance(one, Rendered):
            assert f"n{one.id}".encode() in one.wire
            assert dkim.verify(one.wire, dnsfunc=lambda name, timeout=5: zone[name])


def test_data_that_break_the_content_are_one_persons_problem() -> None:
    made = render(prepared(), [message(1), message(2, "{}"), message(3)], TOKENS, AT)
    assert [type(one) for one in made] == [Rendered, Unrendered, Rendered]
    assert isinstance(made[1], Unrendered)
    assert "recipient.name" in made[1].why


def test_content_that_does_not_compile_makes_every_message_unrendered_with_the_line() -> None:
    made = render(prepared(html="<p>{{ recipient.name"), [message(1), message(2)], TOKENS, AT)
    assert all(isinstance(one, Unrendered) and "html line 1" in one.why for one in made)


def test_tokens_are_those_of_the_home(tmp_path: Path) -> None:
    first, second = Tokens.of(keys.load(tmp_path)), Tokens.of(keys.load(tmp_path))
    assert first == second
    assert first.unsubscribe_key != first.message_id_key


def test_what_breaks_our_code_is_a_bug_of_that_message_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """No ledger row has a number below zero; whatever does break us must not stop the others."""
    broken = message(-2)
    made = render(prepared(), [message(1), broken, message(3)], TOKENS, AT)
    assert [type(one) for one in made] == [Rendered, Unrendered, Rendered]
    assert made[1] == Unrendered(-2, "a fault of ours: struct.error", is_bug=True)
    assert "a.example" not in capsys.readouterr().out, "its address is nobody's business in a log"


def test_a_delivery_is_prepared_anew_after_its_time_with_the_keys_of_then(mid_db: MidDatabase) -> None:
    number = mid_db.delivery(messages=1)
    with mid_db.database.connection() as conn:
        conn.execute("""update delivery set spec = spec || '{"subject": "Hi", "html": "<p>Hi</p>", "text": "Hi"}'""")
    home_key = keys.HomeKey(b"k" * 32)
    kept = Deliveries(home_key, mid_db.clock)
    with mid_db.database.transaction() as conn:
        dkim_keys.create(conn, home_key, "shop.test", "one", "ed25519")
        first = kept.get(conn, (mid_db.account_id, number))
        conn.execute("delete from dkim_key")
        dkim_keys.create(conn, home_key, "shop.test", "two", "ed25519")
        mid_db.clock.advance(timedelta(seconds=PREPARED_SECONDS - 1))
        assert kept.get(conn, (mid_db.account_id, number)) is first
        mid_db.clock.advance(timedelta(seconds=1))
        second = kept.get(conn, (mid_db.account_id, number))
    assert first is not None
    assert second is not None
    assert [[key.selector for key in one.keys] for one in (first, second)] == [["one"], ["two"]]
