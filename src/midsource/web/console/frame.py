"""What every page has around it: language, menu, who is logged in, and the parts that actions need.

A page module makes its routes with one ``Frame`` and calls ``frame.page(request, template, here=…, **values)``. Reading
goes through ``frame.reader`` (read-only, a connection of its own); changing goes through ``frame.write`` (a transaction
in the pool of the process, in a thread).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlencode

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from midsource.config import Config, InstanceConfig
from midsource.model.clock import Clock
from midsource.model.errors import UserError
from midsource.security.roles import Permission, Visitor
from midsource.store.database import Connection, Database
from midsource.web.console.catalogue import LANGUAGES
from midsource.web.console.face import LANGUAGE_COOKIE, language_of
from midsource.web.console.language import Words
from midsource.web.console.menu import menu_of
from midsource.web.console.reader import Reader
from midsource.web.console.render import render
from midsource.web.routing import visitor_of

REFRESH_SECONDS = 5
CALM_REFRESH_SECONDS = 60
"""Where little changes and texts are there to be copied: a refresh takes the selection away."""
SLOW_REFRESH_SECONDS = 20
"""Without scripts, where a refresh moves the reader to the top of the page."""
LANGUAGE_SECONDS = 365 * 86_400
MAX_NUMBER = (1 << 63) - 1
CHANGES_AT_ONCE = 2
"""Actions under way at the same time; the pool of the web process has ten connections."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Frame:
    """The surroundings of the pages of one instance; nothing is opened before the first request."""

    config: Config
    instance: InstanceConfig
    database: Database
    clock: Clock
    reader: Reader
    _changes: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(CHANGES_AT_ONCE))

    @classmethod
    def of(cls, config: Config, instance: InstanceConfig, database: Database, clock: Clock) -> Frame:
        """Make the frame of ``instance``."""
        return cls(config, instance, database, clock, Reader(database))

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Return what ``change`` returns, done in one transaction; committed on return. Raises what it raises."""

        def committed() -> T:
            with self.database.transaction() as conn:
                return change(conn)

        return await to_thread.run_sync(committed, limiter=self._changes)

    async def work(self, task: Callable[[Database], T]) -> T:
        """Return what ``task`` returns, which opens its own transactions; as many at once as changes. Raises what it raises."""
        return await to_thread.run_sync(task, self.database, limiter=self._changes)

    def page(self, request: Request, template: str, here: str, *, status: int = 200, **values: Any) -> Response:
        """Render ``template`` for whoever asks; ``here`` is the menu's entry."""
        words = Words(language_of(request.scope))
        visitor = visitor_of(request.scope)
        query = request.query_params.multi_items()
        address = request.url.include_query_params
        said = request.query_params.get("said", "")
        content = render(
            template, words, here=here, path=request.url.path, instance=self.instance.name, role=self.instance.role,
            now=self.clock.now(), refresh=REFRESH_SECONDS, calm_refresh=CALM_REFRESH_SECONDS, slow_refresh=SLOW_REFRESH_SECONDS, visitor=visitor,
            menu=menu_of(visitor, self.instance.role), may=_May(visitor),
            said=f"said.{said}" if words.has(f"said.{said}") else "",
            same=f"?{request.url.query}" if query else request.url.path,
            in_language={code: f"?{address(lang=code).query}" for code in LANGUAGES}, **values,
        )  # fmt: skip
        response = HTMLResponse(
            content, status, headers={"content-language": words.language, "vary": "Accept-Language, Cookie"}
        )
        if request.query_params.get("lang") in LANGUAGES:
            response.set_cookie(
                LANGUAGE_COOKIE, words.language, max_age=LANGUAGE_SECONDS, httponly=True, samesite="strict"
            )
        return response


@dataclass(frozen=True, slots=True)
class _May:
    """What templates ask: ``may.deliver``, ``may.supervise`` …"""

    visitor: Visitor

    def __getattr__(self, name: str) -> bool:
        return self.visitor.may(Permission(name))


def done(path: str, said: str = "", **values: str) -> Response:
    """Answer an action: go to ``path`` and say there what was done (text ``said.<said>``)."""
    query = {**({"said": said} if said else {}), **values}
    return RedirectResponse(f"{path}?{urlencode(query)}" if query else path, status_code=303)


def number(request: Request, name: str) -> int | None:
    """Return a whole number of the query, None where it is not given. Raises UserError."""
    given = request.query_params.get(name, "").strip()
    return whole(given, name) if given else None


def whole(given: str, what: str) -> int:
    """Read a whole number. Raises UserError naming ``what``."""
    if not (given.isascii() and given.isdecimal() and len(given) <= 19 and int(given) <= MAX_NUMBER):
        raise UserError(f"{given[:40]!r} is not {what}: a whole number is expected", "go back and follow a link")
    return int(given)
