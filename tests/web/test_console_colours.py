"""The colours of the console keep their contrast in light and dark: computed from the style sheet, without a browser."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

KEPT_CONTRAST = 4.5
"""WCAG 2 AA for text of ordinary size."""
CSS = (files("midsource.web.console") / "static" / "console.css").read_text()


def _tokens(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", block))


def _lightness(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (n / 12.92 if n <= 0.04045 else ((n + 0.055) / 1.055) ** 2.4 for n in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


LIGHT = _tokens(CSS.partition("@media")[0])
MODES = {"light": LIGHT, "dark": LIGHT | _tokens(CSS.partition("prefers-color-scheme: dark")[2].partition("\n}")[0])}
ON_EVERYTHING = ("paper", "ground")
PAIRS = [
    *((text, ground) for text in ("ink", "soft", "link", "good", "bad", "warn", "run") for ground in ON_EVERYTHING),
    *((text, f"{text}-ground") for text in ("good", "bad", "warn", "run")),
    ("soft", "plain-ground"),
    ("button", "button-ground"),
]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_colours_of_text_keep_their_contrast(mode: str, text: str, ground: str) -> None:
    low, high = sorted(_lightness(MODES[mode][name]) for name in (text, ground))
    assert (high + 0.05) / (low + 0.05) >= KEPT_CONTRAST


def test_dark_and_light_name_the_same_colours() -> None:
    dark = _tokens(CSS.partition("prefers-color-scheme: dark")[2].partition("\n}")[0])
    assert dark.keys() == LIGHT.keys() - {"button", "button-ground"}, "a button has one colour for both"
    assert len(LIGHT) > 20


def test_every_colour_of_text_is_a_token() -> None:
    rules = CSS.partition("* { box-sizing")[2]
    assert re.findall(r"(?:color|background): #[0-9a-f]+", rules) == []
