"""Templates and assets: HTML out of values, in one language. Everything is escaped; an unknown name is a fault of ours.

Assets carry a hash of their content in their name, so browsers may keep them for ever and never show an old one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from midsource.model.delivery import DeliveryState
from midsource.web.console.catalogue import LANGUAGES
from midsource.web.console.language import Words
from midsource.web.console.pages.figures import WIDTH

PREFIX = "/static/"
_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
_STATE_TONES = {
    DeliveryState.READY: "ready",
    DeliveryState.START_PENDING: "running",
    DeliveryState.IN_PROGRESS: "running",
    DeliveryState.RETRY: "running",
    DeliveryState.PAUSE_REQUESTED: "paused",
    DeliveryState.PAUSING: "paused",
    DeliveryState.PAUSED: "paused",
    DeliveryState.PREPARATION_FAILED: "bad",
    DeliveryState.FAILED: "bad",
    DeliveryState.FINISHED: "good",
}
"""The colour of a state; the others are plain. Colour never says anything alone: the word stands on it."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that pages load."""

    path: str
    content: bytes
    media_type: str


def _load_assets() -> dict[str, Asset]:
    found = {}
    for file in (files("midsource.web.console") / "static").iterdir():
        stem, _, ending = file.name.rpartition(".")
        if ending in _TYPES:
            content = file.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:12]
            found[file.name] = Asset(f"{PREFIX}{stem}.{digest}.{ending}", content, _TYPES[ending])
    return found


ASSETS: Mapping[str, Asset] = _load_assets()
"""By the name they have here."""
ASSET_AT: Mapping[str, Asset] = {asset.path: asset for asset in ASSETS.values()}
"""By the path they are served at."""


def _read_template(name: str) -> str:
    return (files("midsource.web.console") / "templates" / name).read_text(encoding="utf-8")


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FunctionLoader(_read_template),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_ENVIRONMENT.globals.update(
    asset=lambda name: ASSETS[name].path,
    languages=LANGUAGES,
    bar_width=WIDTH,
    tone=lambda state: _STATE_TONES.get(DeliveryState(state), "plain"),
    parse_time=datetime.fromisoformat,
)


def _commands(text: str) -> Markup:
    """Return a text with what stands in `backticks`, commands and names of options, as code; all of it escaped."""
    pieces = re.split(r"`([^`]+)`", text)
    marked = [Markup('<code lang="en">{}</code>').format(piece) if at % 2 else piece for at, piece in enumerate(pieces)]
    return Markup("").join(marked)


_ENVIRONMENT.filters["commands"] = _commands


def render(template: str, words: Words, **values: Any) -> str:
    """Return the page; ``words`` are its ``t``."""
    return _ENVIRONMENT.get_template(template).render(t=words, **values)
