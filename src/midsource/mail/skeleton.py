"""One message per recipient, in wire form, fast: what is the same for all is made once per delivery.

Order of events: ``Skeleton.compile`` compiles the content once, its bodies straight into quoted-printable pieces.
``render`` evaluates the templates for one recipient, joins the pieces and writes the headers; ``WireMessage.signed``
puts DKIM signatures in front. Nothing here reads a clock, draws a random number or does I/O: message id, date, boundary
and links are given.

The body needs nothing afterwards: CRLF only, lines of at most 76 characters, no line that begins with a dot (the
SMTP client sends it unchanged), and already in DKIM's relaxed form. Decoding a part gives exactly what the template
renders to, with line breaks as CRLF; only the line breaks at the very end of a message with a single part are lost.

Limits: those of ``mail.template`` and ``mail.headers``. A recipient whose data break one is a RenderProblem, of that
recipient alone. A skeleton is immutable; several threads may render at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any

from midsource.mail import headers as wire
from midsource.mail.content import Content, ContentError, RenderProblem, TemplateProblem
from midsource.mail.dkim import DkimKey, Due, due
from midsource.mail.sandbox import Names, names_of
from midsource.mail.template import Template, compile_errors

_BOUNDARY = re.compile(r"[0-9A-Za-z]{8,60}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3}")
RESERVED_HEADERS = frozenset(
    {
        "from", "to", "cc", "bcc", "sender", "subject", "reply-to", "date", "message-id", "mime-version", "received",
        "return-path", "dkim-signature", "authentication-results", "list-unsubscribe", "list-unsubscribe-post",
    }
)  # fmt: skip
"""Headers the skeleton writes itself or that another hop writes; an author's own would forge or double them."""
_RESERVED_PREFIXES = ("content-", "resent-", "arc-")
_ONE_CLICK = b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
_PART = "Content-Type: text/{kind}; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n"


@dataclass(frozen=True, slots=True)
class RecipientEnvelope:
    """What one message has of its own beside the recipient's data: all given by the caller."""

    to_address: str
    message_id: str  # token@domain, with or without angle brackets
    date: datetime  # aware
    links: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # unsubscribe, mirror
    to_name: str = ""


@dataclass(frozen=True, slots=True)
class WireMessage:
    """A message as it goes over the wire, without SMTP's final dot. Each header is a whole field with its CRLF."""

    headers: tuple[bytes, ...]
    body: bytes

    def signed(self, keys: Sequence[DkimKey], at: datetime, *, first: bytes = b"") -> bytes:
        """Return the whole message with one DKIM signature per key (without keys, unsigned) and ``first`` before all."""
        return self.behind(first, *[one.signed() for one in self.due(keys, at)])

    def due(self, keys: Sequence[DkimKey], at: datetime) -> list[Due]:
        """Return the signatures that are due, one per key, for one who makes those of many messages in a row."""
        return due(self.headers, self.body, keys, at, body_is_canonical=True)

    def behind(self, *first: bytes) -> bytes:
        """Return the whole message with these fields before all."""
        return b"".join((*first, *self.headers, b"\r\n", self.body))


@dataclass(frozen=True, slots=True)
class _Header:
    """One header that templates write: how what they render to becomes its text, and whether nothing means no header."""

    name: str
    templates: tuple[Template, ...]
    write: Callable[..., str]
    optional: bool = False

    def render(self, names: Names) -> bytes:
        """Return the whole field, or b"" where an optional one renders to nothing."""
        values = [template.render(names).strip(" ") for template in self.templates]
        if self.optional and not values[0]:
            return b""
        try:
            return f"{self.name}: {self.write(*values)}\r\n".encode()
        except ValueError as error:
            raise RenderProblem(self.templates[-1].name, 0, str(error)) from error

    def made(self) -> _Header | bytes:
        """Return the field itself where it is the same for all; one that is wrong stays, to be said of each message."""
        if all(template.constant is not None for template in self.templates):
            with suppress(RenderProblem):
                return self.render({})
        return self


