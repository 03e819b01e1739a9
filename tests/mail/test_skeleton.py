import threading
from collections.abc import Mapping
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import jinja2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from midsource.bench.newsletter import envelope, newsletter, person
from midsource.mail.content import Content, ContentError, RenderProblem
from midsource.mail.dkim import canonical_body
from midsource.mail.skeleton import Skeleton, WireMessage

BRAND = {"name": "Brand"}
DELIVERY = {"label": "Été", "id": 7}
BARE = Content(subject="s", html="", text="", from_name="", from_address="a@b.fr")

# The oracle: Jinja2 as it comes, with our two rules for values (empty is "", line breaks are one thing).
STOCK = {
    html: jinja2.Environment(
        undefined=jinja2.StrictUndefined, autoescape=html, keep_trailing_newline=True, finalize=lambda v: "" if v is None else v
    )
    for html in (False, True)
}  # fmt: skip
VALUE = st.one_of(
    st.none(),
    st.integers(),
    st.booleans(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=120),
    st.text(" .=\r\n\té<&'\"-_aF", max_size=300),
)
STATIC = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{%#}"), max_size=200) | st.text(
    " .=\n\té-aF", max_size=90
)
PLACE = st.sampled_from(
    [
        "{{ recipient.a }}", "{{ recipient['b'] }}", "{% if recipient.a %}", "{% else %}", "{% endif %}", "{{ delivery.label ~ ' .' }}",
        "{% for x in [1, 2, 3] %}.{{ x }} {{ recipient.b }} {% endfor %}", "{{ recipient.a if recipient.b else '= .' }}",
        "{{ delivery.label }}", "{{ '  .' }}", "{% set x = recipient.a %}{{ x }}",
    ]
)  # fmt: skip


@st.composite
def sources(draw: st.DrawFn) -> str:
    """Templates whose conditions are balanced."""
    out, depth, has_else = [], 0, [False]
    for piece in draw(st.lists(STATIC | PLACE, max_size=14)):
        if piece.startswith("{% if"):
            depth, has_else = depth + 1, [*has_else, False]
        elif piece.startswith("{% else"):
            if not depth or has_else[-1]:
                continue
            has_else[-1] = True
        elif piece.startswith("{% endif"):
            if not depth:
                continue
            depth, has_else = depth - 1, has_else[:-1]
        out.append(piece)
    return "".join(out) + "{% endif %}" * depth


