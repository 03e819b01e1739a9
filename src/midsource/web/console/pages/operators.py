"""Administration: who may use this instance. Operators with their roles; keys of programs with their scopes.

A key is shown on the page that answers the form that made it, and never again. Revoking one asks on a page of its own,
because it cannot be taken back; disabling an operator can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.model.errors import Conflict, NotFound, UserError
from midsource.security import api_keys, operators, sessions
from midsource.security.operators import Operator
from midsource.security.passwords import MIN_LENGTH, checked
from midsource.security.roles import PERMISSIONS, Permission, Role, Visitor
from midsource.security.sessions import OpenSession
from midsource.store.database import Connection
from midsource.web.console.frame import Frame, done
from midsource.web.console.pages.login import UNEQUAL, door_of
from midsource.web.routing import Action, Form, Page, visitor_of

ADMIN = Permission.ADMINISTER
KEY_DAYS = (30, 90, 365)
"""Ends offered for a key; the first choice is none."""


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""
    people, keys = _People(frame), _Keys(frame)
    return [
        Page("/operators", people.listing, needs=ADMIN),
        Page("/operators/new", people.new, needs=ADMIN),
        Action("/operators/new", people.add, needs=ADMIN),
        Page("/operators/{name}", people.page, needs=ADMIN),
        Action("/operators/{name}/roles", people.roles, needs=ADMIN),
        Action("/operators/{name}/password", people.password, needs=ADMIN),
        Action("/operators/{name}/access", people.access, needs=ADMIN),
        Action("/operators/{name}/sessions", people.end_sessions, needs=ADMIN),
        Page("/keys", keys.listing, needs=ADMIN),
        Action("/keys", keys.issue, needs=ADMIN),
        Page("/keys/{key_id}/revoke", keys.ask, needs=ADMIN),
        Action("/keys/{key_id}/revoke", keys.revoke, needs=ADMIN),
    ]


class _People:
    """The pages of operators."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def listing(self, request: Request) -> Response:
        """List the operators."""
        found = await self._frame.reader.read(operators.list_operators)
        return self._frame.page(request, "operators.html", "operators", found=found)

    async def new(self, request: Request, status: int = 200, form: Form | None = None, **problems: str) -> Response:
        """Ask for a new operator."""
        typed = form or {"role_reader": "on"}
        return self._frame.page(
            request, "operator_new.html", "operators", status=status, typed=typed, problems=problems,
            offered=PERMISSIONS, least=MIN_LENGTH,
        )  # fmt: skip

    async def add(self, request: Request, form: Form) -> Response:
        """Make an operator."""
        name, password, visitor = form.get("name", "").strip(), form.get("new", ""), visitor_of(request.scope)
        chosen = [role for role in Role if f"role_{role.value}" in form]
        problems = _problems(
            name=lambda: operators.check_name(name),
            roles=lambda: operators.check_roles(chosen),
            new=lambda: checked(password, name),
        )
        if password != form.get("again", ""):
            problems["again"] = UNEQUAL
        if problems:
            return await self.new(request, 422, form, **problems)
        hashed = await door_of(request).hashed(partial(door_of(request).hashing.hash, checked(password, name)))
        try:
            await self._frame.write(lambda conn: operators.add(conn, visitor, name, chosen, hashed))
        except UserError as exc:
            return await self.new(request, 422, form, name=str(exc))
        return done(f"/operators/{name}", "operator_added")

    async def page(self, request: Request, status: int = 200, **problems: str) -> Response:
        """Show one operator."""
        name, now = request.path_params["name"], self._frame.clock.now()

        def read(conn: Connection) -> tuple[Operator, list[OpenSession]]:
            found = operators.find(conn, name)
            return found, sessions.of_operator(conn, found.id, now)

        operator, opened = await self._frame.reader.read(read)
        return self._frame.page(
            request, "operator.html", "operators", status=status, operator=operator, opened=opened,
            offered=PERMISSIONS, least=MIN_LENGTH, problems=problems,
        )  # fmt: skip

    async def roles(self, request: Request, form: Form) -> Response:
        """Change what an operator may do."""
        chosen = [role for role in Role if f"role_{role.value}" in form]
        wrong = await self._changed(
            request, "roles", lambda conn, by, name: operators.set_roles(conn, by, name, chosen)
        )
        return wrong or done(f"/operators/{request.path_params['name']}", "roles_changed")

    async def password(self, request: Request, form: Form) -> Response:
        """Set another password for an operator."""
        new, name, door = form.get("new", ""), request.path_params["name"], door_of(request)
        if problems := _problems(new=lambda: checked(new, name)):
            return await self.page(request, 422, **problems)
        if new != form.get("again", ""):
            return await self.page(request, 422, again=UNEQUAL)
        hashed = await door.hashed(partial(door.hashing.hash, checked(new, name)))
        wrong = await self._changed(
            request, "new", lambda conn, by, name: operators.set_password(conn, by, name, hashed)
        )
        return wrong or done(f"/operators/{request.path_params['name']}", "password_set")

    async def access(self, request: Request, form: Form) -> Response:
        """Shut an operator out, or let them in again."""
        if form.get("to") == "enable":
            wrong = await self._changed(request, "access", operators.enable)
            return wrong or done(f"/operators/{request.path_params['name']}", "operator_enabled")
        now = self._frame.clock.now()
        wrong = await self._changed(request, "access", lambda conn, by, name: operators.disable(conn, by, name, now))
        return wrong or done(f"/operators/{request.path_params['name']}", "operator_disabled")

    async def end_sessions(self, request: Request, _form: Form) -> Response:
        """Log an operator out everywhere."""
        wrong = await self._changed(request, "access", operators.log_out_everywhere)
        return wrong or done(f"/operators/{request.path_params['name']}", "session_ended")

    async def _changed(
        self, request: Request, field: str, change: Callable[[Connection, Visitor, str], object]
    ) -> Response | None:
        """Do it; return the page that says why not, where it is refused."""
        name, visitor = request.path_params["name"], visitor_of(request.scope)
        try:
            await self._frame.write(lambda conn: change(conn, visitor, name))
        except NotFound:
            raise
        except (UserError, Conflict) as exc:
            return await self.page(request, exc.http_status, **{field: str(exc)})
        return None


