from dataclasses import replace
from typing import Any

import pytest

from midsource.bench.newsletter import newsletter, person
from midsource.mail.content import MAX_BODY_CHARS, Content, ContentError, RenderProblem
from midsource.mail.sandbox import Names, names_of
from midsource.mail.template import Template, compile_errors, fields_used

ALICE: dict[str, Any] = {
    "first_name": "Alice", "city": None, "points": 120, "note": "<b>&", "tags": ["a", "b"], "address": {"town": "Sète"},
}  # fmt: skip


def names(recipient: dict[str, Any] | None = None) -> Names:
    links = {"unsubscribe": "https://u.example/1", "mirror": "https://m.example/1"}
    return names_of(ALICE if recipient is None else recipient, {"label": "Été", "id": 7}, {"name": "Brand"}, links)


def text(source: str, *, html: bool = False) -> str:
    return Template.compile("html" if html else "text", source, html=html).render(names())


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Hello {{ recipient.first_name }}", "Hello Alice"),
        ("{{ recipient['first_name'] }}", "Alice"),
        ("[{{ recipient.city }}{{ recipient.city|upper }}{{ recipient.city ~ recipient.city }}]", "[]"),
        ("{{ recipient.city|default('there') }}", "there"),
        ("{% if recipient.points > 100 %}many{% elif recipient.points %}some{% else %}none{% endif %}", "many"),
        ("{% for tag in recipient.tags %}{{ loop.index }}{{ tag }}{% if not loop.last %}, {% endif %}{% endfor %}", "1a, 2b"),
        ("{% for x in recipient.city %}x{% else %}nothing{% endfor %}", "nothing"),
        ("{% set total = recipient.points * 2 + 1 %}{{ total }}", "241"),
        ("{{ delivery.label }} {{ delivery.id }} {{ brand.name }} {{ links.mirror }}", "Été 7 Brand https://m.example/1"),
        ("{{ recipient.address.town }} {{ recipient.tags[0] }}", "Sète a"),
        ("{{ 'jean-luc d’artagnan'|title }}", "Jean-Luc D’Artagnan"),
        ("{{ recipient.note }}", "<b>&"),
        ("{{ recipient.note|urlencode }}", "%3Cb%3E%26"),
        ("{{ 'yes' if recipient.points is even else 'no' }}", "yes"),
        ("{% for i in range(3) %}{{ i }}{% endfor %}\n", "012\n"),
        ("{{ none }}|{{ true }}|{{ 1.5 }}", "|True|1.5"),
    ],
)  # fmt: skip
def test_text_is_rendered(source: str, expected: str) -> None:
    assert text(source) == expected


def test_html_is_escaped_and_static_html_is_not() -> None:
    assert (
        text("<i>{{ recipient.note }}</i>{{ recipient.note|upper }}", html=True)
        == "<i>&lt;b&gt;&amp;</i>&lt;B&gt;&amp;"
    )


def test_an_unknown_name_is_reported_with_template_line_and_suggestion() -> None:
    with pytest.raises(RenderProblem) as caught:
        text("<p>\n</p>\n{{ recipient.frist_name }}", html=True)
    assert str(caught.value) == "html line 3: 'recipient.frist_name' is unknown (did you mean first_name?)."
    assert (caught.value.template, caught.value.line) == ("html", 3)


