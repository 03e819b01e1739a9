"""Import recipients from CSV: stream, check, COPY, update by key; every line is stored or rejected with its reason.

Order of events: the header is matched with fields (unknown columns are an offer, not a guess); each record becomes a row
or a reject; CHUNK_ROWS rows at a time go by COPY into a temporary table and from there, by one statement, into
``recipient`` and the list. Each chunk commits: an import that was cut is repeated as a whole and updates what it finds.
One chunk is checked while the one before is being stored, so both cores work; no more than two are in memory.

Who is who: ``recipient.key`` is the external id where the file has one, else the address. The last line of a key wins.
A column that the file does not have keeps its value; an empty cell clears it. ``opted_out`` only ever becomes true: an
old file never signs anybody up again.

Addresses: none is fine if there is an external id; one without @ is a reject; one with @ that cannot be mailed is stored
with ``address_problem``. Line breaks and control characters in names, language, id and address become one blank (they
could only be meant for a header); in own text fields they are data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import msgspec

from midsource.marketing import columns
from midsource.marketing.csvfile import CsvFile, Record, Reject
from midsource.marketing.fields import PARSERS, FieldProblem, Value, parse_boolean
from midsource.marketing.lists import ensure_list
from midsource.marketing.rejects import RejectsFile
from midsource.marketing.staging import NO, YES, Row, Storing, copy_block
from midsource.model.address import AddressProblem, EmailAddress
from midsource.model.clock import Clock
from midsource.model.errors import UserError
from midsource.store.database import Database

CHUNK_ROWS = 5_000
"""Rows of one COPY and commit: about 1 MB, and well under a second even on a slow disk."""
MAX_ADDRESS_CHARS = 500
"""An address that can be mailed has 320 at most. A longer key of foreign letters fits no index page (2 704 bytes), and one
such line would end the whole import.
"""
MAX_KEY_CHARS = 200
MAX_NAME_CHARS = 500
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")

Progress: TypeAlias = Callable[[int, int, int], None]
"""``progress(bytes_read, bytes_total, rows)``, after each chunk."""


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What became of the lines: ``stored`` people are new, ``updated`` were known (also: earlier in this file)."""

    stored: int
    updated: int
    rejected: int
    rejects_file: Path | None
    encoding: str
    delimiter: str
    created_fields: Mapping[str, str]
    ignored_columns: tuple[str, ...]


def import_recipients(
    database: Database,
    path: Path,
    *,
    home: Path,
    clock: Clock,
    list_name: str = "",
    create_fields: bool = False,
    ignore_unknown: bool = False,
    progress: Progress = lambda _read, _total, _rows: None,
) -> ImportResult:
    """Import ``path``. Raises UserError for a file or header that cannot be used; then nothing was changed."""
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is not a file", "give the path of a CSV file")
        source = path.open("rb", buffering=1 << 20)
    except OSError as exc:
        raise UserError(f"{path} cannot be read ({exc.strerror})", "give the path of a CSV file") from exc
    with source, RejectsFile(home, path, clock.now()) as rejects:
        file = CsvFile(path, source)
        records = file.records()
        sample = list(islice(records, columns.SAMPLE_RECORDS))
        with database.transaction() as conn:
            plan = columns.plan(conn, file.header, sample, create_fields=create_fields, ignore_unknown=ignore_unknown)
            members_of = ensure_list(conn, list_name) if list_name else None
        storing = Storing(database, plan, members_of)
        reader = RowReader(plan)
        rows = 0
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="import") as thread:
            pending: Future[None] | None = None
            for chunk in _chunks(_chain(sample, records), reader, rejects):
                block = copy_block(chunk)
                if pending is not None:
                    pending.result()
                pending = thread.submit(storing.store, block, len(chunk))
                rows += len(chunk)
                progress(file.bytes_read, file.bytes_total, rows)
            if pending is not None:
                pending.result()
        progress(file.bytes_total, file.bytes_total, rows)
    return ImportResult(
        storing.stored, storing.updated, rejects.count, rejects.path, file.encoding, file.delimiter,
        {name: kind.value for name, kind in plan.created.items()}, plan.ignored,
    )  # fmt: skip


def _chain(first: Sequence[Record | Reject], rest: Iterator[Record | Reject]) -> Iterator[Record | Reject]:
    yield from first
    yield from rest


def _chunks(items: Iterator[Record | Reject], reader: RowReader, rejects: RejectsFile) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    for item in items:
        if isinstance(item, Reject):
            rejects.add(item.line, item.why, item.raw)
            continue
        try:
            chunk.append(reader.row(item.cells))
        except FieldProblem as problem:
            rejects.add(item.line, str(problem), reader.raw(item.cells))
        if len(chunk) >= CHUNK_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class RowReader:
    """Turns the cells of a record into the row of the staging table; built once per file."""

    def __init__(self, plan: columns.Plan) -> None:
        self._email = plan.position("email")
        self._external_id = plan.position("external_id")
        self._opted_out = plan.position("opted_out")
        self._names = [plan.position(name) for name in ("first_name", "last_name", "language")]
        self._own = [(position, name, PARSERS[kind]) for name, position, kind in plan.own]
        self._encode = msgspec.json.Encoder().encode

    def row(self, cells: list[str]) -> Row:
        """Return (key, external_id, email, email_key, domain, problem, names…, opted_out, fields as JSON).

        Raises FieldProblem naming the column.
        """
        external_id = self._text(cells, self._external_id, "external_id", MAX_KEY_CHARS)
        email = self._text(cells, self._email, "email", MAX_ADDRESS_CHARS)
        email_key = domain = None
        problem = ""
        if email is not None:
            try:
                address = EmailAddress.parse(email)
            except AddressProblem as exc:
                if "@" not in email:
                    raise FieldProblem(f"email: {email[:80]!r} has no @") from exc
                problem = str(exc)
            else:
                email_key, domain = address.key, address.domain
        if external_id is not None:
            key = f"id:{external_id}"
        elif email is not None:
            key = f"mail:{email_key or email.casefold()}"
        else:
            raise FieldProblem("neither an address nor an external id")
        names = [self._text(cells, position, "name", MAX_NAME_CHARS) for position in self._names]
        opted_out = self._flag(cells)
        return (
            key,
            external_id,
            email,
            email_key,
            domain,
            problem,
            *names,
            YES if opted_out else NO,
            self._fields(cells),
        )

    @staticmethod
    def raw(cells: list[str]) -> str:
        """Return the cells as one text, for the rejects file."""
        return ",".join(cells)

    @staticmethod
    def _text(cells: list[str], position: int | None, column: str, limit: int) -> str | None:
        if position is None:
            return None
        text = cells[position].strip()
        if not text.isprintable():
            text = _CONTROL.sub(" ", text).strip()
        if len(text) > limit:
            raise FieldProblem(f"{column}: longer than {limit} characters")
        return text or None

    def _flag(self, cells: list[str]) -> bool:
        if self._opted_out is None:
            return False
        text = cells[self._opted_out].strip()
        try:
            return bool(text) and parse_boolean(text)
        except FieldProblem as exc:
            raise FieldProblem(f"opted_out: {exc}") from exc

    def _fields(self, cells: list[str]) -> str:
        values: dict[str, Value] = {}
        for position, name, parse in self._own:
            text = cells[position].strip()
            try:
                values[name] = parse(text) if text else None
            except FieldProblem as exc:
                raise FieldProblem(f"{name}: {exc}") from exc
        return self._encode(values).decode()
