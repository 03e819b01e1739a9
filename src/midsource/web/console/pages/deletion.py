"""Ask before something that has a name is deleted, then delete it: GET and POST of one address, ``name=``.

Deliveries that used it keep what they took of it. What stands in the way is shown where the question was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.security import audit
from midsource.security.roles import Permission
from midsource.store.database import Connection
from midsource.web.console.frame import Frame, done
from midsource.web.console.pages.beside import MISTAKES
from midsource.web.routing import Action, Form, Page, visitor_of


@dataclass(frozen=True, slots=True)
class Deletion:
    """How one kind of named things is deleted.

    ``kind`` is its word in the audit and in the sentence that says it is done, ``pages`` the address of its list, ``find`` raises
    NotFound for a name that is none.
    """

    frame: Frame
    here: str
    kind: str
    pages: str
    find: Callable[[Connection, str], object]
    delete: Callable[[Connection, str], object]

    def routes(self) -> list[BaseRoute]:
        """Return the question and the answer."""
        path = f"{self.pages}/delete"
        return [
            Page(path, self._ask, needs=Permission.DELIVER),
            Action(path, self._confirmed, needs=Permission.DELIVER),
        ]

    async def _ask(self, request: Request) -> Response:
        return await self._asked(request, request.query_params.get("name", "").replace("\0", ""), "", 200)

    async def _asked(self, request: Request, name: str, problem: str, status: int) -> Response:
        await self.frame.reader.read(lambda conn: self.find(conn, name))
        back = f"{self.pages}/edit?{urlencode({'name': name})}"
        return self.frame.page(
            request, "delete_named.html", self.here, status=status, name=name, back=back, problem=problem
        )

    async def _confirmed(self, request: Request, form: Form) -> Response:
        name, visitor = form.get("name", ""), visitor_of(request.scope)

        def change(conn: Connection) -> None:
            self.delete(conn, name)
            audit.record(conn, visitor, f"{self.kind}.delete", name)

        try:
            await self.frame.write(change)
        except MISTAKES as exc:
            return await self._asked(request, name, str(exc), exc.http_status)
        return done(self.pages, f"{self.kind}_deleted")
