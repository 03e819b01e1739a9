"""Importing recipients: a CSV file that is uploaded, or lines pasted into the page; the command takes files of any size.

GET  /recipients/import            the form, or what became of the lines of the last one; POST imports
GET  /recipients/import/rejects    the rejected lines of one import as a file: ``name=``

What came is a file in ``<home>/imports`` while it is read, and is then removed; the lines that were rejected stay in
``<home>/rejects``, as those of the command do. Bounds: MAX_FILE_BYTES, MAX_CHARS; one import at a time, in a thread of its own.
"""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile

from anyio import CapacityLimiter, to_thread
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute

from midsource.marketing import importing, lists
from midsource.marketing.importing import ImportResult
from midsource.model.errors import NotFound, UserError
from midsource.security import audit
from midsource.security.roles import Permission
from midsource.web.console.frame import Frame, done, number
from midsource.web.console.pages.beside import MISTAKES
from midsource.web.routing import Form, Page, Upload, visitor_of

HERE = "recipients"
MAX_FILE_BYTES = 50_000_000
"""About half a million people; the browser waits for the answer."""
MAX_CHARS = 1_000_000
"""About ten thousand people: what a page can still show again when something is wrong with it."""
SHOWN_REJECTS = 20
MAX_NAME = 100
PASTED = "the pasted text"
_REJECTS = re.compile(r"(?:pasted|upload)-[A-Za-z0-9_]{1,20}-[0-9]{8}T[0-9]{6}(?:-[0-9]{1,3})?\.csv")


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of this page; they stand before those of one recipient."""
    page = _Importing(frame)
    return [
        Page("/recipients/import", page.show),
        Upload("/recipients/import", page.bring, needs=Permission.DELIVER, limit_bytes=MAX_FILE_BYTES),
        Page("/recipients/import/rejects", page.rejects, needs=Permission.DELIVER),
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
            megabytes=MAX_FILE_BYTES // 1_000_000,
        )  # fmt: skip

    async def rejects(self, request: Request) -> Response:
        """Hand the rejected lines out; they are what the operator sent, with a reason each."""
        name = request.query_params.get("name", "")
        path = self._frame.config.home / "rejects" / name
        if not _REJECTS.fullmatch(name) or not await to_thread.run_sync(path.is_file):
            raise NotFound("there is no file of rejected lines by that name", "import the lines again")
        return FileResponse(path, media_type="text/csv; charset=utf-8", filename=name)

    async def bring(self, request: Request, form: Form, file: UploadFile | None) -> Response:
        visitor = visitor_of(request.scope)
        try:
            result = await to_thread.run_sync(self._import, form, file, limiter=self._one)
        except MISTAKES as exc:
            return await self._show(request, form, str(exc), exc.http_status)
        counts = {"stored": result.stored, "updated": result.updated, "rejected": result.rejected}
        await self._frame.write(lambda conn: audit.record(conn, visitor, "recipients.import", **counts))
        shown = {name: str(n) for name, n in counts.items()}
        if result.rejects_file is not None:
            shown["rejects"] = result.rejects_file.name
        return done("/recipients/import", "imported", **shown)

    def _import(self, form: Form, upload: UploadFile | None) -> ImportResult:
        text = form.get("lines", "")
        if upload is None and not text.strip():
            raise UserError("there are no lines", "choose a file, or paste a header and at least one line")
        if upload is not None and text.strip():
            raise UserError("there are both a file and pasted lines", "import one, then the other")
        if len(text) > MAX_CHARS:
            raise UserError(f"{len(text)} characters were pasted", f"paste up to {MAX_CHARS}, or send them as a file")
        folder = self._frame.config.home / "imports"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        prefix = "pasted-" if upload is None else "upload-"
        with NamedTemporaryFile("wb", prefix=prefix, suffix=".csv", dir=folder) as kept:
            if upload is None:
                kept.write(text.encode())
            else:
                shutil.copyfileobj(upload.file, kept)
            kept.flush()
            called = PASTED if upload is None else (upload.filename or "")[:MAX_NAME]
            return self._read(Path(kept.name), form, called)

    def _read(self, path: Path, form: Form, called: str) -> ImportResult:
        """Import the file at ``path``; what is wrong with it is said of ``called``, the name the operator knows."""
        try:
            return importing.import_recipients(
                self._frame.database, path, home=self._frame.config.home, clock=self._frame.clock,
                list_name=form.get("list", "").strip(), create_fields=form.get("unknown") == "create",
                ignore_unknown=form.get("unknown") == "ignore",
            )  # fmt: skip
        except UserError as exc:
            if str(path) not in exc.cause:
                raise
            raise UserError(exc.cause.replace(str(path), called), exc.remedy) from exc


def _first_rejects(home: Path, name: str) -> Sequence[tuple[str, str]]:
    """Return line number and reason of the first rejected lines of an import of this page; nothing for any other name."""
    if not _REJECTS.fullmatch(name):
        return ()
    try:
        with (home / "rejects" / name).open(encoding="utf-8", newline="") as file:
            return [(row[0], row[1]) for row in islice(csv.reader(file), 1, SHOWN_REJECTS + 1) if len(row) == 3]
    except OSError:
        return ()
