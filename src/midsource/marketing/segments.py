"""Segments: named conditions on people, compiled to SQL with parameters; created, previewed, listed.

Meaning of what is missing: a comparison with an empty field is false, and ``not`` of it is true; so ``city != 'Paris'``
and ``not city = 'Paris'`` both include people without a city. ``=``, ``!=`` and ``in`` compare text exactly; ``contains``
and ``starts with`` ignore case. A field is compared with values of its own type only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from difflib import get_close_matches
from typing import Any

from psycopg import sql

from midsource.marketing import expression
from midsource.marketing.expression import Among, Compare, Empty, ExpressionProblem, Flag, Join, Literal, Node, Not
from midsource.marketing.fields import FIXED, FieldType, all_fields
from midsource.model.errors import NotFound, UserError
from midsource.store.database import Connection, scalar

MAX_NAME_CHARS = 100
PREVIEW_ROWS = 10
SAMPLED_FROM = 100_000
"""People from which on a glance estimates: counting a million by an own field takes a second, a sample some milliseconds."""
SAMPLE_ROWS = 20_000
"""People of a sample, by pages of the table: a share of a half comes out within one per cent."""
SHOWN = 1_000
PREFIX = "segment_"
"""Names of the parameters begin with this, so that they can stand beside those of the surrounding statement."""
_DERIVED = {"domain": FieldType.TEXT}
_WORDS = {str: "text", bool: "true or false", Decimal: "a number", date: "a date"}


@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled condition on ``recipient as r``: ``where`` with named placeholders, and their values."""

    where: sql.Composed
    params: Mapping[str, Any]


EVERYBODY = Condition(sql.Composed([sql.SQL("true")]), {})


@dataclass(frozen=True, slots=True)
class Segment:
    """A stored segment."""

    name: str
    expression: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Preview:
    """Whom a condition chooses: how many, and the first few (id, email, first name, last name).

    ``sampled``: people the count was estimated from; None: it is exact.
    """

    count: int
    examples: tuple[tuple[int, str | None, str | None, str | None], ...]
    sampled: int | None = None


def compile_condition(source: str, fields: Mapping[str, FieldType]) -> Condition:
    """Compile ``source`` over ``fields``; "" chooses everybody. Raises ExpressionProblem."""
    if not source.strip():
        return EVERYBODY
    compiler = _Compiler({**fields, **_DERIVED})
    where = compiler.compile(expression.parse(source))
    return Condition(sql.Composed([where]), compiler.params)


def create_segment(conn: Connection, name: str, source: str) -> None:
    """Store a segment, or replace the one of this name. Raises ExpressionProblem, UserError for a bad name."""
    if not name.strip() or len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise UserError(f"{name[:120]!r} cannot be a segment's name", f"use 1 to {MAX_NAME_CHARS} printable characters")
    compile_condition(source, all_fields(conn))
    conn.execute(
        "insert into segment (name, expression) values (%s, %s) on conflict (name) do update set expression = excluded.expression",
        (name, source),
    )


def segment_expression(conn: Connection, name: str) -> str:
    """Return the condition of segment ``name``; raises NotFound naming what exists."""
    row = conn.execute("select expression from segment where name = %s", (name,)).fetchone()
    if row is None:
        known = ", ".join(entry.name for entry in all_segments(conn)[:20]) or "none"
        raise NotFound(f"there is no segment {name!r}", f"segments: {known}")
    return str(row[0])


def all_segments(conn: Connection) -> list[Segment]:
    """Return the segments by name, at most SHOWN."""
    rows = conn.execute("select name, expression, created_at from segment order by name limit %s", (SHOWN,)).fetchall()
    return [Segment(*row) for row in rows]


def preview(conn: Connection, source: str) -> Preview:
    """Count whom ``source`` chooses and show the first; raises ExpressionProblem."""
    condition = compile_condition(source, all_fields(conn))
    count = conn.execute(
        sql.SQL("select count(*) from recipient r where {}").format(condition.where), condition.params
    ).fetchone()
    rows = conn.execute(
        sql.SQL("select id, email, first_name, last_name from recipient r where {} order by id limit {}").format(
            condition.where, sql.Literal(PREVIEW_ROWS)
        ),
        condition.params,
    ).fetchall()
    return Preview(count[0] if count else 0, tuple((row[0], row[1], row[2], row[3]) for row in rows))


def glance(conn: Connection, source: str) -> Preview:
    """As ``preview`` in a tenth of a second: of many people a sample is counted, and examples sought among the first only.

    Raises ExpressionProblem.
    """
    people = scalar(conn, "select reltuples::bigint from pg_class where oid = 'recipient'::regclass")
    if people < SAMPLED_FROM:
        return preview(conn, source)
    condition = compile_condition(source, all_fields(conn))
    row = conn.execute(
        sql.SQL("select count(*), count(*) filter (where {}) from recipient r tablesample system ({})").format(
            condition.where, sql.Literal(100 * SAMPLE_ROWS / people)
        ),
        condition.params,
    ).fetchone()
    assert row is not None
    examples = conn.execute(
        sql.SQL(
            "select id, email, first_name, last_name from (select * from recipient order by id limit {}) r where {} limit {}"
        ).format(sql.Literal(SAMPLED_FROM), condition.where, sql.Literal(PREVIEW_ROWS)),
        condition.params,
    ).fetchall()
    share = row[1] / row[0] if row[0] else 0.0
    return Preview(round(share * people), tuple((r[0], r[1], r[2], r[3]) for r in examples), row[0])


