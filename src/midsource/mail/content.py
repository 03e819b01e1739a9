"""What an author writes: one message as template sources, and what can be wrong with them.

A ``Content`` is the unrendered message of one delivery: subject, HTML, text, sender and own headers, every one a Jinja2
template. It is a value: nothing is compiled here. ``mail.template`` compiles it, ``mail.checks`` judges it,
``mail.skeleton`` turns it into wire pieces. Limits are constants here and are reported by ``template.compile_errors``,
so that an oversized source is refused before anything is parsed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from midsource.model.errors import UserError

MAX_BODY_CHARS = 500_000
"""Characters of one body's source: ten times the size at which providers clip a message (about 100 kB)."""
MAX_HEADER_CHARS = 2_000
"""Characters of the source of a subject, name, address or own header: templates are longer than what they render to."""
MAX_OWN_HEADERS = 20
"""Own headers of one content; the field's templates use up to six."""


@dataclass(frozen=True, slots=True)
class Content:
    """The sources of one message. An absent body is "": a message needs at least one of the two."""

    subject: str
    html: str
    text: str
    from_name: str
    from_address: str
    reply_to: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    language: str = ""

    def sources(self) -> Iterator[tuple[str, str]]:
        """Yield every template as (name, source), in the order an author thinks of them."""
        yield "subject", self.subject
        yield "html", self.html
        yield "text", self.text
        yield "from name", self.from_name
        yield "from address", self.from_address
        if self.reply_to is not None:
            yield "reply-to", self.reply_to
        for name, source in self.headers:
            yield f"header {name}", source


@dataclass(frozen=True, slots=True)
class TemplateProblem:
    """One mistake in a template, found without any data. ``line`` counts from 1; 0 concerns the whole template."""

    template: str
    line: int
    why: str

    def __str__(self) -> str:
        """Return what an author reads: ``html line 12: ...``."""
        return f"{self.template} line {self.line}: {self.why}" if self.line else f"{self.template}: {self.why}"


class ContentError(UserError):
    """The content cannot be compiled; ``problems`` holds every mistake found."""

    code = "MS-130"

    def __init__(self, problems: Sequence[TemplateProblem]) -> None:
        super().__init__("; ".join(map(str, problems)), "correct the content and prepare the delivery again")
        self.problems = tuple(problems)


class RenderProblem(UserError):
    """The content cannot be rendered for one recipient's data. A fault of ours: it never counts against the person."""

    code = "MS-131"

    def __init__(self, template: str, line: int, why: str) -> None:
        super().__init__(str(TemplateProblem(template, line, why)))
        self.template = template
        self.line = line
        self.why = why
