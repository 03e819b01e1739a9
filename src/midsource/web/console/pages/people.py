"""Recipients: search, one person, change, erase.

GET  /recipients                    in order, or ``q=`` the beginning of an address or name (``by=address|name``)
GET  /recipients/new, /{id}/edit    the form; POST the same address stores it
GET  /recipients/{id}               one person
GET  /recipients/{id}/erase         what erasing would do; POST does it
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.marketing import fields, finding_people, person, recipients
from midsource.marketing.finding_people import By, Count, PeoplePage, Place
from midsource.marketing.recipients import Recipient
from midsource.model.errors import Conflict, UserError
from midsource.security import audit
from midsource.security.roles import Permission
from midsource.store.database import Connection
from midsource.web.console.frame import Frame, done, number, whole
from midsource.web.console.pages import person_view
from midsource.web.console.pages.beside import MISTAKES, beside
from midsource.web.routing import Action, Form, Page, visitor_of

HERE = "recipients"
COLUMNS = ("email", "external_id", "first_name", "last_name", "language")
ALL_OWN = "own:"
"""Begins the name of an own field in the form: it may be called like a field of the form."""


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""
    people = _People(frame)
    see, deliver, administer = Permission.SEE, Permission.DELIVER, Permission.ADMINISTER
    return [
        Page("/recipients", people.listing, needs=see),
        Page("/recipients/new", people.form, needs=deliver),
        Action("/recipients/new", people.save, needs=deliver),
        Page("/recipients/{number}", people.one, needs=see),
        Page("/recipients/{number}/edit", people.form, needs=deliver),
        Action("/recipients/{number}/edit", people.save, needs=deliver),
        Page("/recipients/{number}/erase", people.erasing, needs=administer),
        Action("/recipients/{number}/erase", people.erase, needs=administer),
    ]


class _People:
    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def listing(self, request: Request) -> Response:
        query = request.query_params
        beginning = query.get("q", "").replace("\0", "").strip()[: finding_people.MAX_SEARCH_CHARS]
        by: By = "name" if query.get("by") == "name" else "address"
        place = Place(
            query.get("key", "").replace("\0", "")[: 2 * finding_people.MAX_SEARCH_CHARS], number(request, "after") or 0
        )

        def read(conn: Connection) -> tuple[PeoplePage, Count]:
            page = (
                finding_people.search(conn, beginning, by, place)
                if beginning
                else finding_people.in_order(conn, place.id)
            )
            return page, finding_people.everybody(conn)

        page, everybody = await self._frame.reader.read(read)
        return self._frame.page(
            request,
            "people.html",
            HERE,
            page=page,
            everybody=everybody,
            beginning=beginning,
            by=by,
            is_first=place == Place(),
        )

    async def one(self, request: Request) -> Response:
        story = await self._frame.reader.read(partial(person_view.story, recipient_id=_number(request)))
        return self._frame.page(request, "person.html", HERE, story=story, person=story.person)

    async def form(self, request: Request) -> Response:
        return await self._form(request, None, {}, 200)

    async def _form(
        self, request: Request, given: Mapping[str, str] | None, problems: Mapping[str, str], status: int
    ) -> Response:
        """Show the form of the person of the path, or of a new one; ``given``: what was typed, None: what is stored."""
        recipient_id = _number(request) if "number" in request.path_params else None

        def read(conn: Connection) -> tuple[Recipient | None, dict[str, fields.FieldType]]:
            stored = None if recipient_id is None else recipients.by_id(conn, recipient_id)
            return stored, fields.own_fields(conn)

        stored, own = await self._frame.reader.read(read)
        typed = dict(given) if given is not None else _typed(stored)
        return self._frame.page(
            request,
            "person_form.html",
            HERE,
            status=status,
            person=stored,
            own=own,
            given=typed,
            problems=problems,
            columns=COLUMNS,
        )

    async def save(self, request: Request, form: Form) -> Response:
        recipient_id = _number(request) if "number" in request.path_params else None
        given = {name.removeprefix(ALL_OWN): value for name, value in form.items() if name != person.OPTED_OUT}
        visitor = visitor_of(request.scope)

        def change(conn: Connection) -> int:
            stored = person.save(conn, given, opted_out=form.get(person.OPTED_OUT) == "yes", recipient_id=recipient_id)
            audit.record(conn, visitor, "recipient.change" if recipient_id else "recipient.add", stored)
            return stored

        try:
            stored = await self._frame.write(change)
        except MISTAKES as exc:
            return await self._form(request, form, beside(exc, {name.removeprefix(ALL_OWN) for name in form}), 422)
        return done(f"/recipients/{stored}", "person_saved")

    async def erasing(self, request: Request) -> Response:
        return await self._erasing(request, "", 200)

    async def _erasing(self, request: Request, problem: str, status: int) -> Response:
        recipient_id = _number(request)

        def read(conn: Connection) -> tuple[Recipient, int]:
            asked = recipients.by_id(conn, recipient_id)
            return asked, len(_with_same_address(conn, asked))

        asked, people = await self._frame.reader.read(read)
        return self._frame.page(
            request, "person_erase.html", HERE, status=status, person=asked, people=people, problem=problem
        )

    async def erase(self, request: Request, form: Form) -> Response:  # noqa: ARG002 - its coming is the confirmation
        recipient_id, visitor = _number(request), visitor_of(request.scope)

        def change(conn: Connection) -> None:
            asked = recipients.by_id(conn, recipient_id)
            erased = recipients.erase_people(conn, _with_same_address(conn, asked))
            audit.record(conn, visitor, "recipient.erase", recipient_id, people=erased.people, log_rows=erased.log_rows)

        try:
            await self._frame.write(change)
        except Conflict as exc:
            return await self._erasing(request, str(exc), 409)
        return done("/recipients", "person_erased")


def _with_same_address(conn: Connection, asked: Recipient) -> list[int]:
    """Return everybody of the address of ``asked``: whoever erases an address means all of them."""
    return [found.id for found in recipients.by_email(conn, asked.email)] if asked.email else [asked.id]


def _typed(stored: Recipient | None) -> dict[str, str]:
    """Return what the form shows of a stored person."""
    if stored is None:
        return {}
    given = {name: getattr(stored, name) or "" for name in COLUMNS}
    given |= {f"{ALL_OWN}{name}": _shown(value) for name, value in stored.fields.items()}
    return given | {person.OPTED_OUT: "yes" if stored.opted_out else ""}


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def _number(request: Request) -> int:
    try:
        return whole(request.path_params["number"], "a recipient's number")
    except UserError as exc:
        raise UserError(exc.cause, "search for the person") from exc