@dataclass(frozen=True, slots=True)
class Skeleton:
    """One delivery's message, compiled. Make it with ``compile``."""

    delivery: Mapping[str, Any]
    brand: Mapping[str, Any]
    sender: _Header | bytes
    own: tuple[_Header | bytes, ...]
    unsubscribe: _Header | bytes
    tail: tuple[bytes, ...]
    parts: tuple[Template, ...]
    glue: tuple[str, ...]

    @classmethod
    def compile(
        cls,
        content: Content,
        *,
        boundary: str,
        delivery: Mapping[str, Any] = MappingProxyType({}),
        brand: Mapping[str, Any] = MappingProxyType({}),
        one_click_url: str = "",
        unsubscribe_mailto: str = "",
        feedback_id: str = "",
    ) -> Skeleton:
        """Compile ``content``; raise ContentError with every mistake found.

        ``boundary`` is 8 to 60 letters and digits. ``delivery`` holds label and id, ``brand`` name. ``one_click_url``
        (usually ``{{ links.unsubscribe }}``; it takes the POST of RFC 8058), ``unsubscribe_mailto`` and
        ``feedback_id`` are templates; "" leaves their header out.
        """
        found = [*compile_errors(content), *_misuse(content, boundary)]
        if found:
            raise ContentError(found)
        bodies = [("text", content.text), ("html", content.html)]
        parts = tuple(
            Template.compile(name, source, html=name == "html", flavour="wire") for name, source in bodies if source
        )
        head, glue = _frame([part.name for part in parts], f"=_{boundary}")
        if content.language:
            head = (f"Content-Language: {content.language}\r\n".encode(), *head)
        return cls(
            delivery=delivery, brand=brand, sender=_sender(content), own=_own_headers(content, feedback_id),
            unsubscribe=_unsubscribe(one_click_url, unsubscribe_mailto),
            tail=(_ONE_CLICK, *head) if one_click_url else head, parts=parts, glue=glue,
        )  # fmt: skip

    def render(self, recipient: Mapping[str, Any], envelope: RecipientEnvelope) -> WireMessage:
        """Return the message of one recipient; raise RenderProblem where its data do not make one."""
        names = names_of(recipient, self.delivery, self.brand, envelope.links)
        return WireMessage(headers=(*self._headers(names, envelope), *self.tail), body=self._body(names))

    def _headers(self, names: Names, envelope: RecipientEnvelope) -> list[bytes]:
        what = "to address"
        try:
            to = wire.mailbox("To", envelope.to_name, envelope.to_address)
            what = "message id"
            message_id = wire.message_id(envelope.message_id)
            what = "date"
            date = wire.date(envelope.date)
        except ValueError as error:
            raise RenderProblem(what, 0, str(error)) from error
        written = [
            _written(self.sender, names),
            f"To: {to}\r\n".encode(),
            *[_written(header, names) for header in self.own],
            f"Date: {date}\r\n".encode(),
            f"Message-ID: {message_id}\r\n".encode(),
            _written(self.unsubscribe, names),
        ]
        return [line for line in written if line]

    def _body(self, names: Names) -> bytes:
        if len(self.parts) == 1:
            return _closed(self.parts[0].render(names)).encode("ascii")
        text, html = self.parts
        before, between, after = self.glue
        return "".join((before, text.render(names), between, html.render(names), after)).encode("ascii")


def _frame(kinds: Sequence[str], boundary: str) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """Return the constant headers and what stands before, between and after the parts.

    ``=_`` cannot occur in quoted-printable text, so no content can close the boundary (RFC 2045, 6.7).
    """
    spoken = {"text": "plain", "html": "html"}
    if len(kinds) == 1:
        content_type, encoding = _PART.format(kind=spoken[kinds[0]]).encode().splitlines(keepends=True)
        return (b"MIME-Version: 1.0\r\n", content_type, encoding), ()
    whole = f'Content-Type: multipart/alternative;\r\n boundary="{boundary}"\r\n'.encode()
    opening = [f"--{boundary}\r\n{_PART.format(kind=spoken[kind])}\r\n" for kind in kinds]
    return (b"MIME-Version: 1.0\r\n", whole), (opening[0], f"\r\n{opening[1]}", f"\r\n--{boundary}--\r\n")


def _closed(body: str) -> str:
    """End a single part with one line break: relaxed canonicalisation ignores blank lines at the end."""
    body = body.rstrip("=\r\n")  # an encoded "=" is =3D: a "=" at the end is a soft break's
    if body.endswith(" "):
        body = body[:-1] + "=\r\n=20"
    return (body or "=") + "\r\n"


def _written(header: _Header | bytes, names: Names) -> bytes:
    return header if isinstance(header, bytes) else header.render(names)


def _sender(content: Content) -> _Header | bytes:
    templates = (
        Template.compile("from name", content.from_name.strip()),
        Template.compile("from address", content.from_address.strip()),
    )
    return _Header("From", templates, partial(wire.mailbox, "From")).made()


def _unsubscribe(one_click_url: str, mailto: str) -> _Header | bytes:
    sources = [source for source in (one_click_url, mailto) if source]
    if not sources:
        return b""
    templates = tuple(Template.compile("list-unsubscribe", source) for source in sources)
    return _Header("List-Unsubscribe", templates, wire.url_list).made()


def _own_headers(content: Content, feedback_id: str) -> tuple[_Header | bytes, ...]:
    def header(name: str, what: str, source: str, write: Callable[[str], str]) -> _Header | bytes:
        return _Header(name, (Template.compile(what, source.strip()),), write, optional=True).made()

    own = [header("Subject", "subject", content.subject, partial(wire.unstructured, "Subject"))]
    if content.reply_to:
        own.append(header("Reply-To", "reply-to", content.reply_to, wire.address))
    if feedback_id:
        own.append(header("Feedback-ID", "feedback id", feedback_id, partial(wire.unstructured, "Feedback-ID")))
    own += [
        header(name, f"header {name}", source, partial(wire.unstructured, name)) for name, source in content.headers
    ]
    return tuple(own)


def _misuse(content: Content, boundary: str) -> list[TemplateProblem]:
    """Return what is wrong with the content as a message, its templates apart."""
    found = []
    if not content.html and not content.text:
        found.append(TemplateProblem("html", 0, "the message has neither an HTML nor a text body"))
    if not _BOUNDARY.fullmatch(boundary):
        found.append(TemplateProblem("boundary", 0, "a boundary is 8 to 60 letters and digits"))
    if content.language and not _LANGUAGE.fullmatch(content.language):
        found.append(
            TemplateProblem("language", 0, f"'{content.language[:40]}' is not a language tag such as fr or pt-BR")
        )
    seen = set()
    for name, _ in content.headers:
        lowered = name.lower()
        if not wire.is_header_name(name):
            found.append(TemplateProblem("headers", 0, f"{name[:80]!r} is not a header name"))
        elif lowered in RESERVED_HEADERS or lowered.startswith(_RESERVED_PREFIXES):
            found.append(TemplateProblem("headers", 0, f"the header {name} is written by the system"))
        elif lowered in seen:
            found.append(TemplateProblem("headers", 0, f"the header {name} occurs twice"))
        seen.add(lowered)
    return found
