"""Preparation checks on a content: what an operator is told before anything leaves.

Each check is a pure function of the content; each finding is one sentence with its remedy inside. An *error* stops the
preparation, a *warning* asks, an *info* tells. ``check_content`` runs them all. Sizes are of a rendered sample, because
templates are longer than what they render to.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

from jinja2 import TemplateSyntaxError

from midsource.mail import grammar
from midsource.mail import headers as wire
from midsource.mail.content import Content
from midsource.mail.sandbox import environment
from midsource.mail.skeleton import WireMessage
from midsource.mail.template import compile_errors, parse

SIZE_WARNING_BYTES = 35_000
"""The field's advised size of a message: beyond it, sending slows down and phones load in steps."""
SIZE_ERROR_BYTES = 60_000
"""The field's advised maximum; providers clip at about 100 kB, hiding the opt-out link at the end."""
_HOST = re.compile(r"""https?://([^/?#"'<>\s]*)""", re.IGNORECASE)
_MARK = "\ufffc"  # stands for a value; no URL or address contains the object replacement character


class Severity(StrEnum):
    """What a finding means for the preparation."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of one check; ``check`` is its stable name."""

    severity: Severity
    check: str
    sentence: str


def check_content(
    content: Content, *, sender_domains: Collection[str], fields: Collection[str] | None = None
) -> tuple[Finding, ...]:
    """Return everything found in ``content``, errors first.

    ``sender_domains`` are the domains a sender may use (their subdomains are separate); ``fields`` the recipient's.
    """
    syntax = [Finding(Severity.ERROR, "template", f"{problem}.") for problem in compile_errors(content, fields)]
    found = [
        *syntax,
        *_bodies(content),
        *_opt_out(content),
        *_subject(content),
        *_sender(content, {domain.lower() for domain in sender_domains}),
        *_open_redirects(content),
    ]
    order = list(reversed(Severity))
    return tuple(sorted(found, key=lambda finding: order.index(finding.severity)))


def check_size(sample: WireMessage) -> tuple[Finding, ...]:
    """Judge the size of a rendered sample, without its signatures (about 0.7 kB each)."""
    size = sum(map(len, sample.headers)) + len(sample.body)
    if size > SIZE_ERROR_BYTES:
        limit, severity = SIZE_ERROR_BYTES, Severity.ERROR
    elif size > SIZE_WARNING_BYTES:
        limit, severity = SIZE_WARNING_BYTES, Severity.WARNING
    else:
        return (Finding(Severity.INFO, "size", f"A message takes {size / 1000:.1f} kB."),)
    why = f"A message takes {size / 1000:.1f} kB, more than {limit // 1000} kB: shorten the HTML or host its images."
    return (Finding(severity, "size", why),)


def _bodies(content: Content) -> Iterator[Finding]:
    if not content.html and not content.text:
        yield Finding(Severity.ERROR, "body", "The message has neither an HTML nor a text body: write one.")
    elif not content.text:
        yield Finding(Severity.WARNING, "body", "The message has no text body: filters and screen readers expect one.")
    elif not content.html:
        yield Finding(Severity.INFO, "body", "The message has a text body only.")


def _opt_out(content: Content) -> Iterator[Finding]:
    for name, source in (("html", content.html), ("text", content.text)):
        tree, _ = parse(name, source)
        if not source or tree is None:
            continue
        if not any((use.root, use.field) == ("links", "unsubscribe") for use in grammar.uses(tree)):
            spoken = "HTML" if name == "html" else "text"
            why = f"The {spoken} body has no opt-out link: put {{{{ links.unsubscribe }}}} into it."
            yield Finding(Severity.ERROR, "opt-out", why)


def _subject(content: Content) -> Iterator[Finding]:
    if not content.subject.strip():
        yield Finding(Severity.ERROR, "subject", "The message has no subject: write one.")
    elif not _marked(content.subject).replace(_MARK, "").strip():
        why = "The subject is made of data only: a recipient without them gets none."
        yield Finding(Severity.WARNING, "subject", why)


def _sender(content: Content, domains: Collection[str]) -> Iterator[Finding]:
    marked = _marked(content.from_address).strip()
    domain = marked.rpartition("@")[2].lower()
    if _MARK in domain or not marked:
        why = "The sender's domain is missing or made of data: write it, since it decides the signature."
        yield Finding(Severity.ERROR, "sender", why)
        return
    try:
        wire.address(marked.replace(_MARK, "x"))
    except ValueError:
        yield Finding(Severity.ERROR, "sender", f"The sender '{content.from_address}' is not an address: correct it.")
        return
    if domain not in domains:
        allowed = ", ".join(sorted(domains)) or "none yet"
        why = f"The sender's domain {domain} is not among the allowed ones ({allowed}): change it or allow the domain."
        yield Finding(Severity.ERROR, "sender", why)


def _open_redirects(content: Content) -> Iterator[Finding]:
    for name, source in (("html", content.html), ("text", content.text)):
        marked = _marked(source)
        for host in _HOST.finditer(marked):
            if _MARK in host[1]:
                line = marked.count("\n", 0, host.start()) + 1
                why = f"{name} line {line}: the host of a link is made of data: whoever writes the data chooses where it leads."
                yield Finding(Severity.WARNING, "link-host", why)


def _marked(source: str) -> str:
    """Return the static text with a mark for each shown value, line for line; "" for a source that cannot be read.

    Read with the template language's own lexer: a search for ``{{ ... }}`` takes quadratic time on hostile sources.
    """
    out = []
    try:
        for _, token, text in environment(html=False, flavour="plain").lex(source):
            if token == "data":  # noqa: S105 - a kind of token
                out.append(text)
            else:
                out.append((_MARK if token == "variable_begin" else "") + "\n" * text.count("\n"))  # noqa: S105 - likewise
    except TemplateSyntaxError:
        return ""
    return "".join(out)
