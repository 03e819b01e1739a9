"""The sandbox under the templates: Jinja2 without attributes, calls or anything that grows without bound.

A name after a dot is a key of a mapping, or one of seven numbers of ``loop``; never an attribute of a Python object.
Loops pay for each turn out of a budget, ``range`` is short, operators and ``~`` refuse results that are too long.

Four environments, one meaning: plain or wire, text or HTML. PLAIN gives text; WIRE gives the same text as quoted-printable
pieces, static parts encoded while compiling, each value encoded (and remembered) on its own. Environments hold no state
but that memory, and are shared by all deliveries and threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.runtime import Context, LoopContext, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer
from markupsafe import escape

from midsource.mail import grammar
from midsource.mail.filters import FILTERS, MAX_LIST_ITEMS, TESTS, Refused, concatenate, text_of
from midsource.mail.quoted import encode_piece

Flavour: TypeAlias = Literal["plain", "wire"]
Names: TypeAlias = dict[str, Any]
"""What a template sees: the four roots of ``grammar.ROOTS``; made by ``names_of``."""

MAX_RANGE = 1_000
MAX_STEPS = 200_000
"""Node evaluations in loops of one rendering: about 0.1 s of one core."""
_REMEMBERED_VALUES = 16_384
"""Encoded values kept per environment: about 4 MB of first names and cities, which repeat."""
_REMEMBERED_CHARS = 256
"""Longer values are encoded each time: they rarely repeat."""
_LOOP_NUMBERS = frozenset({"index", "index0", "revindex", "revindex0", "first", "last", "length"})
_STEPS = "_steps"
_TAKEN = "_taken"


class _CodeGenerator(CodeGenerator):
    """Jinja2's generator with three changes: values go through ``environment.emit``, fields are plain subscripts, and
    nothing but static text is evaluated while compiling.
    """

    environment: SandboxEnvironment

    def visit_Getattr(self, node: nodes.Getattr, frame: Frame) -> None:  # noqa: N802 - Jinja2's visitor names
        if isinstance(node.node, nodes.Name) and node.node.name in grammar.ROOTS:
            self.visit(node.node, frame)
            self.write(f"[{node.attr!r}]")
        else:
            super().visit_Getattr(node, frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802 - Jinja2's visitor names
        if isinstance(node.node, nodes.Name) and node.node.name in grammar.ROOTS and isinstance(node.arg, nodes.Const):
            self.visit(node.node, frame)
            self.write(f"[{node.arg.value!r}]")
        else:
            super().visit_Getitem(node, frame)

    def _output_const_repr(self, group: Iterable[Any]) -> str:
        return repr(self.environment.encode("".join(group)))

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: Any) -> str:  # noqa: ARG002 - inherited
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible
        return node.data

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:  # noqa: ARG002 - inherited
        self.write("environment.emit(")

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:  # noqa: ARG002 - inherited
        self.write(")")


class SandboxEnvironment(ImmutableSandboxedEnvironment):
    """One of four: plain or wire, text or HTML. Holds no state but the memory of encoded values."""

    code_generator_class = _CodeGenerator
    intercepted_binops = frozenset({"+", "*", "%", "-", "/", "//"})

    def __init__(self, *, html: bool, flavour: Flavour) -> None:
        super().__init__(
            autoescape=html, undefined=StrictUndefined, optimized=False, keep_trailing_newline=True, cache_size=0
        )
        self.encode: Callable[[str], str] = encode_piece if flavour == "wire" else str
        self.emit = _emitter(self.encode, html=html)
        self.filters = {**FILTERS, "_counted": _counted, "_concatenate": concatenate, "_taken": _taken}
        self.tests = dict(TESTS)
        self.globals = {}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Look up a key of a mapping or a number of ``loop``; nothing else has names here."""
        if isinstance(obj, LoopContext) and attribute in _LOOP_NUMBERS:
            return getattr(obj, attribute)
        if isinstance(obj, Mapping):
            return self.getitem(obj, attribute)
        if isinstance(obj, jinja2.Undefined):
            return str(obj)  # raises what is unknown
        raise Refused(
            f"'{attribute}' is not available on a {type(obj).__name__}; a filter does it: {{{{ value|upper }}}}"
        )

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Look up a key of a mapping or a position in a list or text."""
        if isinstance(obj, Mapping | list | tuple | str):
            try:
                return obj[argument]
            except (LookupError, TypeError):
                if not isinstance(obj, Mapping):
                    raise Refused(
                        f"there is no position {argument!r} in a {type(obj).__name__} of {len(obj)}"
                    ) from None
                near = grammar.suggestion(str(argument), [str(key) for key in obj])
                raise Refused(f"'{argument}' is unknown{near}") from None
        raise Refused(f"'{argument}' is not available on a {type(obj).__name__}")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Calculate with numbers; ``+`` also joins two texts or two lists. Results stay small."""
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return text_of(left + right)
        if operator == "+" and isinstance(left, list) and isinstance(right, list):
            if len(left) + len(right) > MAX_LIST_ITEMS:
                raise Refused(f"a list of more than {MAX_LIST_ITEMS} items")
            return left + right
        if isinstance(left, str | list | tuple) or isinstance(right, str | list | tuple):
            raise Refused(f"'{operator}' calculates with numbers, not with text or lists")
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, int) and result.bit_length() > 256:
            raise Refused("a number of more than 77 digits")
        return result


