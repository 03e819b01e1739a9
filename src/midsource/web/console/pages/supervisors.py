"""Supervisors: who is told of findings and failed workflows, by a channel that is not the system's own delivery.

GET  /supervisors                 all of them, each with its failures and whether it is muted
GET  /add-supervisor              the form of a new one: beside the supervisors' own paths, because any word may be a name
POST /add-supervisor              keep it; the secret of a webhook stands on the page that answers, and never again
GET  /supervisors/{name}          one, with what it was not told yet
POST /supervisors/{name}/test     tell it now that this is a test, and show what its side answered
POST /supervisors/{name}/mute     tell it nothing for ``hours``; 0: tell it again
GET  /supervisors/{name}/remove   what removing it means
POST /supervisors/{name}/remove   remove it

What is done is what the command line does, with the same rows in the audit. The path of a webhook may be a token and is never shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.doctor import supervisors, telling
from midsource.doctor.channels import Carrier
from midsource.doctor.supervisors import LANGUAGES, MUTE_MOST, Channel, Draft, Supervisor
from midsource.doctor.trial import trial
from midsource.model.errors import Conflict, MidsourceError, NotFound, UserError
from midsource.model.finding import Severity
from midsource.security import audit
from midsource.security.roles import Permission, Visitor
from midsource.store.database import Connection
from midsource.web.console.face import language_of
from midsource.web.console.frame import Frame, done, whole
from midsource.web.routing import Action, Form, Page, visitor_of

HERE = "supervisors"
PATH = "/supervisors"
TESTS_AT_ONCE = 2
"""Messages under way; each may wait some ten seconds for a side that is away."""
MUTES = (1, 8, 24, 24 * 7, 24 * 30, MUTE_MOST // timedelta(hours=1))
"""Hours for which an operator may want one to hear nothing."""
HEARD = [severity for severity in Severity if severity is not Severity.INFO]
"""Severities that are told, the least first."""
FIELDS = ("name", "channel", "address", "severity", "quiet", "digest", "zone", "language")
FIRST = {"channel": Channel.WEBHOOK.value, "severity": Severity.WARNING.value, "zone": "UTC"}
"""What stands in the form of a new one; its language is the reader's."""