@pytest.mark.parametrize(
    "source",
    [
        "{{ recipient.first_name.upper() }}", "{{ ''.__class__ }}", "{{ recipient.__class__ }}", "{{ recipient }}",
        "{{ recipient[delivery.label] }}", "{{ recipient['__class__'] }}", "{{ self }}", "{{ cycler('a') }}", "{{ dict() }}",
        "{{ lipsum() }}", "{{ namespace() }}", "{% include 'x' %}", "{% import 'x' as y %}", "{% from 'x' import y %}",
        "{% extends 'x' %}", "{% block x %}{% endblock %}", "{% macro m() %}{% endmacro %}", "{% call x() %}{% endcall %}",
        "{% filter upper %}{% endfilter %}", "{% set x %}{% endset %}", "{% set recipient = 1 %}", "{% set _steps = 1 %}",
        "{% for recipient in [1] %}{% endfor %}", "{{ _steps }}", "{{ 2 ** 9 }}", "{{ {'a': 1} }}", "{{ [[1]] }}",
        "{% for x in recipient.tags recursive %}{% endfor %}", "{{ recipient.note|safe }}", "{{ recipient.tags|map('upper') }}",
        "{{ recipient.tags|attr('x') }}", "{{ range }}", "{% autoescape false %}{% endautoescape %}", "{{ range(*recipient.tags) }}",
        "{{ delivery.secret }}", "{{ 1 is sameas 1 }}", "{% if %}", "{{ recipient.x", "{% set ns.x = 1 %}", "{{ ('a',)|join.__init__ }}",
        "{% with x = 1 %}{% endwith %}", "{{ '%s'.format(1) }}", "{{ 'a'|format(1) }}",
    ],
)  # fmt: skip
def test_what_the_language_lacks_is_refused_before_rendering(source: str) -> None:
    with pytest.raises(ContentError):
        Template.compile("text", source)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{ 'x' * 1000000000 }}", "calculates with numbers"),
        ("{{ '%1000000000d' % 1 }}", "calculates with numbers"),
        ("{% for i in range(1001) %}{% endfor %}", "at most 1000"),
        ("{% for i in range(999) %}{% for j in range(999) %}{{ j }}{% endfor %}{% endfor %}", "steps"),
        ("{% set a = 'xxxxxxxxxxxxxxxx' %}" + "{% set a = a ~ a %}" * 40, "longer than"),
        ("{% set a = 'xxxxxxxxxxxxxxxx' %}" + "{% set a = a + a %}" * 40, "longer than"),
        ("{% set a = [1] %}" + "{% set a = a + a %}" * 40, "items"),
        ("{% set a = 7 %}" + "{% set a = a * a %}" * 40, "digits"),
        ("{% set a = 'x' %}" + "{% set a = a|replace('x', 'xxxxxxxxxx') %}" * 40, "longer than"),
        (
            "{% set b = 'x' %}" + "{% set b = b ~ b %}" * 13 + "{% for i in range(999) %}{{ b }}{% endfor %}",
            "characters",
        ),
        ("{{ recipient.tags }}", "as a whole"),
        ("{{ recipient.first_name.x }}", "not available on a str"),
        ("{{ recipient.tags[9] }}", "no position 9"),
        ("{{ recipient.address.twon }}", "did you mean town?"),
        ("{{ recipient.points + recipient.first_name }}", "calculates with numbers"),
        ("{{ recipient.points < recipient.first_name }}", "TypeError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ loop.index }}", "loop"),
        ("{{ 1.5|round(99999999) }}", "digits"),
    ],
)
@pytest.mark.timeout(10)
def test_what_data_or_loops_may_not_do_ends_this_rendering(source: str, why: str) -> None:
    for html in (False, True):
        with pytest.raises(RenderProblem, match=why):
            text(source, html=html)


def test_the_output_of_many_places_is_bounded_while_it_grows() -> None:
    source = "{% set b = 'x' %}" + "{% set b = b ~ b %}" * 13 + "{{ b }}" * 200
    with pytest.raises(RenderProblem, match="renders to more than"):
        text(source)


@pytest.mark.parametrize(
    "source", ["{{ " + "(" * 900 + "1" + ")" * 900 + " }}", "{% for x in [1] %}" * 25 + "{% endfor %}" * 25]
)
def test_deep_nesting_is_a_problem_of_the_template(source: str) -> None:
    content = replace(newsletter(), text=source)
    assert [(problem.template, problem.why) for problem in compile_errors(content)] == [("text", "too deeply nested")]


def test_compile_errors_names_every_mistake_at_once() -> None:
    content = replace(
        newsletter(), subject="{{ first_name }}", html="a\n{% if x %}\n", text="\n\n{{ recipient.frist_name }}"
    )
    found = [str(problem) for problem in compile_errors(content, fields=person(1))]
    unclosed = "Jinja was looking for the following tags: 'elif' or 'else' or 'endif'."
    assert found == [
        "subject line 1: 'first_name' is unknown (fields are written recipient.first_name)",
        f"html line 2: Unexpected end of template. {unclosed} The innermost block that needs to be closed is 'if'.",
        "text line 3: 'recipient.frist_name' is unknown (did you mean first_name?)",
    ]


def test_an_oversized_source_is_refused_unparsed() -> None:
    found = compile_errors(replace(newsletter(), html="x" * (MAX_BODY_CHARS + 1)))
    assert [problem.template for problem in found] == ["html"]


def test_fields_used_are_known_without_data() -> None:
    content = Content(
        subject="{{ recipient.a }}", html="{% if recipient['b'] %}{{ recipient.c|default(recipient.d) }}{% endif %}",
        text="{{ links.unsubscribe }}", from_name="{{ recipient.e }}", from_address="a@b.fr", headers=(("X-F", "{{ recipient.f }}"),),
    )  # fmt: skip
    assert fields_used(content) == set("abcdef")
