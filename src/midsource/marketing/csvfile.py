"""A CSV file as a stream of records, each with the number of its line; what cannot be read is set aside, line by line.

Order of events: ``inspect`` looks at the first SAMPLE_BYTES for byte-order mark, encoding, delimiter and header;
``CsvFile.records`` then yields ``Record`` or ``Reject`` in the order of the file, holding a few lines at a time.

Encoding: UTF-8, with or without a byte-order mark. If the sample holds more lines that are not UTF-8 than lines that
prove it, or nothing but ASCII comes before the first undecodable byte, the file is taken as Windows-1252 (a superset of
Latin-1 in practice). Otherwise a line that is not UTF-8 is rejected alone. What was assumed is in ``encoding``.

A quote that is never closed would swallow the rest of the file. A record may have MAX_RECORD_LINES lines and
MAX_RECORD_CHARS characters; beyond that, or when a record over several lines has the wrong number of columns, its first
line alone is rejected and reading goes on at the next one. So a bad line costs itself, never its neighbours.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

from midsource.model.errors import UserError

SAMPLE_BYTES = 4_000_000
"""Enough for about 40 000 lines: the share of non-ASCII names is known by then."""
MAX_RECORD_CHARS = 65_536
"""Characters of one record, hence of one field: the csv module's own limit is 128 kB and is global."""
MAX_RECORD_LINES = 50
"""Lines of one record: an address or a note. Also the most that an unclosed quote makes us read twice."""
MAX_LINE_BYTES = 262_144
"""Bytes read for one line; a longer one is rejected and skipped to its end."""
MAX_COLUMNS = 250
DELIMITERS = (",", ";", "\t")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Record:
    """One record: ``line`` is the number of its first line (the header is line 1)."""

    line: int
    cells: list[str]


@dataclass(frozen=True, slots=True)
class Reject:
    """A line that is no record, why, and its text."""

    line: int
    why: str
    raw: str


_Line: TypeAlias = tuple[int, str] | Reject


