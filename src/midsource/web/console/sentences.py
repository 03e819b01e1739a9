"""What other parts of the product say, in the reader's language: causes and remedies of findings, remarks, what a restart changes.

English is what is kept and what command line, API, journal and supervisors say; only pages translate, sentence by sentence,
when they show one. The English sentence is the key, as the source has it, with a named place where the source fills in a value:

    ["`midsource ps`: an mta process of {name} must live."]

What stands in a place may be a sentence, too. One that is not here is shown in English: errors are, because operators search for
them. A test holds the files in ``locale/sentences`` against the sources.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.resources import files

from midsource.model.finding import MAX_TEXT

REMEMBERED = 512
"""Translations kept: some pages of findings and remarks. Each is at most some hundred characters."""
CLAUSES = "; "
"""Between reasons that were put together: where the whole is not known, each may be."""
_PLACE = re.compile(r"\{(\w+)\}")


@cache
def sentences() -> Mapping[str, Mapping[str, str]]:
    """Return every sentence: the English one, and by language the others."""
    found: dict[str, Mapping[str, str]] = {}
    for source in (files("midsource.web.console") / "locale" / "sentences").iterdir():
        for english, others in tomllib.loads(source.read_text(encoding="utf-8")).items():
            assert english not in found, f"{source.name} repeats {english!r}"
            found[english] = others
    return found


@lru_cache(REMEMBERED)
def translated(sentence: str, language: str) -> str:
    """Return ``sentence`` in ``language``; '' where it is not known there."""
    if len(sentence) > MAX_TEXT:
        return ""
    known = sentences().get(sentence)
    if known is not None:
        return known.get(language, "")
    clauses = [translated(clause, language) for clause in sentence.split(CLAUSES)] if CLAUSES in sentence else []
    if clauses and all(clauses):
        return sentences()[CLAUSES].get(language, CLAUSES).join(clauses)
    return _filled(sentence, language)


def _filled(sentence: str, language: str) -> str:
    """Return the translation of the first sentence with places that fits, with its values."""
    for pattern, english in _with_places():
        match = pattern.fullmatch(sentence)
        if match:
            values = {name: translated(value, language) or value for name, value in match.groupdict().items()}
            return sentences()[english].get(language, "").format(**values)
    return ""


@cache
def _with_places() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Return the sentences with places as patterns, those first that fix most of the text."""
    found = [english for english in sentences() if _PLACE.search(english)]
    return tuple((_pattern(english), english) for english in sorted(found, key=lambda one: -len(_PLACE.sub("", one))))


def _pattern(english: str) -> re.Pattern[str]:
    pieces = _PLACE.split(english)
    return re.compile(
        "".join(f"(?P<{piece}>.+?)" if at % 2 else re.escape(piece) for at, piece in enumerate(pieces)), re.DOTALL
    )