class _Keys:
    """The pages of API keys."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def listing(
        self, request: Request, status: int = 200, form: Form | None = None, made: str = "", **problems: str
    ) -> Response:
        """List the keys, with the one that was just made, and a form for another."""
        found = await self._frame.reader.read(partial(api_keys.list_keys, revoked="revoked" in request.query_params))
        return self._frame.page(
            request, "keys.html", "keys", status=status, found=found, made=made, typed=form or {}, problems=problems,
            days=KEY_DAYS, scopes=list(Permission), revoked="revoked" in request.query_params,
        )  # fmt: skip

    async def issue(self, request: Request, form: Form) -> Response:
        """Make a key and show it, this once."""
        visitor, now = visitor_of(request.scope), self._frame.clock.now()
        label, scopes = form.get("label", ""), [scope for scope in Permission if f"scope_{scope.value}" in form]
        expires_at = _end(form.get("days", ""), now)
        try:
            made = await self._frame.write(lambda conn: api_keys.issue(conn, visitor, label, scopes, now, expires_at))
        except (UserError, Conflict) as exc:
            about = "label" if "label" in exc.cause else "scopes"
            return await self.listing(request, exc.http_status, form, **{about: str(exc)})
        return await self.listing(request, made=made)

    async def ask(self, request: Request) -> Response:
        """Show what is going to be revoked."""
        key_id = request.path_params["key_id"]
        key = await self._frame.reader.read(lambda conn: api_keys.find(conn, key_id))
        return self._frame.page(request, "key_revoke.html", "keys", key=key)

    async def revoke(self, request: Request, _form: Form) -> Response:
        """Revoke a key."""
        visitor, now, key_id = visitor_of(request.scope), self._frame.clock.now(), request.path_params["key_id"]
        await self._frame.write(lambda conn: api_keys.revoke(conn, visitor, key_id, now))
        door_of(request).keys.forget()
        return done("/keys", "key_revoked")


def _problems(**checks: Callable[[], object]) -> dict[str, str]:
    """Return what is wrong, by field."""
    found: dict[str, str] = {}
    for field, check in checks.items():
        try:
            check()
        except UserError as exc:
            found[field] = str(exc)
    return found


def _end(days: str, now: datetime) -> datetime | None:
    offered: Mapping[str, int] = {str(number): number for number in KEY_DAYS}
    return now + timedelta(days=offered[days]) if days in offered else None
