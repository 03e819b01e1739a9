"""The language of segments: a condition on one person, read into a tree. Pure; `segments` turns the tree into SQL.

    language = 'fr' and age >= 18 and city is not empty
    domain in ('gmail.com', 'orange.fr') or not (vip and loyalty_points > 1000)
    city starts with 'Par' and birth_date < 2000-01-01

Grammar, loosest first: ``or``, ``and``, ``not``, then one of: a condition in parentheses; a boolean field alone;
``field = | != | < | <= | > | >= value``; ``field [not] in (value, …)``; ``field is [not] empty``;
``field [not] contains 'text'``; ``field [not] starts with 'text'``. Values: 'text' ('' inside is one quote), numbers,
true, false, dates as YYYY-MM-DD. Words and fields are written in any case.

Every mistake is an ExpressionProblem with its position. Bounds: MAX_CHARS, MAX_TERMS conditions and values, MAX_DEPTH.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TypeAlias

from midsource.model.errors import UserError

MAX_CHARS = 10_000
MAX_TERMS = 1_000
"""Conditions and values of one expression; longer lists of people are recipient lists."""
MAX_DEPTH = 50
"""Parentheses and nots inside each other; keeps the reader's recursion far from Python's limit."""
COMPARISONS = ("=", "!=", "<>", "<", "<=", ">", ">=")
KEYWORDS = frozenset({"and", "or", "not", "in", "is", "empty", "contains", "starts", "with", "true", "false"})

Literal: TypeAlias = str | bool | Decimal | date


class ExpressionProblem(UserError):
    """The condition cannot be understood; ``position`` counts characters from 1."""

    code = "MS-140"

    def __init__(self, position: int, why: str) -> None:
        super().__init__(f"the condition has a mistake at character {position}: {why}", "correct it and try again")
        self.position = position
        self.why = why


@dataclass(frozen=True, slots=True)
class Compare:
    """``field operator value``; operator is one of = != < <= > >=, contains, starts with."""

    field: str
    operator: str
    value: Literal
    position: int


@dataclass(frozen=True, slots=True)
class Among:
    """``field in (values)``."""

    field: str
    values: tuple[Literal, ...]
    position: int


@dataclass(frozen=True, slots=True)
class Empty:
    """``field is empty``."""

    field: str
    position: int


@dataclass(frozen=True, slots=True)
class Flag:
    """A boolean field standing alone."""

    field: str
    position: int


@dataclass(frozen=True, slots=True)
class Not:
    """The contrary."""

    of: Node


@dataclass(frozen=True, slots=True)
class Join:
    """``and`` or ``or`` of two or more."""

    word: str
    parts: tuple[Node, ...]


Node: TypeAlias = Compare | Among | Empty | Flag | Not | Join

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>'(?:[^']|'')*')
      | (?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2}(?![\w.-]))
      | (?P<number>[+-]?[0-9]{1,30}(?:\.[0-9]{1,30})?(?![\w.]))
      | (?P<word>[^\W\d]\w*)
      | (?P<sign><=|>=|<>|!=|==|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Token:
    """One word, sign or value; ``kind`` text, date, number, word, sign or end."""

    kind: str
    text: str
    position: int

    @property
    def shown(self) -> str:
        """Return how a message names it."""
        return "the end" if self.kind == "end" else repr(self.text[:40])


def parse(source: str) -> Node:
    """Read a condition; raises ExpressionProblem."""
    if len(source) > MAX_CHARS:
        raise ExpressionProblem(MAX_CHARS, f"it is longer than {MAX_CHARS} characters")
    reader = _Reader(_tokens(source))
    node = reader.any_of(0)
    rest = reader.peek()
    if rest.kind != "end":
        raise ExpressionProblem(rest.position, f"expected 'and', 'or' or the end, got {rest.shown}")
    return node


def _tokens(source: str) -> list[Token]:
    tokens, at = [], 0
    while source[at:].strip():
        match = _TOKEN.match(source, at)
        if match is None or match.lastgroup is None:
            start = at + len(source[at:]) - len(source[at:].lstrip())
            what = (
                "a quote is opened and never closed"
                if source[start] == "'"
                else f"{source[start : start + 10]!r} means nothing here"
            )
            raise ExpressionProblem(start + 1, what)
        kind = match.lastgroup
        text = match[kind]
        tokens.append(Token(kind, text.lower() if kind == "word" else text, match.start(kind) + 1))
        if len(tokens) > MAX_TERMS * 4:
            raise ExpressionProblem(tokens[-1].position, f"it has more than {MAX_TERMS} conditions and values")
        at = match.end()
    return [*tokens, Token("end", "", len(source) + 1)]


class _Reader:
    """Recursive descent over the tokens; each method reads one rule of the grammar."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._terms = 0

    def peek(self) -> Token:
        return self._tokens[self._at]

    def any_of(self, depth: int) -> Node:
        return self._joined("or", lambda: self._all_of(depth))

    def _all_of(self, depth: int) -> Node:
        return self._joined("and", lambda: self._negation(depth))

    def _joined(self, word: str, read: object) -> Node:
        assert callable(read)
        parts = [read()]
        while self._take("word", word):
            parts.append(read())
        return parts[0] if len(parts) == 1 else Join(word, tuple(parts))

    def _negation(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise ExpressionProblem(self.peek().position, f"more than {MAX_DEPTH} levels inside each other")
        if self._take("word", "not"):
            return Not(self._negation(depth + 1))
        if self._take("sign", "("):
            node = self.any_of(depth + 1)
            self._need("sign", ")")
            return node
        return self._condition()

    def _condition(self) -> Node:
        field = self.peek()
        if field.kind != "word" or field.text in KEYWORDS:
            raise ExpressionProblem(field.position, f"expected a field, got {field.shown}")
        self._advance()
        self._count(field)
        sign = self.peek()
        if sign.kind == "sign" and sign.text in (*COMPARISONS, "=="):
            self._advance()
            operator = {"<>": "!=", "==": "="}.get(sign.text, sign.text)
            return Compare(field.text, operator, self._value(), field.position)
        if self._take("word", "is"):
            negated = self._take("word", "not")
            self._need("word", "empty")
            return _maybe_not(Empty(field.text, field.position), negated=negated)
        negated = self._take("word", "not")
        if self._take("word", "in"):
            return _maybe_not(Among(field.text, self._values(), field.position), negated=negated)
        if self._take("word", "contains"):
            return _maybe_not(Compare(field.text, "contains", self._value(), field.position), negated=negated)
        if self._take("word", "starts"):
            self._need("word", "with")
            return _maybe_not(Compare(field.text, "starts with", self._value(), field.position), negated=negated)
        if negated:
            wrong = self.peek()
            raise ExpressionProblem(wrong.position, f"expected in, contains or starts with, got {wrong.shown}")
        return Flag(field.text, field.position)

    def _values(self) -> tuple[Literal, ...]:
        self._need("sign", "(")
        values = [self._value()]
        while self._take("sign", ","):
            values.append(self._value())
        self._need("sign", ")")
        return tuple(values)

    def _value(self) -> Literal:
        token = self.peek()
        self._advance()
        self._count(token)
        if token.kind == "text":
            return token.text[1:-1].replace("''", "'")
        if token.kind == "number":
            return Decimal(token.text)
        if token.kind == "word" and token.text in ("true", "false"):
            return token.text == "true"
        if token.kind == "date":
            try:
                return date.fromisoformat(token.text)
            except ValueError as exc:
                raise ExpressionProblem(token.position, f"{token.text} is no day of the calendar") from exc
        hint = f"; write '{token.text}' in quotes" if token.kind == "word" else ""
        raise ExpressionProblem(token.position, f"expected a value, got {token.shown}{hint}")

    def _take(self, kind: str, text: str) -> bool:
        token = self.peek()
        if (token.kind, token.text) != (kind, text):
            return False
        self._advance()
        return True

    def _need(self, kind: str, text: str) -> None:
        if not self._take(kind, text):
            raise ExpressionProblem(self.peek().position, f"expected {text!r}, got {self.peek().shown}")

    def _advance(self) -> None:
        if self._at < len(self._tokens) - 1:
            self._at += 1

    def _count(self, token: Token) -> None:
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise ExpressionProblem(token.position, f"it has more than {MAX_TERMS} conditions and values")


def _maybe_not(node: Node, *, negated: bool) -> Node:
    return Not(node) if negated else node
