"""What other parts of the product say, in the languages of the console: every sentence, none too many, the same commands."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from tests.web.sentence_sources import of_doctor, of_maintenance, of_workflows, without_names

from midsource.doctor.checks import CHECKS
from midsource.web.console.catalogue import DEFAULT, LANGUAGES
from midsource.web.console.sentences import CLAUSES, sentences, translated

OTHERS = [language for language in LANGUAGES if language != DEFAULT]
FAMILIES = {"doctor": of_doctor, "maintenance": of_maintenance, "workflows": of_workflows}
LEAST_FIXED = 6
"""Letters that a sentence with places fixes at least: one that fixes fewer would fit what it does not mean."""
ALIKE = {"autovacuum", CLAUSES}


def places(text: str) -> list[str]:
    return re.findall(r"\{(\w+)\}", text)


def filled(text: str) -> str:
    """Return a text as its source says it, with a value that is no sentence in each place."""
    return text.format(**{name: f"<{name}>" for name in places(text)})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_sentence_is_known_in_every_language(family: str) -> None:
    known = {without_names(english) for english in sentences()}
    assert FAMILIES[family]() - known == set()


def test_no_sentence_is_known_that_nobody_says() -> None:
    said = set().union(*(gather() for gather in FAMILIES.values()))
    assert [english for english in sentences() if without_names(english) not in said] == [CLAUSES]


def test_the_sources_are_read() -> None:
    counted = {family: len(gather()) for family, gather in FAMILIES.items()}
    assert counted["doctor"] > 2 * len(CHECKS)
    assert counted["maintenance"] > 80
    assert counted["workflows"] > 10
    assert "Nothing is sent." in of_doctor()
    assert "the last {} runs failed alike ({}: {}); this time {}" in of_workflows()


@pytest.mark.parametrize("language", OTHERS)
def test_a_translation_keeps_commands_and_values(language: str) -> None:
    for english, others in sentences().items():
        own = others[language]
        assert set(others) == set(OTHERS), english
        assert Counter(re.findall("`[^`]+`", own)) == Counter(re.findall("`[^`]+`", english)), english
        assert Counter(places(own)) == Counter(places(english)), english
        assert own.endswith(".") == english.endswith("."), english


@pytest.mark.parametrize("language", OTHERS)
def test_a_translation_is_one(language: str) -> None:
    assert {english for english, others in sentences().items() if others[language] == english} <= ALIKE


@pytest.mark.parametrize("language", OTHERS)
def test_a_sentence_with_values_is_found_and_not_another(language: str) -> None:
    for english, others in sentences().items():
        fixed = re.sub(r"[^A-Za-z]", "", re.sub(r"\{\w+\}", "", english))
        assert not places(english) or len(fixed) >= LEAST_FIXED, english
        assert translated(filled(english), language) == filled(others[language]), english


def test_a_sentence_may_hold_others() -> None:
    reasons = "3 000 dead rows, 12 % of all; 500 rows changed since it was analysed"
    assert (
        translated(reasons, "fr")
        == "3 000 lignes mortes, 12 % de toutes\u00a0; 500 lignes modifiées depuis la dernière analyse"
    )
    assert translated("What it costs: at 100 % every insert fails (F125).", "pt") == (
        "O que custa: a 100 %, todas as inserções falham (F125)."
    )
    said = "the last 2 runs failed alike (Failed: no; route); this time nothing, until the cause is mended"
    assert translated(said, "fr").endswith(
        "(Failed\u00a0: no; route)\u00a0; cette fois, rien, tant que la cause n’est pas corrigée"
    )


@pytest.mark.parametrize("sentence", ["", "connection refused", "a {brace} of somebody", "x" * 10_000, "; ; "])
def test_what_is_not_known_stays_as_it_was_said(sentence: str) -> None:
    assert translated(sentence, "fr") == ""


def test_values_are_never_read_as_texts() -> None:
    assert "{name.__class__} <b>" in translated("The database refuses them ({name.__class__} <b>).", "fr")
