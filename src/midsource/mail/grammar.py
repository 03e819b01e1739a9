"""Which part of the template language an author may use, decided on the syntax tree before anything is compiled.

The language is a list of allowed nodes, not a list of forbidden ones: text, ``{{ expressions }}``, ``{% if %}``,
``{% for %}``, ``{% set %}``. There is no way to another file, to a macro, to a captured block, or to a call other than
``range``; so rendered text never re-enters an expression, and static text may be encoded for the wire in advance.

Names are static. ``recipient``, ``delivery``, ``brand`` and ``links`` are followed by a literal field name and are
never assigned to, so the fields a content uses are known without data, and a wrong name is a mistake with a line.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

from jinja2 import nodes

from midsource.mail.content import TemplateProblem
from midsource.mail.filters import FILTERS, TESTS

ROOTS: Mapping[str, frozenset[str] | None] = MappingProxyType(
    {
        "recipient": None,  # fields of the data, known per delivery
        "delivery": frozenset({"label", "id"}),
        "brand": frozenset({"name"}),
        "links": frozenset({"unsubscribe", "mirror"}),
    }
)
"""Names every template knows, with the fields they have."""

_ALLOWED: tuple[type[nodes.Node], ...] = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem, nodes.Slice,
    nodes.If, nodes.For, nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Compare, nodes.Operand, nodes.And, nodes.Or,
    nodes.Not, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Neg, nodes.Pos, nodes.Concat,
    nodes.Assign, nodes.List, nodes.Tuple, nodes.Call, nodes.Keyword,
)  # fmt: skip
_SPOKEN: Mapping[type[nodes.Node], str] = {
    nodes.Macro: "{% macro %}", nodes.CallBlock: "{% call %}", nodes.FilterBlock: "{% filter %}",
    nodes.AssignBlock: "{% set %} with a block", nodes.Include: "{% include %}", nodes.Import: "{% import %}",
    nodes.FromImport: "{% from %}", nodes.Extends: "{% extends %}", nodes.Block: "{% block %}", nodes.With: "{% with %}",
    nodes.Pow: "the operator **", nodes.Dict: "a dictionary", nodes.ScopedEvalContextModifier: "{% autoescape %}",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Use:
    """One place where a template reads a field: ``recipient.first_name`` on line 12."""

    root: str
    field: str
    line: int


def suggestion(wrong: str, known: Collection[str]) -> str:
    """Return `` (did you mean x?)`` for the nearest of ``known``, or ""."""
    near = get_close_matches(wrong, known, n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""


def uses(tree: nodes.Node) -> Iterator[Use]:
    """Yield every field a checked tree reads."""
    for node in _lookups(tree):
        yield from uses_at(node)


def uses_at(node: nodes.Node) -> Iterator[Use]:
    """Yield the field that this node itself reads, nothing where it reads none."""
    if isinstance(node, nodes.Getattr | nodes.Getitem):
        root, field = _root_and_field(node)
        if root is not None and field is not None:
            yield Use(root, field, node.lineno)


def unknown_recipient_fields(template: str, tree: nodes.Node, fields: Collection[str]) -> list[TemplateProblem]:
    """Return a problem for each recipient field the template names and ``fields`` lacks."""
    return [
        TemplateProblem(template, use.line, f"'recipient.{use.field}' is unknown{suggestion(use.field, fields)}")
        for use in uses(tree)
        if use.root == "recipient" and use.field not in fields
    ]


def problems(template: str, tree: nodes.Template) -> list[TemplateProblem]:
    """Return everything in ``tree`` that the language does not have; [] means it may be compiled."""
    assigned = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}
    rooted = {id(node.node) for node in _lookups(tree) if isinstance(node.node, nodes.Name)}
    called = {id(call.node) for call in tree.find_all(nodes.Call)}
    found = []
    for node in _walk(tree):
        why = _refusal(node)
        if why is None and isinstance(node, nodes.Name):
            why = _refused_name(node, assigned, is_rooted=id(node) in rooted, is_called=id(node) in called)
        if why is not None:
            found.append(TemplateProblem(template, node.lineno, why))
    return found


def _walk(node: nodes.Node) -> Iterator[nodes.Node]:
    """Yield ``node`` and what is below it, but nothing below a node that is refused anyway."""
    yield node
    if isinstance(node, _ALLOWED):
        for child in node.iter_child_nodes():
            yield from _walk(child)


def _lookups(tree: nodes.Node) -> Iterator[nodes.Getattr | nodes.Getitem]:
    yield from tree.find_all(nodes.Getattr)
    yield from tree.find_all(nodes.Getitem)


def _root_and_field(node: nodes.Getattr | nodes.Getitem) -> tuple[str | None, str | None]:
    if not isinstance(node.node, nodes.Name) or node.node.name not in ROOTS:
        return None, None
    if isinstance(node, nodes.Getattr):
        return node.node.name, node.attr
    key = node.arg.value if isinstance(node.arg, nodes.Const) else None
    return node.node.name, key if isinstance(key, str) else None


def _refusal(node: nodes.Node) -> str | None:
    """Say why this node alone is not part of the language; None where it is."""
    match node:
        case nodes.Getattr() | nodes.Getitem():
            return _refused_field(node)
        case nodes.Filter(name=name) if name not in FILTERS:
            return f"there is no filter '{name}'{suggestion(name, FILTERS)}"
        case nodes.Test(name=name) if name not in TESTS:
            return f"there is no test '{name}'{suggestion(name, TESTS)}"
        case nodes.Filter() | nodes.Test() | nodes.Call() if node.dyn_args is not None or node.dyn_kwargs is not None:
            return "* and ** are not available here"
        case nodes.Call() if not (isinstance(node.node, nodes.Name) and node.node.name == "range"):
            return "nothing can be called but range(); a filter does it: {{ value|upper }}"
        case nodes.For(recursive=True):
            return "a recursive loop is not available here"
        case nodes.List() | nodes.Tuple() if _nests(node):
            return "a list holds literals and fields only"
        case _ if not isinstance(node, _ALLOWED):
            return f"{_SPOKEN.get(type(node), type(node).__name__.lower())} is not available here"
    return None


def _nests(node: nodes.List | nodes.Tuple) -> bool:
    """Whether a list could hold a list: lists built of lists double at each step, and comparing them never ends."""
    if isinstance(node, nodes.Tuple) and node.ctx == "store":
        return False
    return any(not isinstance(item, nodes.Const) and not _is_field(item) for item in node.items)


def _is_field(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Getattr | nodes.Getitem) and _root_and_field(node)[0] is not None


def _refused_field(node: nodes.Getattr | nodes.Getitem) -> str | None:
    root, field = _root_and_field(node)
    if root is None:
        hidden = isinstance(node, nodes.Getattr) and node.attr.startswith("_")
        return "a name that begins with _ is not available" if hidden else None
    if field is None:
        return f"'{root}' is followed by a field name: {root}.name or {root}['name']"
    known = ROOTS[root]
    if field.startswith("_"):
        return "a name that begins with _ is not available"
    return None if known is None or field in known else f"'{root}.{field}' is unknown{suggestion(field, known)}"


def _refused_name(node: nodes.Name, assigned: set[str], *, is_rooted: bool, is_called: bool) -> str | None:
    name = node.name
    if node.ctx == "store":
        if name in ROOTS or name in ("range", "loop") or name.startswith("_"):
            return f"'{name}' cannot be assigned to"
        return None
    if name in ROOTS:
        return None if is_rooted else f"'{name}' is followed by a field name: {name}.name"
    if name in assigned or name == "loop" or (name == "range" and is_called):
        return None
    return f"'{name}' is unknown (fields are written recipient.{name})"
