"""External accounts: the mids this instance hands deliveries to.

GET  /accounts                  all of them
GET  /add-account               the form of a new one: beside the accounts' own paths, because any word may be a name
POST /add-account               keep it; its key is typed once and never shown
GET  /accounts/{name}           one
POST /accounts/{name}/test      try the link now, step by step, and show what each step found
POST /accounts/{name}/rename    another label; the internal name never changes
POST /accounts/{name}/link      another URL and key
GET  /accounts/{name}/off       what switching it off means, with the deliveries it holds up
POST /accounts/{name}/off       switch it off
POST /accounts/{name}/on        switch it on again
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.marketing import accounts, link_test, standing
from midsource.marketing.accounts import ExternalAccount
from midsource.marketing.link_test import LinkTest
from midsource.marketing.standing import Position
from midsource.model.delivery import FINAL, DeliveryState
from midsource.model.errors import NotFound, UserError
from midsource.security import audit
from midsource.security.roles import Permission
from midsource.store.database import Connection
from midsource.web.console.frame import Frame, done
from midsource.web.routing import Action, Form, Page, visitor_of

TESTS_AT_ONCE = 2
"""Link tests under way; each may wait some 20 s for a mid that is away."""
EVENTS = 10
"""Failures of the link shown."""
_OPEN = [int(state) for state in DeliveryState if state not in FINAL and state >= DeliveryState.READY]


@dataclass(frozen=True, slots=True)
class Event:
    """A failure of the link."""

    at: object
    line: str


@dataclass(frozen=True, slots=True)
class Story:
    """One account: where its pointers stand, deliveries that are not through, the last failures of its link."""

    account: ExternalAccount
    positions: Sequence[Position]
    open_deliveries: int
    events: Sequence[Event]


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""
    pages = _Accounts(frame)
    administer, supervise = Permission.ADMINISTER, Permission.SUPERVISE
    orders: Mapping[str, tuple[Callable[[Request, Form], Awaitable[Response]], Permission]] = {
        "test": (pages.test, supervise),
        "rename": (pages.rename, administer),
        "link": (pages.link, administer),
        "off": (pages.switch_off, administer),
        "on": (pages.switch_on, administer),
    }
    return [
        Page("/accounts", pages.listing),
        Page("/add-account", pages.blank, needs=administer),
        Action("/add-account", pages.add, needs=administer),
        Page("/accounts/{name}", pages.account),
        Page("/accounts/{name}/off", pages.ask_off, needs=administer),
        *(Action(f"/accounts/{{name}}/{verb}", act, needs=needs) for verb, (act, needs) in orders.items()),
        *(Page(f"/accounts/{{name}}/{verb}", pages.back) for verb in orders if verb != "off"),
    ]


class _Accounts:
    """The handlers: parse, read or change, render."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._tests = CapacityLimiter(TESTS_AT_ONCE)

    async def listing(self, request: Request) -> Response:
        found = await self._frame.reader.read(accounts.list_accounts)
        return self._frame.page(request, "accounts.html", "accounts", accounts=found, live=True)

    async def account(self, request: Request) -> Response:
        return await self._shown(request)

    async def blank(self, request: Request) -> Response:
        return self._frame.page(request, "account_add.html", "accounts", typed={}, problem="")

    async def add(self, request: Request, form: Form) -> Response:
        """Keep a new account; one of that name is refused here, because its key would be replaced unseen."""
        name = form.get("name", "").strip()

        def change(conn: Connection) -> None:
            if any(account.name == name for account in accounts.list_accounts(conn)):
                raise UserError(f"there is already an account {name!r}", "open it to change its URL or key")
            self._store(conn, form, name, form.get("label", ""))
            audit.record(conn, visitor_of(request.scope), "account.add", name, url=form.get("url", ""))

        try:
            await self._frame.write(change)
        except UserError as exc:
            typed = {key: form.get(key, "") for key in ("name", "label", "url")}
            return self._frame.page(request, "account_add.html", "accounts", status=422, typed=typed, problem=str(exc))
        path = f"/accounts/{name}"
        return done(path, "account_added")

    async def rename(self, request: Request, form: Form) -> Response:
        name, label = request.path_params["name"], form.get("label", "")

        def change(conn: Connection) -> None:
            old = accounts.get(conn, name).label
            accounts.rename(conn, name, label)
            audit.record(conn, visitor_of(request.scope), "account.rename", name, old=old, new=label)

        return await self._changed(request, change, "rename", label=label) or self._renamed(name)

    async def link(self, request: Request, form: Form) -> Response:
        name = request.path_params["name"]

        def change(conn: Connection) -> None:
            account = accounts.get(conn, name)
            self._store(conn, form, name, account.label)
            audit.record(
                conn, visitor_of(request.scope), "account.link", name, old=account.url, new=form.get("url", "")
            )

        return await self._changed(request, change, "link", url=form.get("url", "")) or self._linked(name)

    async def ask_off(self, request: Request) -> Response:
        story = await self._frame.reader.read(partial(_story, name=request.path_params["name"]))
        return self._frame.page(request, "account_off.html", "accounts", story=story)

    async def switch_off(self, request: Request, _form: Form) -> Response:
        path = await self._switch(request, active=False)
        return done(path, "account_off")

    async def switch_on(self, request: Request, _form: Form) -> Response:
        path = await self._switch(request, active=True)
        return done(path, "account_on")

    async def test(self, request: Request, _form: Form) -> Response:
        """Try the link now; the answer is the page itself, because a result is of this moment."""
        frame, name = self._frame, request.path_params["name"]
        run = partial(link_test.run, frame.database, frame.config.home, name, frame.clock)
        found = await to_thread.run_sync(run, limiter=self._tests)
        await frame.write(
            partial(
                audit.record,
                visitor=visitor_of(request.scope),
                verb="account.test",
                subject=name,
                ok=not found.problems,
            )
        )
        return await self._shown(request, tested=found)

    async def back(self, request: Request) -> Response:
        path = f"/accounts/{request.path_params['name']}"
        return done(path)

    async def _shown(
        self,
        request: Request,
        *,
        status: int = 200,
        tested: LinkTest | None = None,
        problems: Mapping[str, str] | None = None,
        typed: Mapping[str, str] | None = None,
    ) -> Response:
        story = await self._frame.reader.read(partial(_story, name=request.path_params["name"]))
        kept = {"label": story.account.label, "url": story.account.url, **(typed or {})}
        return self._frame.page(
            request, "account.html", "accounts", status=status, story=story, tested=tested, problems=problems or {},
            typed=kept, live=False,
        )  # fmt: skip

    async def _changed(
        self, request: Request, change: Callable[[Connection], None], form: str, **typed: str
    ) -> Response | None:
        """Carry out a change; the page again with what is wrong, None where it is done."""
        try:
            await self._frame.write(change)
        except UserError as exc:
            if isinstance(exc, NotFound):
                raise
            return await self._shown(request, status=422, problems={form: str(exc)}, typed=typed)
        return None

    def _renamed(self, name: str) -> Response:
        path = f"/accounts/{name}"
        return done(path, "account_renamed")

    def _linked(self, name: str) -> Response:
        path = f"/accounts/{name}"
        return done(path, "account_linked")

    def _store(self, conn: Connection, form: Form, name: str, label: str) -> None:
        frame = self._frame
        accounts.add(
            conn,
            frame.config.home,
            url=form.get("url", "").strip(),
            key=form.get("key", ""),
            name=name,
            label=" ".join(label.split())[: accounts.MAX_LABEL],
            now=frame.clock.now(),
        )

    async def _switch(self, request: Request, *, active: bool) -> str:
        name = request.path_params["name"]

        def change(conn: Connection) -> None:
            accounts.set_active(conn, name, active=active)
            audit.record(conn, visitor_of(request.scope), f"account.{'on' if active else 'off'}", name)

        await self._frame.write(change)
        return f"/accounts/{name}"


def _story(conn: Connection, *, name: str) -> Story:
    account = accounts.get(conn, name)
    row = conn.execute("select count(*) from delivery where account = %s and state = any(%s)", (name, _OPEN)).fetchone()
    assert row is not None
    events = conn.execute(
        "select at, line from link_event where account = %s order by at desc limit %s", (name, EVENTS)
    ).fetchall()
    stand = [position for position in standing.positions(conn) if position.account == name]
    return Story(account, stand, row[0], [Event(*event) for event in events])