class _Lines:
    """Decoded lines with their numbers; lines can be given back."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self.encoding = encoding
        self.bytes_read = 0
        self._file = file
        self._proven = False
        self._number = 0
        self._returned: deque[_Line] = deque()

    def next(self) -> _Line | None:
        """Return the next line and its number, a Reject, or None at the end."""
        if self._returned:
            return self._returned.popleft()
        raw = self._file.readline(MAX_LINE_BYTES)
        if not raw:
            return None
        self._number += 1
        self.bytes_read += len(raw)
        if len(raw) == MAX_LINE_BYTES and not raw.endswith(b"\n"):
            self._skip_line()
            return Reject(self._number, f"the line is longer than {MAX_LINE_BYTES} bytes", raw[:500].decode("latin-1"))
        if b"\0" in raw:
            return Reject(self._number, "the line holds a NUL character", raw[:500].decode("latin-1"))
        return self._decoded(raw)

    def give_back(self, lines: list[_Line]) -> None:
        """Return ``lines`` to the front, to be read again."""
        self._returned.extendleft(reversed(lines))

    def _decoded(self, raw: bytes) -> _Line:
        if raw.isascii():
            return self._number, raw.decode("ascii")
        if self.encoding == "utf-8":
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError as exc:
                if self._proven:
                    why = f"byte {exc.start + 1} of the line is not UTF-8, as the lines before are"
                    return Reject(self._number, why, raw.decode("latin-1"))
                self.encoding = "cp1252"
            else:
                self._proven = True
                return self._number, text
        return self._number, decode_western(raw)

    def _skip_line(self) -> None:
        while (more := self._file.readline(MAX_LINE_BYTES)) and not more.endswith(b"\n"):
            self.bytes_read += len(more)
        self.bytes_read += len(more)


class CsvFile:
    """An opened CSV file: ``header`` as written, ``delimiter``, ``encoding``; ``bytes_read`` of ``bytes_total``."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.bytes_total = path.stat().st_size
        sample = file.read(SAMPLE_BYTES)
        self.has_mark = sample.startswith(b"\xef\xbb\xbf")
        self._lines = _Lines(file, _encoding_of(path, sample))
        file.seek(3 if self.has_mark else 0)
        self.header: list[str] = []
        self.delimiter = ","
        self._read_header(path)

    @property
    def encoding(self) -> str:
        """What the bytes are taken for, so far: ``utf-8``, ``utf-8 with byte-order mark`` or ``cp1252``."""
        return "utf-8 with byte-order mark" if self.has_mark else self._lines.encoding

    @property
    def bytes_read(self) -> int:
        """Bytes consumed."""
        return self._lines.bytes_read

    def records(self) -> Iterator[Record | Reject]:
        """Yield every record after the header; blank lines are passed over."""
        lines, width, delimiter = self._lines, len(self.header), self.delimiter
        while (item := lines.next()) is not None:
            if isinstance(item, Reject):
                yield item
                continue
            number, text = item
            if text.isspace():
                continue
            if '"' not in text and len(text) <= MAX_RECORD_CHARS:  # the csv module only for what needs it
                cells = text.rstrip("\r\n").split(delimiter)
                if len(cells) == width:
                    yield Record(number, cells)
                else:
                    yield Reject(number, _columns(len(cells), width), text)
            else:
                yield self._quoted(number, text, width)

    def _read_header(self, path: Path) -> None:
        first = self._lines.next()
        if not isinstance(first, tuple):
            why = first.why if isinstance(first, Reject) else "it is empty"
            raise UserError(f"{path} has no header line: {why}", "give a CSV file whose first line names the columns")
        number, text = first
        if "\r" in text.rstrip("\r\n"):
            raise UserError(f"{path}: its lines end with CR alone", "save it with LF or CR LF at the ends of lines")
        self.delimiter = max(DELIMITERS, key=_outside_quotes(text).count)
        header = self._parse(text)
        if isinstance(header, str):
            raise UserError(f"{path} line {number}: {header}", "correct the header line")
        if len(header) > MAX_COLUMNS:
            raise UserError(f"{path} has {len(header)} columns; the limit is {MAX_COLUMNS}", "keep what you need")
        self.header = header

    def _quoted(self, number: int, text: str, width: int) -> Record | Reject:
        """Read a record with quotes, over as many lines as it has; on failure give all but its first line back."""
        taken: list[_Line] = []
        joined = text
        while True:
            parsed = self._parse(joined)
            why = parsed if isinstance(parsed, str) else _columns(len(parsed), width)
            if not isinstance(parsed, str) and len(parsed) == width:
                return Record(number, parsed)
            if parsed != _UNCLOSED or len(taken) + 1 >= MAX_RECORD_LINES or len(joined) > MAX_RECORD_CHARS:
                break
            more = self._lines.next()
            if more is None:
                break
            taken.append(more)
            if isinstance(more, Reject):
                break
            joined += more[1]
        self._lines.give_back(taken)
        return Reject(number, why, text)

    def _parse(self, text: str) -> list[str] | str:
        """Return the cells of one record, or why it is none."""
        if len(text) > MAX_RECORD_CHARS:
            return f"the record is longer than {MAX_RECORD_CHARS} characters"
        if text.count('"') % 2:
            return _UNCLOSED  # in a well-formed record quotes come in pairs, doubled ones included
        try:
            rows = list(csv.reader([text], delimiter=self.delimiter, strict=True))
        except csv.Error as exc:
            return f"not CSV: {exc}"
        return rows[0] if rows else []


_UNCLOSED = "a quote is opened and never closed"


def decode_western(raw: bytes) -> str:
    """Decode Windows-1252; the five bytes it leaves undefined as Latin-1."""
    try:
        return raw.decode("cp1252")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _encoding_of(path: Path, sample: bytes) -> str:
    if sample.startswith(_UTF16):
        raise UserError(f"{path} is UTF-16", "save it as UTF-8 and import it again")
    if sample.startswith(b"\xef\xbb\xbf") or sample.isascii():
        return "utf-8"
    good = bad = 0
    for line in sample.splitlines()[: -1 if len(sample) == SAMPLE_BYTES else None]:
        if not line.isascii():
            try:
                line.decode("utf-8")
                good += 1
            except UnicodeDecodeError:
                bad += 1
    return "cp1252" if bad > good else "utf-8"


def _outside_quotes(text: str) -> str:
    return "".join(text.split('"')[::2])


def _columns(found: int, expected: int) -> str:
    return f"{found} column{'s' if found != 1 else ''}, the header has {expected}"
