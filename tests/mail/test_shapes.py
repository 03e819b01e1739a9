from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midsource.bench.newsletter import newsletter, person
from midsource.mail.content import Content, ContentError, RenderProblem
from midsource.mail.sandbox import names_of
from midsource.mail.shapes import ShapeFinder
from midsource.mail.template import Template

BARE = Content(subject="s", html="", text="-", from_name="", from_address="a@b.fr")


def finder(text: str) -> ShapeFinder:
    return ShapeFinder(replace(BARE, text=text))


def shapes(text: str, *rows: dict[str, Any]) -> list[Hashable]:
    found = finder(text)
    return [found.shape_of(row) for row in rows]


def test_values_do_not_make_shapes_but_emptiness_does() -> None:
    filled, other, none, empty, missing = shapes(
        "{{ recipient.a }}", {"a": "x"}, {"a": "y"}, {"a": None}, {"a": ""}, {}
    )
    assert filled == other
    assert none == empty
    assert len({filled, none, missing}) == 3


def test_zero_and_false_are_values() -> None:
    zero, false, one = shapes("{{ recipient.a }}", {"a": 0}, {"a": False}, {"a": 1})
    assert zero == false == one


def test_unused_fields_do_not_make_shapes() -> None:
    first, second = shapes("{{ recipient.a }}", {"a": "x", "b": None}, {"a": "x", "b": "y"})
    assert first == second


@pytest.mark.parametrize(
    "source",
    [
        "{% if recipient.n > 10 %}a{% endif %}",
        "{% if recipient.n < 0 %}x{% elif recipient.n > 10 %}a{% endif %}",
        "{{ 'a' if recipient.n > 10 else 'b' }}",
        "{{ ('a' if recipient.n > 10 else 'b')|upper }}",
        "{% set big = recipient.n > 10 %}{% if big %}a{% endif %}",
        "{% for x in [1, 2] %}{% if recipient.n + x > 12 %}a{% endif %}{% endfor %}",
        "{% for x in [5, 15] if recipient.n > x %}a{% endfor %}",
    ],
)
def test_each_kind_of_condition_makes_shapes(source: str) -> None:
    low, lower, high, higher = shapes(source, {"n": 1}, {"n": 2}, {"n": 30}, {"n": 40})
    assert low == lower
    assert high == higher
    assert low != high


def test_a_loop_without_turns_is_a_shape() -> None:
    some, more, none = shapes("{% for x in recipient.l %}{{ x }}{% endfor %}", {"l": [1]}, {"l": [1, 2]}, {"l": []})
    assert some == more != none


def test_one_and_true_and_one_point_nought_are_told_apart() -> None:
    yes, no = shapes("{% if recipient.a is boolean %}{% endif %}", {"a": True}, {"a": 1})
    assert yes != no


def test_an_unknown_name_in_a_rare_branch_is_found_by_its_shape() -> None:
    """What the field's analysis misses and its MTA stumbles over: one person in a thousand has the data that fails."""
    content = replace(BARE, html="<p>\n{% if recipient.vip %}\n{{ recipient.frist_name }}{% endif %}", text="t")
    found = ShapeFinder(content)
    examples: dict[Hashable, dict[str, Any]] = {}
    for n in range(1_000):
        data = {"vip": n == 777, "first_name": "Alice"}
        examples.setdefault(found.shape_of(data), data)
    problems = [found.check_render(data) for data in examples.values()]
    assert len(examples) == 2
    assert [str(problem) for problem in problems if problem] == [
        "html line 3: 'recipient.frist_name' is unknown (did you mean first_name?)."
    ]


def test_a_condition_that_cannot_be_evaluated_is_a_shape_of_its_own_and_shows_why() -> None:
    found = finder("{% if recipient.n > 10 %}a{% endif %}")
    assert found.shape_of({"n": "many"}) != found.shape_of({"n": 11})
    problem = found.check_render({"n": "many"})
    assert problem is not None
    assert (problem.template, problem.line) == ("text", 1)


def test_a_header_that_breaks_is_found() -> None:
    found = ShapeFinder(replace(BARE, subject="{{ recipient.a }}"))
    assert found.check_render({"a": "x"}) is None
    assert isinstance(found.check_render({"a": "x\r\nBcc: y"}), RenderProblem)


def test_a_wrong_content_has_no_shapes() -> None:
    with pytest.raises(ContentError):
        finder("{{ x }}")


def test_the_newsletter_has_two_shapes() -> None:
    found = ShapeFinder(newsletter(), delivery={"label": "l", "id": 1}, brand={"name": "b"})
    rows = [person(n) for n in range(2_000)]
    assert len({found.shape_of(row) for row in rows}) == 2
    assert found.check_render(rows[0]) is None


SOURCE = (
    "{% if recipient.a %}1{% elif recipient.b == 2 %}2{% else %}3{% endif %}{{ '4' if recipient.c else '5' }}"
    "{% for x in recipient.d %}6{% else %}7{% endfor %}{% if recipient.a and recipient.c %}8{% endif %}"
)
ROW = st.fixed_dictionaries(
    {
        "a": st.sampled_from([None, "", "x", 0, 1]),
        "b": st.sampled_from([None, 2, 2.0, "2"]),
        "c": st.booleans(),
        "d": st.lists(st.just(1), max_size=1),
    }
)


@given(st.lists(ROW, min_size=2, max_size=12))
def test_rows_of_one_shape_take_the_same_branches(rows: list[dict[str, Any]]) -> None:
    """The static text of a template tells which branches ran: equal shapes give equal text."""
    found = finder(SOURCE)
    template = Template.compile("text", SOURCE)
    texts: dict[Hashable, str] = {}
    for row in rows:
        text = template.render(names_of(row, {}, {}, {}))
        assert texts.setdefault(found.shape_of(row), text) == text


KINDS = (
    "{% if recipient.a is empty %}1{% elif recipient.b is none or not recipient.c %}2{% endif %}"
    "{% if recipient.d == '' %}3{% elif none != recipient.a and (recipient.b or recipient.d) %}4{% endif %}"
    "{{ recipient.a if recipient.e else recipient.b }}{% set full = recipient.c is not empty %}{% if full %}5{% endif %}"
    "{% if recipient.e == 0 %}6{% endif %}{% for x in recipient.f if recipient.d %}7{% endfor %}"
)
ANYTHING: st.SearchStrategy[Any] = st.sampled_from([None, "", " ", "x", "y", [], [1], 0, 1, 0.0, 2.5, False, True, {}])
REMEMBERING, FORGETFUL = finder(KINDS), finder(KINDS)
DATA = st.dictionaries(st.sampled_from("abcdef"), ANYTHING)


@given(st.lists(DATA, min_size=2, max_size=20))
def test_a_remembered_outcome_is_what_evaluation_gives(rows: list[dict[str, Any]]) -> None:
    shared, forgetful = REMEMBERING, FORGETFUL
    for row in rows:
        forgetful._outcomes.clear()
        assert shared.shape_of(row) == forgetful.shape_of(row)


def test_people_who_differ_in_values_only_asked_for_being_there_cost_a_look_up() -> None:
    """Names and points are all different; evaluated for each, a preparation took most of its time here."""
    found = finder("{% if recipient.a is not empty %}1{% endif %}{% if recipient.b %}2{% endif %}")
    assert len({found.shape_of({"a": f"person {n}", "b": n}) for n in range(1, 1_000)}) == 1
    assert len(found._outcomes) == 1