def _emitter(encode: Callable[[str], str], *, html: bool) -> Callable[[Any], str]:
    """Return the function that every shown value passes: empty is "", HTML is escaped, then the flavour's encoding."""

    def convert(text: str) -> str:
        return encode(str(escape(text)) if html else str(text))

    remembered = lru_cache(_REMEMBERED_VALUES)(convert)

    def emit(value: Any) -> str:
        if type(value) is str and len(value) <= _REMEMBERED_CHARS:
            return remembered(value)
        return convert(text_of(value))

    return emit


@jinja2.pass_context
def _counted(context: Context, value: Any, cost: int) -> Iterator[Any]:
    """Iterate over a list, text or range, paying ``cost`` steps for each turn out of this rendering's budget."""
    if value is None:
        return
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises what is unknown
    if not isinstance(value, str | list | tuple | range):
        raise Refused(f"a {type(value).__name__} is not a list")
    steps: list[int] = context.parent[_STEPS]
    for item in value:
        steps[0] -= cost
        if steps[0] < 0:
            raise Refused(f"the loops take more than {MAX_STEPS} steps")
        yield item


@jinja2.pass_context
def _taken(context: Context, value: Any, condition: int) -> Any:
    """Note how condition number ``condition`` came out; ``mail.shapes`` puts it around each condition of a probe."""
    noted: set[tuple[int, bool]] = context.parent[_TAKEN]
    noted.add((condition, bool(value)))
    return value


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > MAX_RANGE:
        raise Refused(f"range gives at most {MAX_RANGE} numbers")
    return numbers


class _Bounding(NodeTransformer):
    """Wraps what is looped over into a counter, and ``~`` into a bounded join."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 - Jinja2's visitor names
        cost = 1 + sum(1 for part in node.body for _ in part.find_all(nodes.Node))
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "_counted", [nodes.Const(cost)], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802 - Jinja2's visitor names
        self.generic_visit(node)
        first, *others = node.nodes
        return nodes.Filter(first, "_concatenate", others, [], None, None, lineno=node.lineno)


_ENVIRONMENTS: Mapping[tuple[bool, Flavour], SandboxEnvironment] = MappingProxyType(
    {
        (False, "plain"): SandboxEnvironment(html=False, flavour="plain"),
        (False, "wire"): SandboxEnvironment(html=False, flavour="wire"),
        (True, "plain"): SandboxEnvironment(html=True, flavour="plain"),
        (True, "wire"): SandboxEnvironment(html=True, flavour="wire"),
    }
)


def environment(*, html: bool, flavour: Flavour) -> SandboxEnvironment:
    """Return the shared environment for bodies (HTML or text) in a flavour."""
    return _ENVIRONMENTS[html, flavour]


def bound_loops(tree: nodes.Template) -> None:
    """Change ``tree`` in place so that its loops are counted and its joins bounded."""
    _Bounding().visit(tree)


def refill_steps(names: Names) -> None:
    """Give the next template over ``names`` its own MAX_STEPS."""
    names[_STEPS][0] = MAX_STEPS


def names_of(
    recipient: Mapping[str, Any], delivery: Mapping[str, Any], brand: Mapping[str, Any], links: Mapping[str, str]
) -> Names:
    """Return what the templates of one message see; made once for all of them, and used for one rendering."""
    return {
        "recipient": recipient, "delivery": delivery, "brand": brand, "links": links,
        "range": _range, _STEPS: [MAX_STEPS], _TAKEN: set(),
    }  # fmt: skip


def taken(names: Names) -> frozenset[tuple[int, bool]]:
    """Return the conditions noted while a probe was rendered over ``names``."""
    return frozenset(names[_TAKEN])