def delete_segment(conn: Connection, name: str) -> None:
    """Delete a segment; deliveries made with it keep its condition. Raises NotFound."""
    segment_expression(conn, name)
    conn.execute("delete from segment where name = %s", (name,))


class _Compiler:
    """Walks the tree once; values only ever become parameters, names only ever come out of ``fields``."""

    def __init__(self, fields: Mapping[str, FieldType]) -> None:
        self._fields = fields
        self.params: dict[str, Any] = {}

    def compile(self, node: Node) -> sql.Composable:
        if isinstance(node, Join):
            return sql.SQL("({})").format(sql.SQL(f" {node.word} ").join(map(self.compile, node.parts)))
        if isinstance(node, Not):
            return sql.SQL("(not {})").format(self.compile(node.of))
        kind = self._type_of(node)
        column = _column(node.field, kind)
        if isinstance(node, Flag):
            if kind is not FieldType.BOOLEAN:
                raise ExpressionProblem(node.position, f"{node.field} is {_a(kind)}: compare it with something")
            return sql.SQL("coalesce({}, false)").format(column)
        if isinstance(node, Empty):
            return sql.SQL("(coalesce(({})::text, '') = '')").format(column)
        if isinstance(node, Among):
            values = [self._checked(node.field, kind, value, node.position) for value in node.values]
            return sql.SQL("coalesce({} = any({}), false)").format(column, self._param(values))
        return self._comparison(node, kind, column)

    def _comparison(self, node: Compare, kind: FieldType, column: sql.Composable) -> sql.Composable:
        if node.operator in ("contains", "starts with") and kind is not FieldType.TEXT:
            raise ExpressionProblem(node.position, f"{node.field} is {_a(kind)}: '{node.operator}' is for text")
        value = self._param(self._checked(node.field, kind, node.value, node.position))
        if node.operator == "contains":
            return sql.SQL("coalesce(strpos(lower({}), lower({})) > 0, false)").format(column, value)
        if node.operator == "starts with":
            return sql.SQL("coalesce(starts_with(lower({}), lower({})), false)").format(column, value)
        if node.operator == "!=":
            return sql.SQL("coalesce({} <> {}, true)").format(column, value)
        if node.operator != "=" and kind is FieldType.BOOLEAN:
            raise ExpressionProblem(node.position, f"{node.field} is true or false: '{node.operator}' orders nothing")
        return sql.SQL("coalesce({} {} {}, false)").format(column, sql.SQL(node.operator), value)

    def _type_of(self, node: Compare | Among | Empty | Flag) -> FieldType:
        kind = self._fields.get(node.field)
        if kind is None:
            near = get_close_matches(node.field, self._fields, n=1, cutoff=0.6)
            hint = f" (did you mean {near[0]}?)" if near else f"; fields: {', '.join(sorted(self._fields))[:300]}"
            raise ExpressionProblem(node.position, f"{node.field!r} is no field{hint}")
        return kind

    def _checked(self, field: str, kind: FieldType, value: Literal, position: int) -> Literal:
        expected = {
            FieldType.TEXT: str, FieldType.INTEGER: Decimal, FieldType.NUMBER: Decimal,
            FieldType.BOOLEAN: bool, FieldType.DATE: date,
        }[kind]  # fmt: skip
        if type(value) is not expected:
            raise ExpressionProblem(
                position, f"{field} is {_a(kind)}, and is compared with {_WORDS[type(value)]} ({str(value)[:40]!r})"
            )
        return value

    def _param(self, value: Any) -> sql.Placeholder:
        name = f"{PREFIX}{len(self.params)}"
        self.params[name] = value
        return sql.Placeholder(name)


def _column(field: str, kind: FieldType) -> sql.Composable:
    if field in FIXED or field in _DERIVED:
        return sql.SQL("r.{}").format(sql.Identifier(field))
    value = sql.SQL("(r.fields->>{})").format(sql.Literal(field))
    cast = {
        FieldType.INTEGER: "numeric",
        FieldType.NUMBER: "numeric",
        FieldType.BOOLEAN: "boolean",
        FieldType.DATE: "date",
    }
    return sql.SQL("{}::{}").format(value, sql.SQL(cast[kind])) if kind in cast else value


def _a(kind: FieldType) -> str:
    return {
        FieldType.TEXT: "text", FieldType.INTEGER: "a number", FieldType.NUMBER: "a number",
        FieldType.BOOLEAN: "true or false", FieldType.DATE: "a date",
    }[kind]  # fmt: skip
