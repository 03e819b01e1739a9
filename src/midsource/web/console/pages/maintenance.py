"""Upkeep of this instance's database: what is wrong, what it costs, what is due and when, what was done.

GET  /maintenance          measured now, in a fraction of a second; where that takes too long, what was done and the reason
POST /maintenance/order    ``act=vacuum|reindex``: what is due of it at once, whatever the hour

Reading changes nothing (store/maintenance/status.py). Orders are those of the command line, with their row in the audit; where
maintenance only advises, there is the SQL for the DBA and no order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.engine import admin
from midsource.model.errors import Conflict, NotFound
from midsource.model.maintenance import Act, Step
from midsource.policy.forecast import Forecast
from midsource.policy.maintenance import seconds
from midsource.security import audit
from midsource.security.roles import Permission, Visitor
from midsource.store.database import Connection, Database, StatementTimeout
from midsource.store.maintenance import actions, measuring, settings, status
from midsource.store.maintenance.actions import ActionRow
from midsource.store.maintenance.orders import ordered
from midsource.store.maintenance.statements import statement
from midsource.store.maintenance.status import Status
from midsource.web.console.frame import Frame, done
from midsource.web.console.pages.figures import WIDTH
from midsource.web.console.pages.workflows import need_worker
from midsource.web.routing import Action, Form, Page, visitor_of
from midsource.workflows import database_maintenance

HERE = "maintenance"
PATH = "/maintenance"
ACTS = {"vacuum": Act.VACUUM_ANALYZE, "reindex": Act.REINDEX}
TABLES_SHOWN = 15
REMARKS_SHOWN = 25
STEPS_SHOWN = 25
FORECASTS_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Size:
    """A table as its bar shows it: bytes with indexes and long texts, and the part of its own bytes that no row needs."""

    name: str
    bytes: int
    waste: int
    dead: int
    values: Mapping[str, Any]
    most: int

    @property
    def width(self) -> int:
        """Units of the bar, of those the largest table has."""
        return round(WIDTH * self.bytes / max(1, self.most))

    @property
    def waste_width(self) -> int:
        """Units of the bar that nobody needs, from its right end."""
        return min(self.width, round(WIDTH * self.waste / max(1, self.most)))


@dataclass(frozen=True, slots=True)
class Due:
    """A step of the plan and how long it takes, in seconds."""

    step: Step
    seconds: float


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What the page shows. ``status`` None: measuring took too long, for ``problem``."""

    status: Status | None
    actions: Sequence[ActionRow]
    problem: str = ""

    @property
    def due(self) -> list[Due]:
        """The plan, in its order."""
        steps = self.status.steps[:STEPS_SHOWN] if self.status else ()
        return [Due(step, seconds(step)) for step in steps]

    @property
    def sql(self) -> str:
        """Everything that is due as statements, one a line; '' where nothing is."""
        steps = self.status.steps if self.status else ()
        return "\n".join(f"{statement(step)};" for step in steps)

    @property
    def sizes(self) -> list[Size]:
        """The largest tables, the largest first."""
        if self.status is None:
            return []
        tables = status.as_dict(self.status)["tables"]
        sized = sorted(((_whole(table), table) for table in tables), key=lambda one: (-one[0], one[1]["name"]))
        most = sized[0][0] if sized else 0
        return [
            Size(table["name"], size, table["waste_bytes"] or 0, table["dead"], table, most)
            for size, table in sized[:TABLES_SHOWN]
        ]

    @property
    def forecasts(self) -> Sequence[Forecast]:
        """What is filling up, the nearest end first; then disk and database, which everybody asks about."""
        drawn = self.status.forecasts if self.status else ()
        general = [one for one in drawn if one.kind in ("disk free", "database", "number")]
        growing = [one for one in drawn if one.kind == "relation" and one.per_day]
        return [*general, *growing][:FORECASTS_SHOWN]


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""

    async def page(request: Request) -> Response:
        found = await _upkeep(frame)
        return frame.page(request, "maintenance.html", HERE, upkeep=found, remarks_shown=REMARKS_SHOWN)

    async def order(request: Request, form: Form) -> Response:
        visitor, act = visitor_of(request.scope), ACTS.get(form.get("act", ""))
        if act is None:
            raise NotFound("there is no such order", f"orders: {', '.join(ACTS)}")
        asked = await frame.work(lambda database: _order(frame, database, visitor, act))
        return done(PATH, "maintenance_ordered") if asked else done(PATH, "maintenance_nothing")

    return [Page(PATH, page), Action(f"{PATH}/order", order, needs=Permission.SUPERVISE)]


async def _upkeep(frame: Frame) -> Upkeep:
    def read(conn: Connection) -> Upkeep:
        conn.autocommit = True  # what the reading asks for; the session stays read-only
        found = status.read(conn, frame.clock.now())
        return Upkeep(found, found.actions)

    try:
        return await frame.reader.read(read)
    except StatementTimeout as exc:
        shown = await frame.reader.read(lambda conn: actions.latest(conn, status.ACTIONS_SHOWN))
        return Upkeep(None, shown, str(exc))


def _order(frame: Frame, database: Database, visitor: Visitor, act: Act) -> int:
    """Ask for what is due of ``act``; return how many actions. Raises Conflict where maintenance only advises."""
    with database.connection() as conn:
        chosen, _ = settings.read(conn)
        if chosen.advises:
            raise Conflict("maintenance only advises here", "the page has the SQL for whoever executes it")
        steps = ordered(measuring.measure(conn, frame.clock.now()), chosen, act, (), by=visitor.name)
    if not steps:
        return 0
    with database.transaction() as conn:
        need_worker(conn, frame)
        ids = actions.ask(conn, [replace(step, why_not="") for step in steps], visitor.name)
        run = admin.run_now(conn, database_maintenance.NAME, visitor.name)
        audit.record(conn, visitor, f"maintenance.{act.split()[0]}", frame.instance.name, run=run, actions=len(ids))
    return len(ids)


def _whole(table: Mapping[str, Any]) -> int:
    return int(table["bytes"] + table["toast_bytes"] + table["index_bytes"])
