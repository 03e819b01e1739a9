"""Options and pointers: value, default, meaning, who changed it and when; set one, or give it its default again.

GET  /options                  all of them, and what the configuration says
GET  /options/{name}           one, with its form and its history
POST /options/{name}           ``value``; a pointer moved forward asks first, and ``confirmed`` repeats the value
POST /options/{name}/revert    its default again

The checks are those of the command line (store/options.py, marketing/options.py). A form says what the option was when it was shown (``was``):
somebody else's change meanwhile is said, not overwritten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.marketing import standing
from midsource.marketing.options import NotConfirmed
from midsource.marketing.standing import Position
from midsource.model.errors import NotFound, UserError
from midsource.security import audit
from midsource.security.audit import Entry
from midsource.security.roles import Permission, Visitor
from midsource.store.database import Connection
from midsource.store.options import OptionTable, OptionView
from midsource.web.console.frame import Frame, done
from midsource.web.option_tables import table_of
from midsource.web.routing import Action, Form, Page, visitor_of

HISTORY = 20
MAX_VALUE = 200
"""Characters of a value that is read at all; the longest that can be meant is a time with its zone."""
HIDDEN = frozenset({"name", "database_url"})
"""Keys of an instance that are not shown: its name stands below every page, its database's URL may hold a password."""


@dataclass(frozen=True, slots=True)
class Story:
    """One option, where its pointer stands, and its last changes, newest first."""

    option: OptionView
    position: Position | None
    history: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the configuration file, and where its value came from."""

    key: str
    value: str
    origin: str


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""

    table = table_of(frame.instance.role)

    async def listing(request: Request) -> Response:
        views, stand = await frame.reader.read(partial(_all, table=table))
        return frame.page(
            request, "options.html", "options", options=views, positions=stand, settings=_settings(frame), live=False
        )

    async def option(request: Request) -> Response:
        story = await frame.reader.read(partial(_story, table=table, name=request.path_params["name"]))
        return frame.page(request, "option.html", "options", story=story, typed=story.option.value, problem="")

    async def change(request: Request, form: Form) -> Response:
        return await _change(frame, request, request.path_params["name"], form)

    async def revert(request: Request, _form: Form) -> Response:
        name = request.path_params["name"]
        await frame.write(partial(_revert, table=table, visitor=visitor_of(request.scope), name=name))
        path = f"/options/{name}"
        return done(path, "option_reverted")

    async def back(request: Request) -> Response:
        path = f"/options/{request.path_params['name']}"
        return done(path)

    return [
        Page("/options", listing),
        Page("/options/{name}", option),
        Action("/options/{name}", change, needs=Permission.ADMINISTER),
        Page("/options/{name}/revert", back),
        Action("/options/{name}/revert", revert, needs=Permission.ADMINISTER),
    ]


async def _change(frame: Frame, request: Request, name: str, form: Form) -> Response:
    """Set the option, or show the form again with what is wrong, or ask whether results may be left out."""
    visitor, value = visitor_of(request.scope), form.get("value", "")[:MAX_VALUE]
    confirmed = form.get("confirmed") == value != ""
    change = partial(
        _set, frame=frame, visitor=visitor, name=name, value=value, was=form.get("was"), confirmed=confirmed
    )
    path = f"/options/{name}"
    try:
        await frame.write(change)
    except NotConfirmed as exc:
        story = await frame.reader.read(partial(_story, table=table_of(frame.instance.role), name=name))
        return frame.page(request, "option_confirm.html", "options", story=story, value=value, gap=exc.gap)
    except UserError as exc:
        if isinstance(exc, NotFound):
            raise
        story = await frame.reader.read(partial(_story, table=table_of(frame.instance.role), name=name))
        return frame.page(request, "option.html", "options", status=422, story=story, typed=value, problem=str(exc))
    return done(path, "option_set")


def _all(conn: Connection, *, table: OptionTable) -> tuple[Sequence[OptionView], Mapping[str, Position]]:
    views = table.list_options(conn)
    return views, _positions(conn) if any(view.stream for view in views) else {}


def _positions(conn: Connection) -> dict[str, Position]:
    return {position.option: position for position in standing.positions(conn)}


def _story(conn: Connection, *, table: OptionTable, name: str) -> Story:
    option = table.view(conn, name)
    stand = _positions(conn) if option.stream else {}
    return Story(option, stand.get(name), audit.page(conn, subject=name, limit=HISTORY).entries)


def _set(
    conn: Connection, *, frame: Frame, visitor: Visitor, name: str, value: str, was: str | None, confirmed: bool
) -> None:
    """Set the option and say so in the audit. Raises UserError, NotFound, NotConfirmed."""
    options = table_of(frame.instance.role)
    before = options.view(conn, name)
    if was is not None and before.stream is None and was != before.value:
        raise UserError(
            f"{name} was set to {before.value!r} by {before.modified_by or 'its default'} meanwhile",
            "look at the present value, and set it again if you still mean it",
        )
    options.set_value(conn, name, value, by=visitor.name, now=frame.clock.now(), yes=confirmed)
    after = options.view(conn, name)
    if after.value != before.value:
        audit.record(conn, visitor, "option.set", name, old=before.value, new=after.value)


def _revert(conn: Connection, *, table: OptionTable, visitor: Visitor, name: str) -> None:
    before = table.view(conn, name)
    table.revert(conn, name, by=visitor.name)
    audit.record(conn, visitor, "option.revert", name, old=before.value, new=before.default)


def _settings(frame: Frame) -> list[Setting]:
    """Return what the configuration says of this instance."""
    found = []
    for field in fields(frame.instance):
        if field.name not in HIDDEN:
            key = f"instances.{frame.instance.name}.{field.name}"
            value = getattr(frame.instance, field.name)
            shown = str(value).lower() if isinstance(value, bool) else str(value)
            found.append(Setting(key, shown, frame.config.origin.get(key, "")))
    return found
