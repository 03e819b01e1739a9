"""Shapes of data: which messages must be rendered before anything leaves, so that no kind of message is left untried.

Two recipients have the same *shape* when the same fields of the content are filled, empty or missing, and every
condition (``if``, ``elif``, inline ``if``, whether a loop has turns) comes out the same. Whoever prepares a delivery asks
``shape_of`` for every recipient, keeps the first example of each shape, up to MAX_SHAPES, and gives each to
``check_render``: a name that is unknown only in one branch is then found before the first message, with its line.

Conditions are not guessed: they are evaluated by the same compiled template code, reduced to its conditions (a *probe*).
Their outcome is remembered by the fields that occur in them: by kind (none, "", empty, false, something) where conditions
only ask whether there is something, by value elsewhere, so nearly every recipient costs a look-up. Conditions on
``links`` see sample links. What cannot be evaluated is a shape of its own, so its problem is shown too.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from midsource.mail import grammar
from midsource.mail.content import Content, ContentError, RenderProblem
from midsource.mail.sandbox import names_of, taken
from midsource.mail.skeleton import RecipientEnvelope, Skeleton
from midsource.mail.template import Template, parse

MAX_SHAPES = 500
"""Examples a preparation renders: at about 0.1 ms each, nothing; beyond it, shapes differ by fields few templates mix."""
_REMEMBERED = 20_000
"""Outcomes kept, then forgotten together: fields in conditions (language, gender, segment) take few values."""
_FILLED, _EMPTY, _MISSING = range(3)
_NONE, _NO_TEXT, _NO_ITEMS, _FALSE, _SOMETHING, _ABSENT_KIND = range(6)
_KIND_TESTS = frozenset({"empty", "none"})
"""Tests after ``is`` that the kind of a value answers."""
_NOTHING: tuple[Any, ...] = (None, "", [])
_ABSENT = object()
_SAMPLE = RecipientEnvelope(
    to_address="sample@example.invalid",
    message_id="sample@example.invalid",
    date=datetime(2000, 1, 1, tzinfo=UTC),
    links={"unsubscribe": "https://example.invalid/unsubscribe", "mirror": "https://example.invalid/mirror"},
)


class ShapeFinder:
    """Tells the shapes of one content's data apart. Not shared between threads while ``shape_of`` runs."""

    def __init__(
        self,
        content: Content,
        *,
        delivery: Mapping[str, Any] = MappingProxyType({}),
        brand: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Compile the content; raise ContentError with every mistake found."""
        self._skeleton = Skeleton.compile(content, boundary="sample00", delivery=delivery, brand=brand)
        self._delivery, self._brand = delivery, brand
        self._probes, fields, by_value, by_kind = _probes(content)
        self.fields = tuple(sorted(fields))
        self._by_value = tuple(sorted(by_value))
        self._by_kind = tuple(sorted(by_kind - by_value))
        self._outcomes: dict[Hashable, Hashable] = {}

    def shape_of(self, data: Mapping[str, Any]) -> Hashable:
        """Return the shape of one recipient's data; equal shapes render alike."""
        try:
            filled = tuple([_EMPTY if data[name] in _NOTHING else _FILLED for name in self.fields])
        except KeyError:
            filled = tuple([_state(data.get(name, _ABSENT)) for name in self.fields])
        return filled, self._outcome(data)

    def check_render(self, data: Mapping[str, Any]) -> RenderProblem | None:
        """Render the whole message for ``data`` with sample address and links; return what stops it, None where nothing does."""
        try:
            self._skeleton.render(data, _SAMPLE)
        except RenderProblem as problem:
            return problem
        return None

    def _outcome(self, data: Mapping[str, Any]) -> Hashable:
        if not self._probes:
            return None
        values = [data.get(name, _ABSENT) for name in self._by_value]
        # With their types: 1, 1.0 and True are one key of a dictionary and three things to a template.
        key = (*values, *map(type, values), *[_kind(data.get(name, _ABSENT)) for name in self._by_kind])
        try:
            known = self._outcomes.get(key)
        except TypeError:  # a list is no key
            return self._evaluate(data)
        if known is None:
            if len(self._outcomes) >= _REMEMBERED:
                self._outcomes.clear()
            known = self._outcomes[key] = self._evaluate(data)
        return known

    def _evaluate(self, data: Mapping[str, Any]) -> Hashable:
        outcome: list[Hashable] = []
        for probe in self._probes:
            names = names_of(data, self._delivery, self._brand, _SAMPLE.links)
            try:
                probe.render(names)
            except RenderProblem as problem:
                outcome.append((problem.template, problem.line, problem.why))
            outcome.append(taken(names))
        return tuple(outcome)


def _state(value: object) -> int:
    if value is _ABSENT:
        return _MISSING
    return _EMPTY if value in _NOTHING else _FILLED


def _kind(value: object) -> int:
    """Tell apart what truth, ``is empty``, ``is none`` and comparing with "" or none tell apart."""
    if value is _ABSENT:
        return _ABSENT_KIND
    if value:
        return _SOMETHING
    if value is None:
        return _NONE
    if value == "":
        return _NO_TEXT
    return _NO_ITEMS if isinstance(value, list | tuple | dict) else _FALSE


def _probes(content: Content) -> tuple[list[Template], set[str], set[str], set[str]]:
    """Return the probes of a content, the fields it uses, and those whose value, or only kind, its conditions depend on."""
    probes: list[Template] = []
    fields: set[str] = set()
    by_value: set[str] = set()
    by_kind: set[str] = set()
    for name, source in content.sources():
        tree, problems = parse(name, source)
        if tree is None or problems:
            raise ContentError(problems)
        fields |= _recipient_fields(tree)
        if not any(tree.find(kind) for kind in (nodes.If, nodes.For, nodes.CondExpr)):
            continue
        reduced = _Probing().visit(tree)
        asked = {id(node) for node in _asked_for_kind(reduced)}
        for node in reduced.find_all((nodes.Getattr, nodes.Getitem)):
            field = _field_of(node)
            if field is not None:
                (by_kind if id(node) in asked else by_value).add(field)
        probes.append(Template(name, reduced, html=name == "html", flavour="plain"))
    return probes, fields, by_value, by_kind


def _asked_for_kind(tree: nodes.Node) -> Iterator[nodes.Node]:
    """Yield the nodes of ``tree`` of which only the kind is asked: as a condition, by ``not``, a test, or a comparison."""
    for branch in tree.find_all((nodes.If, nodes.CondExpr, nodes.For)):
        if isinstance(branch, nodes.If | nodes.CondExpr | nodes.For) and branch.test is not None:
            yield from _judged(branch.test)
    for negation in tree.find_all(nodes.Not):
        yield from _judged(negation.node)
    for test in tree.find_all(nodes.Test):
        if test.name in _KIND_TESTS:
            yield test.node
    for comparison in tree.find_all(nodes.Compare):
        sides = [comparison.expr, *(operand.expr for operand in comparison.ops)]
        if [operand.op for operand in comparison.ops] in (["eq"], ["ne"]) and any(map(_is_nothing, sides)):
            yield from sides


def _judged(condition: nodes.Node) -> Iterator[nodes.Node]:
    """Yield the parts of a condition whose truth alone decides it."""
    match condition:
        case nodes.Filter(name="_taken"):
            assert condition.node is not None
            yield from _judged(condition.node)
        case nodes.And() | nodes.Or():
            yield from _judged(condition.left)
            yield from _judged(condition.right)
        case _:
            yield condition


def _is_nothing(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Const) and (node.value is None or node.value == "")


def _field_of(node: nodes.Node) -> str | None:
    """Return the recipient field that ``node`` reads, None where it reads none."""
    return next((use.field for use in grammar.uses_at(node) if use.root == "recipient"), None)


def _recipient_fields(tree: nodes.Node) -> set[str]:
    return {use.field for use in grammar.uses(tree) if use.root == "recipient"}


class _Probing(NodeTransformer):
    """Reduces a template to its conditions: each is numbered and noted, what is only shown is left out."""

    def __init__(self) -> None:
        self._conditions = 0

    def _noted(self, condition: nodes.Node) -> nodes.Filter:
        assert isinstance(condition, nodes.Expr)
        self._conditions += 1
        number = nodes.Const(self._conditions)
        return nodes.Filter(condition, "_taken", [number], [], None, None, lineno=condition.lineno)

    def visit_If(self, node: nodes.If) -> nodes.Node:  # noqa: N802 - Jinja2's visitor names
        self.generic_visit(node)
        node.test = self._noted(node.test)
        return node

    def visit_CondExpr(self, node: nodes.CondExpr) -> nodes.Node:  # noqa: N802 - Jinja2's visitor names
        self.generic_visit(node)
        node.test = self._noted(node.test)
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - Jinja2's visitor names
        self.generic_visit(node)
        node.iter = self._noted(node.iter)
        if node.test is not None:
            node.test = self._noted(node.test)
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802 - Jinja2's visitor names
        node.nodes = [shown for shown in node.nodes if _has_condition(shown)]
        return self.generic_visit(node)


def _has_condition(node: nodes.Node) -> bool:
    return isinstance(node, nodes.CondExpr) or node.find(nodes.CondExpr) is not None