def whole(message: WireMessage) -> EmailMessage:
    parsed = message_from_bytes(message.signed([], envelope(1).date), policy=policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed


def decoded(part: EmailMessage) -> str:
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode("utf-8").replace("\r\n", "\n")


def stock(source: str, data: Mapping[str, Any], *, html: bool) -> str:
    text = STOCK[html].from_string(source).render(recipient=data, delivery=DELIVERY, brand=BRAND, links={})
    return text.replace("\r\n", "\n").replace("\r", "\n")


def normalised(data: Mapping[str, Any]) -> dict[str, Any]:
    """A CR at the end of a value and an LF after it are two line breaks: values are normalised each on its own."""
    return {k: v.replace("\r\n", "\n").replace("\r", "\n") if isinstance(v, str) else v for k, v in data.items()}


@given(sources(), sources(), st.fixed_dictionaries({"a": VALUE, "b": VALUE}))
@example("{{ recipient.a }}", "x {{ recipient.a }} ", {"a": "", "b": ""})
@example(". ", "{{ recipient.a }}\n.{{ recipient.a }}", {"a": ".\n.", "b": None})
def test_both_parts_decode_to_what_stock_jinja_renders(text: str, html: str, data: dict[str, Any]) -> None:
    content = replace(BARE, html=f"<p>{html}", text=f"-{text}")
    skeleton = Skeleton.compile(content, boundary="abcdef0123", delivery=DELIVERY, brand=BRAND)
    message = skeleton.render(data, envelope(1))
    plain, rich = [part for part in whole(message).iter_parts() if isinstance(part, EmailMessage)]
    assert decoded(plain) == stock(content.text, normalised(data), html=False)
    assert decoded(rich) == stock(content.html, normalised(data), html=True)
    assert (plain.get_content_type(), rich.get_content_type()) == ("text/plain", "text/html")
    assert_wire_form(message)


@given(sources(), st.fixed_dictionaries({"a": VALUE, "b": VALUE}), st.booleans())
@example("{{ recipient.a }}", {"a": "", "b": ""}, False)
@example("{{ recipient.a }}\n\n", {"a": "x" * 74 + " ", "b": ""}, False)
@example("a \n \n", {"a": "", "b": ""}, True)
def test_a_single_part_decodes_to_it_but_for_the_last_breaks(source: str, data: dict[str, Any], html: bool) -> None:
    content = replace(BARE, html=f"-{source}") if html else replace(BARE, text=f"-{source}")
    skeleton = Skeleton.compile(content, boundary="abcdef0123", delivery=DELIVERY, brand=BRAND)
    message = skeleton.render(data, envelope(1))
    rendered = stock(f"-{source}", normalised(data), html=html)
    assert decoded(whole(message)).rstrip("\n") == rendered.rstrip("\n")
    assert_wire_form(message)


def assert_wire_form(message: WireMessage) -> None:
    assert canonical_body(message.body) == message.body
    wire = message.signed([], envelope(1).date)
    assert b"\r" not in wire.replace(b"\r\n", b"")
    assert b"\n" not in wire.replace(b"\r\n", b"")
    for line in wire.split(b"\r\n"):
        assert len(line) <= 998
        assert not line.startswith(b".")
    assert all(len(line) <= 76 for line in message.body.split(b"\r\n"))


def test_an_empty_text_body_is_still_a_body() -> None:
    skeleton = Skeleton.compile(replace(BARE, text="{{ recipient.a }}"), boundary="abcdef0123")
    message = skeleton.render({"a": None}, envelope(1))
    assert decoded(whole(message)) == ""
    assert canonical_body(message.body) == message.body


def test_the_headers_of_a_newsletter() -> None:
    skeleton = Skeleton.compile(
        newsletter(), boundary="abcdef0123", delivery=DELIVERY, brand=BRAND, one_click_url="{{ links.unsubscribe }}",
        unsubscribe_mailto="mailto:u@mid.exemple.fr?subject={{ delivery.id }}", feedback_id="{{ delivery.id }}:brand:mid",
    )  # fmt: skip
    message = whole(skeleton.render(person(3), replace(envelope(3), to_name="Benoît Léger")))
    token = person(3)["token"]
    assert {name: str(value) for name, value in message.items()} == {
        "From": "La Maison d'Été <lettre@news.exemple.fr>",
        "To": "Benoît Léger <client3@exemple3.fr>",
        "Subject": "Benoît, l'été arrive à Besançon",
        "Reply-To": "contact@exemple.fr",
        "Feedback-ID": "7:brand:mid",
        "X-Campaign": "ete-2024",
        "Date": "Fri, 21 Jun 2024 08:30:03 +0000",
        "Message-ID": f"<000000000003.{token}@mid.exemple.fr>",
        "List-Unsubscribe": f"<https://t.exemple.fr/u/{token}>, <mailto:u@mid.exemple.fr?subject=7>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "Content-Language": "fr",
        "MIME-Version": "1.0",
        "Content-Type": 'multipart/alternative; boundary="=_abcdef0123"',
    }
    assert not message.defects


@pytest.mark.parametrize(
    ("change", "template"),
    [
        ({"subject": "{{ recipient.x }}"}, "subject"),
        ({"headers": (("X-A", "{{ recipient.x }}"),)}, "header X-A"),
        ({"from_name": "{{ recipient.x }}"}, "from address"),
        ({"from_address": "{{ recipient.x }}"}, "from address"),
        ({"reply_to": "{{ recipient.x }}"}, "reply-to"),
    ],
)
@pytest.mark.parametrize("value", ["a@b.fr\r\nBcc: x@y.fr", "a@b.fr\nX: y", "a@b.fr\r", "\x00a@b.fr", "a@b.fr\u2028"])
def test_a_line_break_from_data_stops_this_recipient_alone(change: dict[str, Any], template: str, value: str) -> None:
    skeleton = Skeleton.compile(replace(BARE, text="t", **change), boundary="abcdef0123")
    with pytest.raises(RenderProblem) as caught:
        skeleton.render({"x": value}, envelope(1))
    assert caught.value.template == template
    assert skeleton.render({"x": "a@b.fr"}, envelope(1)).body == b"t\r\n"


@pytest.mark.parametrize(
    "change",
    [
        {"to_address": "a@b.fr\r\nBcc: c@d.fr"}, {"to_address": "a b"}, {"to_name": "a\nb"}, {"message_id": "a\r\n@b"},
        {"links": {"unsubscribe": "https://a\r\nX: y", "mirror": ""}}, {"links": {"unsubscribe": "", "mirror": ""}},
    ],
)  # fmt: skip
def test_a_wrong_envelope_is_a_render_problem(change: dict[str, Any]) -> None:
    skeleton = Skeleton.compile(replace(BARE, text="t"), boundary="abcdef0123", one_click_url="{{ links.unsubscribe }}")
    with pytest.raises(RenderProblem):
        skeleton.render({}, replace(envelope(1), **change))


@pytest.mark.parametrize(
    "change",
    [
        {"text": ""}, {"headers": (("Bcc", "x"),)}, {"headers": (("X-A: b\r\nBcc", "x"),)}, {"headers": (("Content-Type", "x"),)},
        {"headers": (("X-A", "1"), ("x-a", "2"))}, {"headers": (("", "x"),)}, {"headers": tuple((f"X-{n}", "") for n in range(21))},
        {"language": "fr\r\nBcc: x"}, {"text": "{{ x }}"}, {"headers": (("DKIM-Signature", "x"),)},
    ],
)  # fmt: skip
def test_a_content_that_cannot_be_a_message_is_not_compiled(change: dict[str, Any]) -> None:
    with pytest.raises(ContentError):
        Skeleton.compile(replace(BARE, **{"text": "t", **change}), boundary="abcdef0123")


@pytest.mark.parametrize("boundary", ["", "short", "a" * 61, "abcdefgh\r\n", "abc defgh"])
def test_a_boundary_is_letters_and_digits(boundary: str) -> None:
    with pytest.raises(ContentError):
        Skeleton.compile(replace(BARE, text="t"), boundary=boundary)


def test_no_content_can_close_the_boundary() -> None:
    line = "\n--=_abcdef0123--\n"
    skeleton = Skeleton.compile(replace(BARE, html=line, text="{{ recipient.x }}"), boundary="abcdef0123")
    parts = [
        part for part in whole(skeleton.render({"x": line}, envelope(1))).iter_parts() if isinstance(part, EmailMessage)
    ]
    assert list(map(decoded, parts)) == [line, line]


def test_several_threads_render_what_one_thread_renders() -> None:
    content = replace(
        newsletter(),
        text="{% for i in range(50) %}{{ i }} {{ recipient.first_name }}\n{% endfor %}{{ links.unsubscribe }}",
    )
    skeleton = Skeleton.compile(content, boundary="abcdef0123", delivery=DELIVERY, brand=BRAND)
    expected = [skeleton.render(person(n), envelope(n)) for n in range(400)]
    got: dict[tuple[int, int], WireMessage] = {}

    def work(thread: int) -> None:
        for n in range(400):
            got[thread, n] = skeleton.render(person(n), envelope(n))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(got[thread, n] == expected[n] for thread in range(4) for n in range(400))