@dataclass(frozen=True, slots=True)
class Story:
    """One supervisor. ``waiting``: changes it was not told yet."""

    supervisor: Supervisor
    waiting: int


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of a test: what its side answered, or why it could not be told."""

    answer: str = ""
    problem: str = ""


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""
    pages = _Supervisors(frame)
    administer, supervise = Permission.ADMINISTER, Permission.SUPERVISE
    return [
        Page(PATH, pages.listing),
        Page("/add-supervisor", pages.blank, needs=administer),
        Action("/add-supervisor", pages.add, needs=administer),
        Page(f"{PATH}/{{name}}", pages.supervisor),
        Page(f"{PATH}/{{name}}/test", pages.back),
        Action(f"{PATH}/{{name}}/test", pages.test, needs=administer),
        Page(f"{PATH}/{{name}}/mute", pages.back),
        Action(f"{PATH}/{{name}}/mute", pages.mute, needs=supervise),
        Page(f"{PATH}/{{name}}/remove", pages.ask, needs=administer),
        Action(f"{PATH}/{{name}}/remove", pages.remove, needs=administer),
    ]


class _Supervisors:
    """The handlers: parse, read or change, render."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._tests = CapacityLimiter(TESTS_AT_ONCE)

    async def listing(self, request: Request) -> Response:
        found = await self._frame.reader.read(supervisors.listing)
        return self._frame.page(request, "supervisors.html", HERE, found=found, live=True)

    async def supervisor(self, request: Request) -> Response:
        return await self._shown(request)

    async def blank(self, request: Request) -> Response:
        return self._blank(request, FIRST | {"language": language_of(request.scope)}, {})

    async def add(self, request: Request, form: Form) -> Response:
        """Keep a new one, or show the form again as it was filled in, each sentence beside its field."""
        typed = {field: form.get(field, "").strip() for field in FIELDS}
        draft, wrong = read(typed)
        if draft is None or wrong:
            return self._blank(request, typed, wrong, 422)
        visitor, name = visitor_of(request.scope), draft.name
        try:
            secret = await self._frame.write(partial(self._added, draft=draft, visitor=visitor))
        except (UserError, Conflict) as exc:
            field = "name" if isinstance(exc, Conflict) else ""
            return self._blank(request, typed, {field: str(exc)}, exc.http_status)
        path = _path(name)
        return await self._shown(request, name=name, secret=secret) if secret else done(path, "supervisor_added")

    async def test(self, request: Request, _form: Form) -> Response:
        """Tell it now; the answer is the page itself, because a result is of this moment."""
        frame, name = self._frame, request.path_params["name"]
        carrier = Carrier.of(frame.config, frame.instance, frame.clock)
        run = partial(trial, frame.database, carrier, name, visitor_of(request.scope))
        try:
            tried = Tried(answer=await to_thread.run_sync(run, limiter=self._tests))
        except NotFound:
            raise
        except MidsourceError as exc:
            tried = Tried(problem=str(exc))
        return await self._shown(request, tried=tried)

    async def mute(self, request: Request, form: Form) -> Response:
        name, hours = request.path_params["name"], whole(form.get("hours", ""), "a number of hours")
        visitor, now = visitor_of(request.scope), self._frame.clock.now()
        await self._frame.write(lambda conn: _mute(conn, visitor, name, hours, now))
        path = _path(name)
        return done(path, "supervisor_muted") if hours else done(path, "supervisor_told")

    async def ask(self, request: Request) -> Response:
        story = await self._frame.reader.read(partial(_story, name=request.path_params["name"]))
        return self._frame.page(request, "supervisor_remove.html", HERE, story=story)

    async def remove(self, request: Request, _form: Form) -> Response:
        name, visitor = request.path_params["name"], visitor_of(request.scope)

        def change(conn: Connection) -> None:
            supervisors.remove(conn, name)
            audit.record(conn, visitor, "supervisor.remove", name)

        await self._frame.write(change)
        return done(PATH, "supervisor_removed")

    async def back(self, request: Request) -> Response:
        path = _path(request.path_params["name"])
        return done(path)

    async def _shown(
        self, request: Request, *, name: str = "", secret: str = "", tried: Tried | None = None
    ) -> Response:
        story = await self._frame.reader.read(partial(_story, name=name or request.path_params["name"]))
        return self._frame.page(
            request, "supervisor.html", HERE, story=story, secret=secret, tried=tried, mutes=MUTES, live=False
        )

    def _blank(
        self, request: Request, typed: Mapping[str, str], problems: Mapping[str, str], status: int = 200
    ) -> Response:
        return self._frame.page(
            request, "supervisor_add.html", HERE, status=status, typed=typed, problems=problems, channels=list(Channel),
            severities=HEARD, spoken=LANGUAGES,
        )  # fmt: skip

    def _added(self, conn: Connection, *, draft: Draft, visitor: Visitor) -> str:
        home, now = self._frame.config.home, self._frame.clock.now()
        secret = supervisors.add(conn, home, draft, visitor.name, now)
        about = {"channel": str(draft.channel), "severity": str(draft.severity)}
        audit.record(conn, visitor, "supervisor.add", draft.name, **about)
        return secret


def read(typed: Mapping[str, str]) -> tuple[Draft | None, dict[str, str]]:
    """Read the form of a new supervisor: what it says, and sentences by field. Pure. None: a choice is none of those offered."""
    wrong = {
        field: str(UserError(f"{typed[field][:40]!r} is none of the choices", f"choose {', '.join(offered)}"))
        for field, offered in (("channel", list(Channel)), ("severity", HEARD))
        if typed[field] not in offered
    }
    if wrong:
        return None, wrong
    draft = Draft(
        typed["name"], Channel(typed["channel"]), typed["address"], Severity(typed["severity"]), typed["quiet"],
        typed["digest"], typed["zone"] or "UTC", typed["language"],
    )  # fmt: skip
    return draft, {field: str(problem) for field, problem in supervisors.problems(draft).items()}


def _mute(conn: Connection, visitor: Visitor, name: str, hours: int, now: datetime) -> None:
    if hours > MUTES[-1]:
        raise UserError(f"{hours} hours are too long to hear nothing", f"{MUTES[-1]} hours are the most")
    muted = supervisors.mute(conn, name, now + timedelta(hours=hours) if hours else None, visitor.name, now)
    audit.record(conn, visitor, "supervisor.mute", name, until=muted.muted_until)


def _story(conn: Connection, *, name: str) -> Story:
    waiting: Sequence[int] = [count for who, count, _ in telling.pending(conn) if who == name]
    return Story(supervisors.get(conn, name), sum(waiting))


def _path(name: str) -> str:
    return f"{PATH}/{name}"
