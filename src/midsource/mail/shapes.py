"""Shapes of data: which messages must be rendered before anything leaves, so that no kind of message is left untried.

Two recipients have the same *shape* when the same fields of the content are filled, empty or missing, and every
condition (``if``, ``elif``, inline ``if``, whether a loop has turns) comes out the same. Whoever prepares a delivery asks
``shape_of`` for every recipient, keeps the first example of each shape, up to MAX_SHAPES, and gives each to
``check_render``: a name that is unknown only in one branch is then found before the first message, with its line.

Conditions are not guessed: they are evaluated by the same compiled template code, reduced to its conditions (a *probe*).
Their outcome is remembered by the values of the fields that occur in them, so most recipients cost a look-up. Conditions
on ``links`` see sample links. What cannot be evaluated is a shape of its own, so its problem is shown too.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
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
        self._probes, fields, in_conditions = _probes(content)
        self.fields = tuple(sorted(fields))
        self._in_conditions = tuple(sorted(in_conditions))
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
        values = [data.get(name, _ABSENT) for name in self._in_conditions]
        # With their types: 1, 1.0 and True are one key of a dictionary and three things to a template.
        key = (*values, *map(type, values))
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


def _probes(content: Content) -> tuple[list[Template], set[str], set[str]]:
    """Return the probes of a content, the recipient fields it uses, and those its conditions depend on."""
    probes, fields, in_conditions = [], set(), set()
    for name, source in content.sources():
        tree, problems = parse(name, source)
        if tree is None or problems:
            raise ContentError(problems)
        fields |= _recipient_fields(tree)
        if not any(tree.find(kind) for kind in (nodes.If, nodes.For, nodes.CondExpr)):
            continue
        reduced = _Probing().visit(tree)
        in_conditions |= _recipient_fields(reduced)
        probes.append(Template(name, reduced, html=name == "html", flavour="plain"))
    return probes, fields, in_conditions


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
