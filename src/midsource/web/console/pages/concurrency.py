"""How many technical workflows ran at once on one day of a zone: 24 rows of 12 cells of five minutes, 23 or 25 where the clock changes.

GET /concurrency    ``day=2026-05-04`` (today), ``least=SECONDS`` leaves out shorter runs, ``name=PART`` of internal names,
                    ``zone=Europe/Paris``: whose day it is; by default the zone of the instance's maintenance, UTC unless it was set

Each cell holds its number, so nothing is said by colour alone; the table is one for screen readers, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.engine import heat, records
from midsource.engine.heat import Heat
from midsource.model.errors import UserError
from midsource.model.schedule import parse_zone
from midsource.model.technical import TECHNICAL
from midsource.store.database import Connection
from midsource.store.maintenance import settings
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
    """What the page was asked for; ``today``: in that zone; ``names`` None: of every workflow."""

    zone: ZoneInfo
    today: date
    day: date
    least: int
    name: str
    names: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Map:
    """The day as it is drawn."""

    asked: Asked
    heat: Heat

    def query(self, days: int) -> str:
        """Return the address of another day with the same filters."""
        day = self.asked.day + timedelta(days=days)
        kept = {"zone": self.asked.zone.key, "least": self.asked.least, "name": self.asked.name}
        return f"?{urlencode({'day': day, **{name: value for name, value in kept.items() if value}})}"


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""

    async def page(request: Request) -> Response:
        now = frame.clock.now()
        drawn = await frame.reader.read(lambda conn: _map(conn, asked(request.query_params, now, _own_zone(conn))))
        return frame.page(request, "concurrency.html", HERE, map=drawn)

    return [Page("/concurrency", page)]


def asked(query: Mapping[str, str], now: datetime, own: ZoneInfo) -> Asked:
    """Read what was asked for; ``own``: the zone where none is. Pure. Raises UserError for a zone, a day or a number that is none."""
    text, least = query.get("day", "").strip(), query.get("least", "").strip()
    named = query.get("zone", "").strip()
    zone = parse_zone(named) if named else own
    try:
        day = date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:
        day = None
    if text and (day is None or day.year not in YEARS):
        raise UserError(f"{text[:40]!r} is not a day", "write it as in 2026-05-04")
    name, today = query.get("name", "").strip().replace("\0", "")[:MAX_NAME], now.astimezone(zone).date()
    return Asked(zone, today, day or today, whole(least, "a number of seconds") if least else 0, name)


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
    return Map(chosen, heat.of_day(conn, chosen.day, chosen.zone, names=names, least_seconds=chosen.least))


def _own_zone(conn: Connection) -> ZoneInfo:
    """Return the zone of this instance's maintenance; one that was broken behind our back counts as UTC."""
    return ZoneInfo(settings.read(conn)[0].window.zone)
