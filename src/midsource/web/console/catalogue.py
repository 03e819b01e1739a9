"""The texts of the console: TOML files in ``locale/<language>``, one a family of pages, the same keys in each language.

A key is ``table.name``; ``{names}`` in a text are filled in. A text that is missing is a fault of ours and raises KeyError;
a test holds the three files against each other and against what pages and enumerations ask for. Of what other parts of the
product say, findings, remarks and restarts are translated (sentences.py); errors and failures of the link stay as they were
written, because operators search for them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from midsource.model.technical import TECHNICAL

LANGUAGES: Mapping[str, str] = {"en": "English", "fr": "Français", "pt": "Português"}
"""Code and own name, in the order they are offered; the first is what we fall back to."""
DEFAULT = "en"
MAX_ACCEPT = 500
"""Characters of Accept-Language looked at; browsers send 20 to 100."""


@cache
def texts(language: str) -> Mapping[str, str]:
    """Return every text of ``language`` by key."""
    found = {f"workflow_label.{one.name}": one.label_in(language) for one in TECHNICAL.values()}
    for source in (files("midsource.web.console") / "locale" / language).iterdir():
        for table, entries in tomllib.loads(source.read_text(encoding="utf-8")).items():
            for name, text in entries.items():
                key = f"{table}.{name}"
                assert key not in found, f"{source.name} repeats {key}"
                found[key] = text
    return found


def choose(asked: str, kept: str, accepted: str) -> str:
    """Return the language to speak: asked for in the address, else kept in the cookie, else what the browser accepts."""
    for candidate in (asked, kept):
        if candidate in LANGUAGES:
            return candidate
    ranked = sorted(_ranges(accepted[:MAX_ACCEPT]), key=lambda found: -found[0])
    return next((code for weight, code in ranked if weight > 0 and code in LANGUAGES), DEFAULT)


def _ranges(accepted: str) -> list[tuple[float, str]]:
    """Return (weight, code) of each range; one whose weight cannot be read counts nothing."""
    found = []
    for piece in accepted.split(","):
        tag, _, rest = piece.strip().partition(";")
        weight = rest.strip().removeprefix("q=") or "1"
        number = float(weight) if weight.replace(".", "", 1).isdecimal() else 0.0
        found.append((number, tag.strip().lower().partition("-")[0]))
    return found
