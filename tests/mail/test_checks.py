from dataclasses import replace
from typing import Any

import pytest

from midsource.bench.newsletter import envelope, newsletter, person
from midsource.mail.checks import Finding, Severity, check_content, check_size
from midsource.mail.content import Content
from midsource.mail.skeleton import Skeleton

DOMAINS = ["news.exemple.fr"]


def found(content: Content) -> set[tuple[str, str]]:
    findings = check_content(content, sender_domains=DOMAINS, fields=person(1))
    return {(finding.severity.value, finding.check) for finding in findings}


def test_a_good_newsletter_has_no_findings() -> None:
    assert found(newsletter()) == set()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"text": "no link"}, {("error", "opt-out")}),
        ({"html": "<p>no link</p>"}, {("error", "opt-out")}),
        ({"text": ""}, {("warning", "body")}),
        ({"html": ""}, {("info", "body")}),
        ({"html": "", "text": ""}, {("error", "body")}),
        ({"subject": "  "}, {("error", "subject")}),
        ({"subject": "{{ recipient.first_name }}"}, {("warning", "subject")}),
        ({"from_address": "a@other.fr"}, {("error", "sender")}),
        ({"from_address": "a@sub.news.exemple.fr"}, {("error", "sender")}),
        ({"from_address": "not an address@news.exemple.fr"}, {("error", "sender")}),
        ({"from_address": "a@{{ recipient.city }}"}, {("error", "sender")}),
        ({"from_address": ""}, {("error", "sender")}),
        ({"from_address": "{{ recipient.city }}@NEWS.exemple.fr"}, set()),
        ({"text": "{{ links.unsubscribe }} {% if %}"}, {("error", "template")}),
        ({"text": "{{ links.unsubscribe }} {{ recipient.nobody }}"}, {("error", "template")}),
        ({"text": "{{ links.unsubscribe }} https://{{ recipient.shop }}/x"}, {("warning", "link-host")}),
        ({"text": "{{ links.unsubscribe }} https://x.fr/{{ recipient.shop }}"}, set()),
    ],
)
def test_each_check(change: dict[str, Any], expected: set[tuple[str, str]]) -> None:
    assert found(replace(newsletter(), **change)) == expected


def test_the_line_of_a_personalised_host_is_named() -> None:
    html = "{{ links.unsubscribe }}\n{% if recipient.city %}\n\n{% endif %}\n<a href='https://www.{{ recipient.shop }}.fr/'>"
    findings = check_content(replace(newsletter(), html=html), sender_domains=DOMAINS)
    assert [finding.sentence.split(":")[0] for finding in findings] == ["html line 5"]


def test_errors_come_first() -> None:
    findings = check_content(replace(newsletter(), text="", subject=""), sender_domains=DOMAINS)
    assert [finding.severity for finding in findings] == [Severity.ERROR, Severity.WARNING]


@pytest.mark.parametrize(("chars", "severity"), [(0, "info"), (36_000, "warning"), (61_000, "error")])
def test_size_is_judged_on_a_rendered_sample(chars: int, severity: str) -> None:
    content = replace(newsletter(), html="x" * chars + "{{ recipient.first_name }}")
    sample = Skeleton.compile(content, boundary="abcdef0123", brand={"name": "b"}).render(person(1), envelope(1))
    (finding,) = check_size(sample)
    assert isinstance(finding, Finding)
    assert finding.severity == severity


@pytest.mark.timeout(10)
def test_a_hostile_source_is_judged_in_linear_time() -> None:
    source = "{{ links.unsubscribe }}{% raw %}" + "{{" * 200_000 + "https://" * 10_000 + "{% endraw %}"
    assert found(replace(newsletter(), html=source, text="{{" * 200_000 + "links.unsubscribe")) == {
        ("error", "template")
    }
