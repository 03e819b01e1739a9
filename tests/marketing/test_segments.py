"""The language of segments: what it chooses, what it refuses and where, and that values stay values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from midsource.marketing import expression, fields, segments
from midsource.marketing.expression import MAX_DEPTH, ExpressionProblem, parse
from midsource.marketing.fields import FIXED, FieldType
from midsource.model.errors import NotFound, UserError
from midsource.store.database import Database

FIELDS = {**FIXED, "age": FieldType.INTEGER, "city": FieldType.TEXT, "vip": FieldType.BOOLEAN, "born": FieldType.DATE}
Choose = Callable[[str], set[str]]


@pytest.fixture
def choose(marketing_db: Database) -> Choose:
    """Give ``choose(condition)``: the first names of those it chooses among Alice, Bob, Charlie and Dora."""
    with marketing_db.transaction() as conn:
        for name, kind in (("age", "integer"), ("city", "text"), ("vip", "boolean"), ("born", "date")):
            fields.add_field(conn, name, kind)
        people: list[tuple[str, str, dict[str, Any]]] = [
            ("Alice", "fr", {"age": 42, "city": "Paris", "vip": True, "born": "1984-02-29"}),
            ("Bob", "en", {"age": 17, "city": "Pärnu", "vip": False, "born": "2009-01-01"}),
            ("Charlie", "fr", {"age": 18, "city": "L'Haÿ%_"}),
            ("Dora", "", {}),
        ]
        for name, language, own in people:
            conn.execute(
                "insert into recipient (key, email, domain, first_name, language, fields) values (%s, %s, %s, %s, %s, %s)",
                (name, f"{name}@example.org", "example.org", name, language or None, Jsonb(own)),
            )

    def run(source: str) -> set[str]:
        with marketing_db.connection() as conn:
            return {row[2] or "" for row in segments.preview(conn, source).examples}

    return run


@pytest.mark.parametrize(
    ("source", "chosen"),
    [
        ("", "Alice Bob Charlie Dora"),
        ("language = 'fr'", "Alice Charlie"),
        ("language = 'fr' and age >= 18 and city is not empty", "Alice Charlie"),
        ("LANGUAGE = 'fr' AND Age > 18", "Alice"),
        ("language != 'fr'", "Bob Dora"),
        ("not language = 'fr'", "Bob Dora"),
        ("age < 18 or city is empty", "Bob Dora"),
        ("language = 'fr' or language = 'en' and age < 18", "Alice Bob Charlie"),
        ("(language = 'fr' or language = 'en') and age < 18", "Bob"),
        ("first_name in ('Alice', 'Dora', 'Eve')", "Alice Dora"),
        ("age not in (17, 18)", "Alice Dora"),
        ("vip", "Alice"),
        ("not vip", "Bob Charlie Dora"),
        ("vip = false", "Bob"),
        ("city starts with 'pÄR'", "Bob"),
        ("city contains '%_'", "Charlie"),
        ("city = 'L''Haÿ%_'", "Charlie"),
        ("city not contains 'a'", "Bob Dora"),
        ("born < 2000-01-01", "Alice"),
        ("born is empty", "Charlie Dora"),
        ("age = 18.0", "Charlie"),
        ("age > -1 and age <> 42", "Bob Charlie"),
        ("domain = 'example.org' and opted_out = false", "Alice Bob Charlie Dora"),
        ("not (not (age >= 18))", "Alice Charlie"),
    ],
)
def test_conditions_choose(choose: Choose, source: str, chosen: str) -> None:
    assert choose(source) == set(chosen.split())


@pytest.mark.parametrize(
    ("source", "position", "why"),
    [
        ("agee = 3", 1, "'agee' is no field (did you mean age?)"),
        ("vip and zodiac = 'x'", 9, "'zodiac' is no field; fields: age, born"),
        ("age = 'x'", 1, "age is a number, and is compared with text ('x')"),
        ("city = 3", 1, "city is text, and is compared with a number"),
        ("born > '2000-01-01'", 1, "born is a date, and is compared with text"),
        ("city", 1, "city is text: compare it with something"),
        ("age contains 'x'", 1, "'contains' is for text"),
        ("vip > true", 1, "vip is true or false: '>' orders nothing"),
        ("city = Paris", 8, "expected a value, got 'paris'; write 'paris' in quotes"),
        ("city = 'Paris", 8, "a quote is opened and never closed"),
        ("(vip", 5, "expected ')', got the end"),
        ("vip vip", 5, "expected 'and', 'or' or the end, got 'vip'"),
        ("age >= 18; drop table recipient", 10, "'; drop tab' means nothing here"),
        ("born = 2001-02-30", 8, "2001-02-30 is no day of the calendar"),
        ("city is full", 9, "expected 'empty', got 'full'"),
        ("and", 1, "expected a field, got 'and'"),
        ("age in ()", 9, "expected a value, got ')'"),
        ("not", 4, "expected a field, got the end"),
    ],
)
def test_mistakes_have_a_sentence_and_a_position(source: str, position: int, why: str) -> None:
    with pytest.raises(ExpressionProblem) as caught:
        segments.compile_condition(source, FIELDS)
    assert caught.value.position == position
    assert why in caught.value.why


@pytest.mark.parametrize(
    "source", ["(" * 500 + "vip" + ")" * 500, "not " * 500 + "vip", "x" * 20_000, "vip or " * 1_400 + "vip"]
)
def test_what_is_too_deep_or_long_is_refused(source: str) -> None:
    with pytest.raises(ExpressionProblem):
        segments.compile_condition(source, FIELDS)


def test_depth_below_the_limit_is_read() -> None:
    parse("(" * MAX_DEPTH + "vip" + ")" * MAX_DEPTH)


@given(text=st.text(st.characters(codec="utf-8"), max_size=30))
def test_values_only_ever_become_parameters(text: str) -> None:
    quoted = text.replace("'", "''")
    condition = segments.compile_condition(f"city = '{quoted}'", FIELDS)
    assert list(condition.params.values()) == [text]
    assert condition.where.as_string() == "coalesce((r.fields->>'city') = %(segment_0)s, false)"


@given(source=st.text(st.sampled_from("agecityvip ='\"()<>!,;-0123notandori"), max_size=40))
def test_any_text_is_read_or_refused_by_position(source: str) -> None:
    position = 1
    try:
        segments.compile_condition(source, FIELDS)
    except ExpressionProblem as problem:
        position = problem.position
    assert 1 <= position <= len(source) + 1


def test_hostile_value_reaches_the_database_as_text(choose: Choose, marketing_db: Database) -> None:
    assert choose("city = '''; drop table recipient; --'") == set()
    with marketing_db.connection() as conn:
        assert segments.preview(conn, "").count == 4


def test_segment_is_stored_replaced_and_found(marketing_db: Database) -> None:
    with marketing_db.transaction() as conn:
        segments.create_segment(conn, "french", "language = 'fr'")
        segments.create_segment(conn, "french", "language in ('fr')")
        assert [(s.name, s.expression) for s in segments.all_segments(conn)] == [("french", "language in ('fr')")]
        assert segments.segment_expression(conn, "french") == "language in ('fr')"
        with pytest.raises(NotFound, match="segments: french"):
            segments.segment_expression(conn, "german")
        with pytest.raises(ExpressionProblem):
            segments.create_segment(conn, "broken", "language ~ 'x'")
        assert len(segments.all_segments(conn)) == 1


def test_keywords_cannot_be_fields(marketing_db: Database) -> None:
    assert not expression.KEYWORDS & FIXED.keys()
    with marketing_db.transaction() as conn, pytest.raises(UserError, match="word of the segment language"):
        fields.add_field(conn, "empty", "text")
