"""How many technical workflows ran at once on one day: 24 rows of 12 cells of five minutes.

GET /concurrency    ``day=2026-05-04`` (today), ``least=SECONDS`` leaves out shorter runs, ``name=PART`` of internal names

Each cell holds its number, so nothing is said by colour alone; the table is one for screen readers, too. Days are UTC.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.engine import heat, records
from midsource.engine.heat import CELL, Heat
from midsource.model.errors import UserError
from midsource.model.technical import TECHNICAL
from midsource.store.database import Connection
from midsource.web.console.frame import Frame, whole
from midsource.web.console.pages.workflows import HERE
from midsource.web.routing import Page

MAX_NAME = 100
TONES = 5
"""Colours of cells in which something ran; more at once than that look alike, and their number tells them apart."""
YEARS = range(2000, 2100)
"""Days one may ask for."""
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the page was asked for; ``names`` None: of every workflow."""

    day: date
    least: int
    name: str
    names: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Map:
    """The day as it is drawn."""

    asked: Asked
    heat: Heat

    @property
    def fullest_at(self) -> datetime | None:
        """When the fullest five minutes began; None where nothing ran."""
        if not self.heat.most:
            return None
        begin = datetime.combine(self.asked.day, datetime.min.time(), UTC)
        return begin + CELL * list(self.heat.cells).index(self.heat.most)

    def query(self, days: int) -> str:
        """Return the address of another day with the same filters."""
        day = self.asked.day + timedelta(days=days)
        kept = {"least": self.asked.least, "name": self.asked.name}
        return f"?{urlencode({'day': day, **{name: value for name, value in kept.items() if value}})}"


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""

    async def page(request: Request) -> Response:
        today = frame.clock.now().astimezone(UTC).date()
        wanted = asked(request.query_params, today)
        drawn = await frame.reader.read(lambda conn: _map(conn, wanted))
        return frame.page(request, "concurrency.html", HERE, map=drawn, today=today)

    return [Page("/concurrency", page)]


def asked(query: Mapping[str, str], today: date) -> Asked:
    """Read what was asked for. Pure. Raises UserError for a day or a number of seconds that is none."""
    text, least = query.get("day", "").strip(), query.get("least", "").strip()
    try:
        day = date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:
        day = None
    if text and (day is None or day.year not in YEARS):
        raise UserError(f"{text[:40]!r} is not a day", "write it as in 2026-05-04")
    name = query.get("name", "").strip().replace("\0", "")[:MAX_NAME]
    return Asked(day or today, whole(least, "a number of seconds") if least else 0, name)


def is_called(name: str, part: str) -> bool:
    """Tell whether ``part`` is in the internal name or in a label, in any language. Pure."""
    one = TECHNICAL.get(name)
    labels = (one.label, *one.labels.values()) if one else ()
    return any(part.casefold() in text.casefold() for text in (name, *labels))


def _map(conn: Connection, wanted: Asked) -> Map:
    names = None
    if wanted.name:
        names = [row.name for row in records.listing(conn) if is_called(row.name, wanted.name)]
    chosen = replace(wanted, names=names)
    return Map(chosen, heat.of_day(conn, chosen.day, names=names, least_seconds=chosen.least))
