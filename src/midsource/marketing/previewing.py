"""A message as one person would get it, without sending anything: what the preview shows.

Rendered by the same code that the mid uses (``mail.skeleton``), so what breaks there breaks here, with template and line.
Links that only the mid can make stand as an address that leads nowhere. Not signed: a signature is the mid's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from midsource.mail.checks import Finding, Severity, check_size
from midsource.mail.content import Content, ContentError, RenderProblem
from midsource.mail.sandbox import names_of
from midsource.mail.skeleton import RecipientEnvelope, Skeleton
from midsource.mail.template import Template
from midsource.marketing.fields import FIXED
from midsource.marketing.recipients import Recipient

NOWHERE = "https://example.invalid/"
"""Where preview links lead (RFC 6761: no such host)."""
_LINKS = {"unsubscribe": f"{NOWHERE}unsubscribe", "mirror": f"{NOWHERE}mirror"}
_BOUNDARY = "preview0"


@dataclass(frozen=True, slots=True)
class Preview:
    """A rendered message: headers as (name, value), bodies, and its size on the wire. ``findings``: why it cannot be, or its size."""

    subject: str
    headers: Sequence[tuple[str, str]]
    html: str
    text: str
    size_bytes: int
    findings: Sequence[Finding]

    @property
    def is_rendered(self) -> bool:
        """Whether there is a message."""
        return bool(self.size_bytes)


def data_of(person: Recipient, own: Sequence[str]) -> dict[str, Any]:
    """Return what templates see of ``person``: every field of the instance, empty ones as None."""
    return {name: getattr(person, name) for name in FIXED} | {name: person.fields.get(name) for name in own}


def preview(
    content: Content, person: Recipient, own: Sequence[str], *, delivery: Mapping[str, Any], brand: str, now: datetime
) -> Preview:
    """Render ``content`` for ``person``; what cannot be rendered is a finding."""
    names = {"name": brand}
    envelope = RecipientEnvelope(person.email or "nobody@example.invalid", "preview@example.invalid", now, _LINKS)
    try:
        skeleton = Skeleton.compile(
            content, boundary=_BOUNDARY, delivery=delivery, brand=names, one_click_url="{{ links.unsubscribe }}"
        )
        message = skeleton.render(data_of(person, own), envelope)
        html, text, subject = (
            Template.compile(name, source, html=name == "html").render(
                names_of(data_of(person, own), delivery, names, _LINKS)
            )
            if source
            else ""
            for name, source in (("html", content.html), ("text", content.text), ("subject", content.subject))
        )
    except ContentError as exc:
        return _broken([str(problem) for problem in exc.problems])
    except RenderProblem as exc:
        return _broken([exc.cause])
    headers = [_header(line) for line in message.headers]
    size = sum(map(len, message.headers)) + len(message.body) + 2
    return Preview(subject, headers, html, text, size, check_size(message))


def _broken(problems: Sequence[str]) -> Preview:
    return Preview("", (), "", "", 0, [Finding(Severity.ERROR, "render", f"{problem}.") for problem in problems])


def _header(line: bytes) -> tuple[str, str]:
    name, _, value = line.decode("utf-8", "replace").partition(":")
    return name, value.strip().replace("\r\n", "\n")
