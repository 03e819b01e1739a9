"""What is wrong with a form, each sentence beside its field."""

from __future__ import annotations

from collections.abc import Collection

from midsource.marketing.expression import ExpressionProblem
from midsource.model.errors import ConfigError, Conflict, UserError

MISTAKES = (UserError, Conflict)
"""What an action raises for input that its page shows again, with what was typed."""


def beside(exc: UserError | Conflict, fields: Collection[str], *, expression: str = "") -> dict[str, str]:
    """Return sentences by field; under '' what concerns the whole form. ``expression``: the field that holds a condition."""
    if isinstance(exc, ExpressionProblem) and expression:
        return {expression: str(exc)}
    problems = exc.problems if isinstance(exc, ConfigError) else (str(exc),)
    found: dict[str, list[str]] = {}
    for problem in problems:
        name, colon, why = problem.partition(": ")
        name = name.replace(".", "_")
        known = bool(colon) and name in fields
        found.setdefault(name if known else "", []).append(why if known else problem)
    return {name: " ".join(_sentence(why) for why in whys) for name, whys in found.items()}


def _sentence(why: str) -> str:
    return why if why.endswith(".") else f"{why}."
