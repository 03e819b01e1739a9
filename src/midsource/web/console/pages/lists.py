"""Lists, segments and own fields: who deliveries go to.

GET  /lists                    lists; ``after=NAME``. POST makes one
GET  /lists/{id}               its people; ``after=ID``. POST /add, /remove, /delete
GET  /segments                 segments
GET  /segments/edit            ``name=``, and whom it chooses. POST stores, or only looks (``look=``); POST /segments/delete
GET  /fields                   own fields. POST adds one
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.marketing import fields, finding_people, lists, recipients, segments
from midsource.marketing.fields import FieldType
from midsource.marketing.finding_people import Count, PeoplePage
from midsource.marketing.lists import RecipientList
from midsource.marketing.segments import Preview
from midsource.model.errors import NotFound, UserError
from midsource.security import audit
from midsource.security.roles import Permission
from midsource.store.database import Connection
from midsource.web.console.frame import Frame, done, number, whole
from midsource.web.console.pages.beside import MISTAKES, beside
from midsource.web.console.pages.deletion import Deletion
from midsource.web.routing import Action, Form, Page, visitor_of

HERE = "recipients"


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""
    listed, named, own = _Lists(frame), _Segments(frame), _Fields(frame)
    deleted = Deletion(frame, HERE, "segment", "/segments", segments.segment_expression, segments.delete_segment)
    deliver = Permission.DELIVER
    return [
        Page("/lists", listed.all),
        Action("/lists", listed.make, needs=deliver),
        Page("/lists/{number}", listed.one),
        Action("/lists/{number}/add", listed.add, needs=deliver),
        Action("/lists/{number}/remove", listed.remove, needs=deliver),
        Page("/lists/{number}/delete", listed.deleting, needs=deliver),
        Action("/lists/{number}/delete", listed.delete, needs=deliver),
        Page("/segments", named.all),
        Page("/segments/edit", named.one),
        Action("/segments/edit", named.save, needs=deliver),
        *deleted.routes(),
        Page("/fields", own.all),
        Action("/fields", own.add, needs=deliver),
    ]


class _Lists:
    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def all(self, request: Request) -> Response:
        return await self._all(request, {}, {}, 200)

    async def _all(
        self, request: Request, given: Mapping[str, str], problems: Mapping[str, str], status: int
    ) -> Response:
        after = request.query_params.get("after", "").replace("\0", "")

        def read(conn: Connection) -> list[tuple[RecipientList, Count]]:
            return [(entry, finding_people.members(conn, entry.id)) for entry in lists.page(conn, after)]

        found = await self._frame.reader.read(read)
        following = found[-1][0].name if len(found) == lists.SHOWN else ""
        return self._frame.page(
            request, "lists.html", HERE, status=status, lists=found, following=following, given=given, problems=problems,
            is_first=not after,
        )  # fmt: skip

    async def make(self, request: Request, form: Form) -> Response:
        visitor = visitor_of(request.scope)

        def change(conn: Connection) -> int:
            made = lists.ensure_list(conn, form.get("name", "").strip())
            audit.record(conn, visitor, "list.add", made)
            return made

        try:
            made = await self._frame.write(change)
        except MISTAKES as exc:
            return await self._all(request, form, {"name": str(exc)}, 422)
        return done(f"/lists/{made}", "list_made")

    async def one(self, request: Request) -> Response:
        return await self._one(request, {}, {}, 200)

    async def _one(
        self, request: Request, given: Mapping[str, str], problems: Mapping[str, str], status: int
    ) -> Response:
        after, asked = number(request, "after") or 0, _number(request)

        def read(conn: Connection) -> tuple[RecipientList, PeoplePage, Count]:
            found = lists.by_id(conn, asked)
            return found, finding_people.in_order(conn, after, asked), finding_people.members(conn, asked)

        found, page, members = await self._frame.reader.read(read)
        return self._frame.page(
            request, "list.html", HERE, status=status, list=found, page=page, members=members, is_first=not after,
            given=given, problems=problems,
        )  # fmt: skip

    async def add(self, request: Request, form: Form) -> Response:
        asked, visitor = _number(request), visitor_of(request.scope)

        def change(conn: Connection) -> None:
            lists.by_id(conn, asked)
            people = [person.id for person in recipients.by_email(conn, form.get("email", ""))]
            added = lists.add_members(conn, asked, people)
            audit.record(conn, visitor, "list.add_people", asked, people=added)

        try:
            await self._frame.write(change)
        except MISTAKES as exc:
            return await self._one(request, form, {"email": str(exc)}, 422)
        return done(f"/lists/{asked}", "list_added")

    async def remove(self, request: Request, form: Form) -> Response:
        asked, visitor = _number(request), visitor_of(request.scope)
        person = whole(form.get("recipient", ""), "a recipient's number")

        def change(conn: Connection) -> None:
            lists.remove_member(conn, asked, person)
            audit.record(conn, visitor, "list.remove_person", asked, recipient=person)

        await self._frame.write(change)
        return done(f"/lists/{asked}", "list_removed")

    async def deleting(self, request: Request) -> Response:
        return await self._deleting(request, "", 200)

    async def _deleting(self, request: Request, problem: str, status: int) -> Response:
        asked = _number(request)

        def read(conn: Connection) -> tuple[RecipientList, Count]:
            return lists.by_id(conn, asked), finding_people.members(conn, asked)

        found, members = await self._frame.reader.read(read)
        return self._frame.page(
            request, "list_delete.html", HERE, status=status, list=found, members=members, problem=problem
        )

    async def delete(self, request: Request, form: Form) -> Response:  # noqa: ARG002 - its coming is the confirmation
        asked, visitor = _number(request), visitor_of(request.scope)

        def change(conn: Connection) -> None:
            name = lists.by_id(conn, asked).name
            members = lists.delete_list(conn, asked)
            audit.record(conn, visitor, "list.delete", asked, name=name, people=members)

        try:
            await self._frame.write(change)
        except MISTAKES as exc:
            return await self._deleting(request, str(exc), exc.http_status)
        return done("/lists", "list_deleted")


class _Segments:
    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def all(self, request: Request) -> Response:
        found = await self._frame.reader.read(segments.all_segments)
        return self._frame.page(request, "segments.html", HERE, segments=found)

    async def one(self, request: Request) -> Response:
        return await self._one(request, {"name": request.query_params.get("name", "").replace("\0", "")}, {}, 200)

    async def _one(
        self, request: Request, given: Mapping[str, str], problems: Mapping[str, str], status: int
    ) -> Response:
        """Show the form; where there is a condition, stored or typed, also whom it chooses."""

        def read(conn: Connection) -> tuple[str, str, Preview | None, Mapping[str, FieldType], str]:
            name = given.get("name", "")
            known = {segment.name: segment.expression for segment in segments.all_segments(conn)}
            expression = given.get("expression", known.get(name, ""))
            preview, problem = None, ""
            if expression.strip():
                try:
                    preview = segments.glance(conn, expression)
                except UserError as exc:
                    problem = str(exc)
            return expression, problem, preview, fields.all_fields(conn), name if name in known else ""

        expression, problem, preview, known, stored = await self._frame.reader.read(read)
        shown = {**({"expression": problem} if problem else {}), **problems}
        return self._frame.page(
            request, "segment.html", HERE, status=status if not shown else 422, stored=stored, preview=preview,
            fields=known, given={"name": given.get("name", ""), "expression": expression}, problems=shown,
        )  # fmt: skip

    async def save(self, request: Request, form: Form) -> Response:
        name, expression, visitor = form.get("name", "").strip(), form.get("expression", ""), visitor_of(request.scope)

        def change(conn: Connection) -> None:
            segments.create_segment(conn, name, expression)
            audit.record(conn, visitor, "segment.create", name)

        if "look" in form:
            return await self._one(request, form, {}, 200)
        try:
            await self._frame.write(change)
        except MISTAKES as exc:
            problems = beside(exc, (), expression="expression")
            return await self._one(request, form, {(at or "name"): why for at, why in problems.items()}, 422)
        return done("/segments/edit", "segment_saved", name=name)


class _Fields:
    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def all(self, request: Request) -> Response:
        return await self._all(request, {}, {}, 200)

    async def _all(
        self, request: Request, given: Mapping[str, str], problems: Mapping[str, str], status: int
    ) -> Response:
        own = await self._frame.reader.read(fields.own_fields)
        types: Sequence[FieldType] = tuple(FieldType)
        return self._frame.page(
            request, "fields.html", HERE, status=status, own=own, fixed=fields.FIXED, types=types, given=given,
            problems=problems,
        )  # fmt: skip

    async def add(self, request: Request, form: Form) -> Response:
        name, kind, visitor = form.get("name", "").strip(), form.get("type", ""), visitor_of(request.scope)

        def change(conn: Connection) -> None:
            if fields.add_field(conn, name, kind):
                audit.record(conn, visitor, "field.add", name, type=kind)

        try:
            await self._frame.write(change)
        except MISTAKES as exc:
            return await self._all(request, form, {"name": str(exc)}, 422)
        return done("/fields", "field_added")


def _number(request: Request) -> int:
    try:
        return whole(request.path_params["number"], "a list's number")
    except UserError as exc:
        raise NotFound(exc.cause, "see the lists") from exc
