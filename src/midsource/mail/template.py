"""One template: compiled once, rendered for many, every fault named with its line.

Order of events: ``parse`` reads a source and asks ``mail.grammar`` whether the tree stays inside the language;
``Template.compile`` lets ``mail.sandbox`` bound its loops and Jinja2 generate Python; ``render`` runs that over plain
mappings, as text (PLAIN) or as quoted-printable pieces (WIRE).

Limits: source size (``mail.content``), MAX_STEPS node evaluations in loops, one value's length (``mail.filters``),
MAX_OUTPUT_CHARS for the result. A template that breaks one is a RenderProblem of that recipient. Compiled templates are
immutable and may be rendered by several threads at once.
"""

from __future__ import annotations

from collections.abc import Collection
from types import TracebackType

import jinja2
from jinja2 import nodes
from jinja2.runtime import Context

from midsource.mail import grammar, sandbox
from midsource.mail.content import (
    MAX_BODY_CHARS,
    MAX_HEADER_CHARS,
    MAX_OWN_HEADERS,
    Content,
    ContentError,
    RenderProblem,
    TemplateProblem,
)
from midsource.mail.filters import Refused
from midsource.mail.sandbox import Flavour, Names
from midsource.model.errors import first_line

MAX_OUTPUT_CHARS = 1_000_000
"""Characters of one rendered template: ten times the size providers clip at."""
_UNBUDGETED_PLACES = 100
"""Places a template without loops may have before its output is counted while it grows: 100 longest values are 7 MB."""
_WHY_CHARS = 300
_DATA_FAULTS = (KeyError, jinja2.TemplateError, Refused)


class Template:
    """One compiled source. ``constant`` is its text when it shows no values, else None."""

    __slots__ = ("_budgeted", "_environment", "_module", "_root", "constant", "name", "uses")

    def __init__(self, name: str, tree: nodes.Template, *, html: bool, flavour: Flavour) -> None:
        self.name = name
        self.uses = frozenset(grammar.uses(tree))
        self._environment = sandbox.environment(html=html, flavour=flavour)
        static = all(isinstance(node, nodes.Output | nodes.TemplateData) for node in tree.iter_child_nodes())
        static = static and all(
            isinstance(node, nodes.TemplateData) for out in tree.find_all(nodes.Output) for node in out.nodes
        )
        text = "".join(data.data for data in tree.find_all(nodes.TemplateData))
        self.constant = self._environment.encode(text) if static else None
        places = sum(len(out.nodes) for out in tree.find_all(nodes.Output))
        self._budgeted = tree.find(nodes.For) is not None or places > _UNBUDGETED_PLACES
        sandbox.bound_loops(tree)
        code = self._environment.compile(tree, name, f"<{name}>")
        self._module = jinja2.Template.from_code(self._environment, code, {})
        self._root = self._module.root_render_func

    @classmethod
    def compile(cls, name: str, source: str, *, html: bool = False, flavour: Flavour = "plain") -> Template:
        """Compile ``source``; raise ContentError with every mistake found."""
        tree, problems = parse(name, source)
        if tree is None or problems:
            raise ContentError(problems)
        try:
            return cls(name, tree, html=html, flavour=flavour)
        except (SyntaxError, RecursionError) as error:  # Python: too many blocks nested statically
            raise ContentError([TemplateProblem(name, 0, "too deeply nested")]) from error
        except jinja2.TemplateSyntaxError as error:
            raise ContentError([TemplateProblem(name, error.lineno, str(error.message))]) from error

    def render(self, names: Names) -> str:
        """Return the text (PLAIN) or the pieces (WIRE) for one recipient; raise RenderProblem where the data fail."""
        if self.constant is not None:
            return self.constant
        context = Context(self._environment, names, self.name, {})
        try:
            if self._budgeted:
                return self._render_counting(context)
            text = "".join(self._root(context))
        except Exception as error:  # data can fail in any way; the message is set aside by name
            raise self._problem(error, names) from error
        if len(text) > MAX_OUTPUT_CHARS:
            raise RenderProblem(self.name, 0, f"renders to more than {MAX_OUTPUT_CHARS} characters")
        return text

    def _render_counting(self, context: Context) -> str:
        chunks, left = [], MAX_OUTPUT_CHARS
        sandbox.refill_steps(context.parent)
        for chunk in self._root(context):
            chunks.append(chunk)
            left -= len(chunk)
            if left < 0:
                raise Refused(f"renders to more than {MAX_OUTPUT_CHARS} characters")
        return "".join(chunks)

    def _problem(self, error: Exception, names: Names) -> RenderProblem:
        line = self._line(error.__traceback__)
        if isinstance(error, KeyError):
            why = self._unknown(str(error.args[0]), line, names)
        elif isinstance(error, _DATA_FAULTS):
            why = str(error)
        else:
            why = first_line(error)
        return RenderProblem(self.name, line, why[:_WHY_CHARS])

    def _unknown(self, field: str, line: int, names: Names) -> str:
        at = [use for use in self.uses if use.field == field]
        root = next((use.root for use in at if use.line == line), at[0].root if at else "recipient")
        return f"'{root}.{field}' is unknown{grammar.suggestion(field, [str(name) for name in names[root]])}"

    def _line(self, traceback: TracebackType | None) -> int:
        line = 0
        while traceback is not None:
            if traceback.tb_frame.f_code.co_filename == f"<{self.name}>":
                line = self._module.get_corresponding_lineno(traceback.tb_lineno)
            traceback = traceback.tb_next
        return line


def parse(name: str, source: str) -> tuple[nodes.Template | None, list[TemplateProblem]]:
    """Return the tree of ``source`` and what is wrong with it; no tree where it cannot be read."""
    limit = MAX_BODY_CHARS if name in ("html", "text") else MAX_HEADER_CHARS
    if len(source) > limit:
        return None, [TemplateProblem(name, 0, f"{len(source)} characters; the limit is {limit}")]
    try:
        tree = sandbox.environment(html=name == "html", flavour="plain").parse(source)
        return tree, grammar.problems(name, tree)
    except jinja2.TemplateSyntaxError as error:
        return None, [TemplateProblem(name, error.lineno, str(error.message))]
    except RecursionError:
        return None, [TemplateProblem(name, 0, "too deeply nested")]


def compile_errors(content: Content, fields: Collection[str] | None = None) -> tuple[TemplateProblem, ...]:
    """Return every mistake that shows without data; with ``fields`` (the recipient's), also every unknown field."""
    found: list[TemplateProblem] = []
    if len(content.headers) > MAX_OWN_HEADERS:
        found.append(TemplateProblem("headers", 0, f"{len(content.headers)} headers; the limit is {MAX_OWN_HEADERS}"))
    for name, source in content.sources():
        tree, problems = parse(name, source)
        if tree is not None and fields is not None:
            problems += grammar.unknown_recipient_fields(name, tree, fields)
        found += problems or _uncompilable(name, source)
    return tuple(found)


def _uncompilable(name: str, source: str) -> tuple[TemplateProblem, ...]:
    """Return what only the compiler finds: blocks nested too deeply, a filter with wrong arguments."""
    try:
        Template.compile(name, source, html=name == "html")
    except ContentError as error:
        return error.problems
    return ()


def fields_used(content: Content) -> frozenset[str]:
    """Return the recipient fields the content names; a source that cannot be read contributes none."""
    trees = (parse(name, source)[0] for name, source in content.sources())
    return frozenset(
        use.field for tree in trees if tree is not None for use in grammar.uses(tree) if use.root == "recipient"
    )
