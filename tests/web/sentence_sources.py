"""The sentences that the product says in English and pages translate, read out of its sources. A value that is filled in is ``{}``."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from types import ModuleType

from midsource.doctor import heal, look
from midsource.doctor.checks import CHECKS
from midsource.doctor.treatments import TREATMENTS
from midsource.engine import circuit, restarting
from midsource.policy import forecast, maintenance, maintenance_remarks

EVIDENCE = {"evidence", "subject"}
"""What findings say besides and stays English: figures, and names."""
SUBJECT = 2
"""Which argument of a remark names what it is about."""
NAMES = {"transaction ids", "multixact ids", "disk free"}
"""Strings of maintenance's policy that are no sentences."""


class Strings(ast.NodeVisitor):
    """Gathers strings. Left out: docstrings, what is compared, formats, evidence, and what a remark is about."""

    def __init__(self) -> None:
        """Begin with none."""
        self.found: set[str] = set()

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.found.add(without_names(node.value))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self.found.add("".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values))
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                self.visit(part.value)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):
            self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        """Go no further."""

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg not in EVIDENCE:
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id == "Remark":
            del node.args[SUBJECT]
        self.generic_visit(node)


def without_names(sentence: str) -> str:
    """Return a sentence with its places unnamed."""
    return re.sub(r"\{\w*\}", "{}", sentence)


def strings(
    *sources: ModuleType | Callable[..., object], that: Callable[[str], object] = lambda string: " " in string
) -> set[str]:
    """Return the strings of ``sources`` that are sentences; commands alone and places alone need no translation."""
    reader = Strings()
    for source in sources:
        reader.visit(ast.parse(textwrap.dedent(inspect.getsource(source))))
    spoken = {text for text in reader.found if re.search("[a-z]{2}", re.sub("`[^`]+`", "", text))}
    return {text for text in spoken if that(text)}


def of_doctor() -> set[str]:
    """Causes and remedies end with a full stop, as no other string there does; remedies and treatments stand in tables."""
    modules = {inspect.getmodule(check.look) or look for check in CHECKS} | {look}
    said = strings(*modules, that=lambda text: " " in text and text.endswith("."))
    said |= strings(heal._waits, that=lambda text: text.startswith("done "))
    tables = [check.remedy for check in CHECKS] + [
        text for one in TREATMENTS.values() for text in (one.does, one.final)
    ]
    return said | {without_names(text) for text in tables if text}


def of_maintenance() -> set[str]:
    """Everything in remarks, kinds of one word with it; in reasons and forecasts what has several words."""
    return (strings(maintenance_remarks, that=bool) | strings(maintenance, forecast)) - NAMES


def of_workflows() -> set[str]:
    """What a restart does differently, and why a workflow is left."""
    return strings(circuit.different, restarting.candidates, restarting._held)
