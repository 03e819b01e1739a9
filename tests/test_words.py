"""The glossary and the table for those who come from elsewhere, against what the product really says and has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from midsource.cli import reference_commands
from midsource.model.delivery import DeliveryState
from midsource.model.options import MARKETING_OPTIONS, MID_OPTIONS
from midsource.web.console.catalogue import LANGUAGES, texts

DOCS = Path(__file__).parent.parent / "docs"
TERMS, STATES = (DOCS / "glossary.md").read_text(encoding="utf-8").split("## States in three languages")
USED_TO = (
    (DOCS / "operator-guide.md").read_text(encoding="utf-8").split("## If you are used to")[-1].split("## Glossary")[0]
)
NOT_OURS = {"NmsMidSourcing_LogsPeriodHour"}
"""Options that the table names because they do not exist here."""
SHOWN = {
    "delivery": "delivery.title",
    "external account": "delivery.account",
    "target": "delivery.target",
    "validity": "delivery.validity",
    "contact date": "delivery.contact",
    "marketing instance": "role.marketing",
}
"""Terms of the glossary that stand on a page of the console as they are, and the key of that text."""


def rows(text: str) -> list[list[str]]:
    found = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return [row for row in found if not set("".join(row)) <= {"-"}][1:]


def test_each_term_is_there_in_three_languages_with_its_meaning_and_in_order() -> None:
    found = rows(TERMS)
    assert len(found) > 50
    assert [row for row in found if len(row) != 4 or not all(row)] == []
    terms = [row[0] for row in found]
    assert terms == sorted(terms, key=str.casefold)
    assert len(set(terms)) == len(terms)


@pytest.mark.parametrize("column", [1, 2, 3])
def test_the_states_of_a_delivery_are_those_of_the_console(column: int) -> None:
    language = list(LANGUAGES)[column - 1]
    said = {row[0]: row[column] for row in rows(STATES)}
    assert said == {str(int(state)): texts(language)[f"delivery_state.{int(state)}"] for state in DeliveryState}


@pytest.mark.parametrize("term", SHOWN)
def test_a_term_is_the_one_the_console_uses(term: str) -> None:
    row = next(row for row in rows(TERMS) if row[0].split(",")[0] == term)
    for column, language in enumerate(LANGUAGES):
        words = row[column].split(",")
        shown = texts(language)[SHOWN[term]].casefold()
        assert any(word.strip().casefold() == shown for word in words), (language, row, shown)


def test_what_the_table_sends_people_to_exists() -> None:
    commands = {words for words, _ in reference_commands.commands()}
    named = re.findall(r"`midsource ([a-z][a-z-]*(?: [a-z][a-z-]*)?)", USED_TO)
    assert len(named) > 20
    missing = [words for words in named if words not in commands and words.split()[0] not in commands]
    assert missing == []
    groups = {words.split()[0] for words in commands if " " in words}
    wrong = [words for words in named if words.split()[0] in groups and words not in commands]
    assert wrong == [], "no such command of this group"


def test_options_of_the_table_are_those_of_the_product() -> None:
    known = {option.name for option in (*MARKETING_OPTIONS, *MID_OPTIONS)} | NOT_OURS
    assert [name for name in re.findall(r"`(Nms\w+(?:<account>)?)`", USED_TO) if name not in known] == []
