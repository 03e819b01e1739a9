"""Logging in and out, and one's own account: password, language, sessions.

Log-in is open to everybody; what it answers is the same whatever was wrong. After it the reader is led to the page that
was asked for, never to another host. The holder of the home's token has no account; the page says how to get one.
"""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute

from midsource.model.errors import NotFound, UserError
from midsource.security import operators, sessions
from midsource.security.access import own_path
from midsource.security.log_in import WrongPassword
from midsource.security.operators import Operator
from midsource.security.passwords import MIN_LENGTH
from midsource.security.roles import Permission
from midsource.security.sessions import OpenSession
from midsource.security.throttle import TooManyTries
from midsource.store.database import Connection
from midsource.web.console.catalogue import LANGUAGES
from midsource.web.console.face import LANGUAGE_COOKIE
from midsource.web.console.frame import LANGUAGE_SECONDS, Frame, done
from midsource.web.door import Door
from midsource.web.routing import Action, Form, OpenAction, OpenPage, Page, visitor_of

UNEQUAL = "the two are not the same: type both again."


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""
    own = _Own(frame)
    return [
        OpenPage("/login", partial(_page, frame)),
        OpenAction("/login", partial(_log_in, frame)),
        Action("/logout", _log_out, needs=Permission.SEE),
        Page("/me", own.page),
        Action("/me/password", own.password, needs=Permission.SEE),
        Action("/me/language", own.language, needs=Permission.SEE),
        Action("/me/sessions", own.end, needs=Permission.SEE),
    ]


def door_of(request: Request) -> Door:
    """Return the door of this app."""
    door: Door = request.app.state.door
    return door


def address_of(request: Request) -> str:
    """Return where a request comes from; '' where the server cannot tell."""
    return request.client.host if request.client else ""


async def _page(frame: Frame, request: Request) -> Response:
    return frame.page(request, "login.html", "", next=own_path(request.query_params.get("next", "/")), problem="")


async def _log_in(frame: Frame, request: Request, form: Form) -> Response:
    door, target = door_of(request), own_path(form.get("next", "/"))
    name, password = form.get("name", ""), form.get("password", "")
    work = partial(door.log_ins.log_in, name, password, address_of(request), ending=door.cookie(request.scope))
    try:
        found = await door.hashed(work)
    except WrongPassword:
        return frame.page(request, "login.html", "", status=422, next=target, name=name, problem="wrong")
    except TooManyTries as exc:
        answer = frame.page(
            request,
            "login.html",
            "",
            status=429,
            next=target,
            name=name,
            problem="wait",
            seconds=exc.retry_after_seconds,
        )
        answer.headers["retry-after"] = str(exc.retry_after_seconds)
        return answer
    response = RedirectResponse(target, status_code=303)
    door.give(request.scope, response, found.session.cookie)
    _speak(response, found.language)
    return response


async def _log_out(request: Request, _form: Form) -> Response:
    door = door_of(request)
    await door.log_out(door.cookie(request.scope))
    response = done("/login", "logged_out")
    door.take_back(request.scope, response)
    return response


class _Own:
    """The pages of one's own account."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def page(self, request: Request, status: int = 200, **problems: str) -> Response:
        """Show the account, with what was wrong with a form."""
        name, now = visitor_of(request.scope).name, self._frame.clock.now()

        def read(conn: Connection) -> tuple[Operator | None, list[OpenSession]]:
            try:
                found = operators.find(conn, name)
            except NotFound:  # the holder of the home's token, an API key
                return None, []
            return found, sessions.of_operator(conn, found.id, now)

        operator, opened = await self._frame.reader.read(read)
        here = sessions.digest(door_of(request).cookie(request.scope)).hex()
        return self._frame.page(
            request, "me.html", "me", status=status, operator=operator, opened=opened, current=here,
            least=MIN_LENGTH, problems=problems,
        )  # fmt: skip

    async def password(self, request: Request, form: Form) -> Response:
        """Change one's own password."""
        door, visitor = door_of(request), visitor_of(request.scope)
        new = form.get("new", "")
        if new != form.get("again", ""):
            return await self.page(request, 422, again=UNEQUAL)
        cookie = door.cookie(request.scope)
        work = partial(
            door.log_ins.change_password, visitor, form.get("present", ""), new, address_of(request), but=cookie
        )
        try:
            await door.hashed(work)
        except (WrongPassword, TooManyTries) as exc:
            return await self.page(request, exc.http_status, present=str(exc))
        except UserError as exc:
            return await self.page(request, 422, new=str(exc))
        return done("/me", "password_changed")

    async def language(self, request: Request, form: Form) -> Response:
        """Keep a language for every browser of this operator."""
        chosen, name = form.get("language", ""), visitor_of(request.scope).name
        if chosen not in LANGUAGES:
            raise UserError(f"{chosen[:10]!r} is no language of the console", f"choose among {', '.join(LANGUAGES)}")
        await self._frame.write(lambda conn: operators.set_language(conn, name, chosen))
        response = done("/me", "language_kept")
        _speak(response, chosen)
        return response

    async def end(self, request: Request, form: Form) -> Response:
        """End one session, or all but this one."""
        name, ref = visitor_of(request.scope).name, form.get("ref", "")
        cookie = door_of(request).cookie(request.scope)

        def change(conn: Connection) -> None:
            found = operators.find(conn, name)
            if ref:
                sessions.end_one(conn, found.id, ref)
            else:
                sessions.end_all(conn, found.id, but=cookie)

        await self._frame.write(change)
        return done("/me", "session_ended")


def _speak(response: Response, language: str) -> None:
    if language in LANGUAGES:
        response.set_cookie(LANGUAGE_COOKIE, language, max_age=LANGUAGE_SECONDS, httponly=True, samesite="strict")
