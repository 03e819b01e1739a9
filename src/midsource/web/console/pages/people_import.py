"""Importing recipients: a few thousand lines pasted into the page, or the command for files of any size.

GET  /recipients/import    the form, or what became of the lines of the last one; POST imports
What was pasted is a file in ``<home>/imports`` while it is read, and is then removed; the lines that were rejected stay in
``<home>/rejects``, as those of the command do. MAX_CHARS bounds it: some seconds of work, in a thread of its own.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.marketing import importing, lists
from midsource.marketing.importing import ImportResult
from midsource.model.errors import UserError
from midsource.security import audit
from midsource.security.roles import Permission
from midsource.web.console.frame import Frame, done, number
from midsource.web.console.pages.beside import MISTAKES
from midsource.web.routing import Action, Form, Page, visitor_of

HERE = "recipients"
MAX_CHARS = 1_000_000
"""About ten thousand people: some seconds, and within a form's bound when it is encoded for the way."""
SHOWN_REJECTS = 20
_REJECTS = re.compile(r"pasted-[A-Za-z0-9_]{1,20}-[0-9]{8}T[0-9]{6}(?:-[0-9]{1,3})?\.csv")


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of this page; they stand before those of one recipient."""
    page = _Importing(frame)
    return [
        Page("/recipients/import", page.show),
        Action("/recipients/import", page.bring, needs=Permission.DELIVER),
    ]


class _Importing:
    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._one = CapacityLimiter(1)  # imports take turns anyway (marketing/staging.py)

    async def show(self, request: Request) -> Response:
        return await self._show(request, {}, "", 200)

    async def _show(self, request: Request, given: Mapping[str, str], problem: str, status: int) -> Response:
        names = await self._frame.reader.read(lists.names)
        counts = {name: number(request, name) for name in ("stored", "updated", "rejected")}
        rejects = request.query_params.get("rejects", "")
        return self._frame.page(
            request, "people_import.html", HERE, status=status, names=names, given=given, problem=problem, counts=counts,
            rejects=await to_thread.run_sync(_first_rejects, self._frame.config.home, rejects), rejects_file=rejects,
        )  # fmt: skip

    async def bring(self, request: Request, form: Form) -> Response:
        visitor = visitor_of(request.scope)
        try:
            result = await to_thread.run_sync(self._import, form, limiter=self._one)
        except MISTAKES as exc:
            return await self._show(request, form, str(exc), exc.http_status)
        counts = {"stored": result.stored, "updated": result.updated, "rejected": result.rejected}
        await self._frame.write(lambda conn: audit.record(conn, visitor, "recipients.import", **counts))
        shown = {name: str(n) for name, n in counts.items()}
        if result.rejects_file is not None:
            shown["rejects"] = result.rejects_file.name
        return done("/recipients/import", "imported", **shown)

    def _import(self, form: Form) -> ImportResult:
        text = form.get("lines", "")
        if not text.strip():
            raise UserError("there are no lines", "paste a header and at least one line")
        if len(text) > MAX_CHARS:
            raise UserError(f"{len(text)} characters were pasted", f"paste up to {MAX_CHARS}, or use the command")
        folder = self._frame.config.home / "imports"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile("w", encoding="utf-8", newline="", prefix="pasted-", suffix=".csv", dir=folder) as file:
            file.write(text)
            file.flush()
            return importing.import_recipients(
                self._frame.database, Path(file.name), home=self._frame.config.home, clock=self._frame.clock,
                list_name=form.get("list", "").strip(), create_fields=form.get("unknown") == "create",
                ignore_unknown=form.get("unknown") == "ignore",
            )  # fmt: skip


def _first_rejects(home: Path, name: str) -> Sequence[tuple[str, str]]:
    """Return line number and reason of the first rejected lines of an import of this page; nothing for any other name."""
    if not _REJECTS.fullmatch(name):
        return ()
    try:
        with (home / "rejects" / name).open(encoding="utf-8", newline="") as file:
            return [(row[0], row[1]) for row in islice(csv.reader(file), 1, SHOWN_REJECTS + 1) if len(row) == 3]
    except OSError:
        return ()
