"""Delivery parts: people's personalisation data in canonical lines, cut, hashed, compressed and stored before any call.

The link later sends what is stored here, so it never waits for a query (F01). Rows are read in pages by log id; a part
ends at the configured number of rows or at PART_RAW_BYTES, whichever comes first. The position to go on from is the last
id of the last stored part: a crash costs the part being cut, nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from psycopg import sql

from midsource.marketing.fields import FIXED
from midsource.model.message import MessageState
from midsource.store.database import Connection, scalar
from midsource.wire import rows as wire
from midsource.wire.schema import PartRow

PART_RAW_BYTES = 1_000_000
"""Uncompressed bytes of a part: about 100 kB on the wire, a second even over a poor line."""
PAGE_ROWS = 2_000
"""Log rows of one query, as many as one part has by default: 4 MB in memory with ordinary data; 10 000 took a worker 21."""
_KEYS_AT_ONCE = 40
"""A function of PostgreSQL takes 100 arguments, two for each key."""


@dataclass(frozen=True, slots=True)
class Person:
    """One message to be: log id, address, and the values of the fields the content uses."""

    id: int
    to: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """People of one query, the log id up to which it looked, and whether there is nothing after it."""

    people: list[Person]
    reached: int
    is_last: bool


@dataclass(frozen=True, slots=True)
class Part:
    """A finished part, not stored yet."""

    first_id: int
    last_id: int
    rows: int
    raw: bytes
    row_hash: int


@dataclass(slots=True)
class PartCutter:
    """Takes people in order of id and gives finished parts."""

    max_rows: int
    _lines: list[bytes] = field(default_factory=list)
    _ids: list[int] = field(default_factory=list)
    _bytes: int = 0

    def add(self, person: Person) -> Part | None:
        """Take one person; return the part that this closed before taking, if it was full."""
        line = wire.encode_row(PartRow(id=person.id, to=person.to, d=person.data))
        closed = self.finish() if self._is_full(len(line)) else None
        self._lines.append(line)
        self._ids.append(person.id)
        self._bytes += len(line)
        return closed

    def finish(self) -> Part | None:
        """Return what is left as a part, or None."""
        if not self._lines:
            return None
        row_hash = wire.sum_hashes(map(wire.row_hash, self._lines))
        part = Part(self._ids[0], self._ids[-1], len(self._lines), b"".join(self._lines), row_hash)
        self._lines, self._ids, self._bytes = [], [], 0
        return part

    def _is_full(self, more: int) -> bool:
        return len(self._lines) >= self.max_rows or (bool(self._lines) and self._bytes + more > PART_RAW_BYTES)


class PeopleReader:
    """Reads pages of people of one delivery with the fields its content uses; the statement is built once.

    A page is a range of log ids, which are numbered without gaps (targeting): asked for *the next so many*, the planner would
    read and sort everybody who is left for each page, as long as the log rows just written have no statistics.
    """

    def __init__(self, conn: Connection, delivery_id: int, used: Collection[str]) -> None:
        self._delivery_id = delivery_id
        self._last = int(
            scalar(conn, "select coalesce(max(id), 0) from broad_log where delivery_id = %s", (delivery_id,))
        )
        self._decode = msgspec.json.Decoder(dict[str, Any]).decode
        # The limit, which cuts nothing, stands inside: the planner then looks people up one by one, with or without statistics.
        self._statement = sql.SQL(
            "select l.id, l.email, r.id is not null, ({data})::text from (select id, email, recipient_id from broad_log "
            "where delivery_id = %s and id > %s and id <= %s and state = {pending} order by id limit {page}) l "
            "left join recipient r on r.id = l.recipient_id order by l.id"
        ).format(data=_data(sorted(used)), pending=sql.Literal(int(MessageState.PENDING)), page=sql.Literal(PAGE_ROWS))

    def page(self, conn: Connection, after: int) -> Page:
        """Return the next people after log id ``after``; who was erased meanwhile is left out."""
        reached = after + PAGE_ROWS
        with conn.cursor(binary=True) as cursor:
            found = cursor.execute(self._statement, (self._delivery_id, after, reached)).fetchall()
        people = [Person(row[0], row[1], self._decode(row[3])) for row in found if row[2]]
        return Page(people, reached, is_last=reached >= self._last)


def stored_up_to(conn: Connection, delivery_id: int) -> tuple[int, int, int]:
    """Return (last log id, position of the last part, messages) of what is stored; zeros before the first part."""
    row = conn.execute(
        "select coalesce(max(last_id), 0), coalesce(max(position), 0), coalesce(sum(rows), 0) "
        "from upload_part where delivery_id = %s and state <> 'split'",
        (delivery_id,),
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1]), int(row[2])


def store(conn: Connection, delivery_id: int, position: int, part: Part) -> None:
    """Store a part under its number. Durable with the caller's transaction."""
    body = wire.compress(part.raw)
    conn.execute(
        "insert into upload_part (delivery_id, part, position, first_id, last_id, rows, bytes, content_hash, row_hash, body) "
        "values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            delivery_id, str(position), position, part.first_id, part.last_id, part.rows, len(body),
            wire.content_hash(part.raw), part.row_hash, body,
        ),
    )  # fmt: skip


def _data(used: list[str]) -> sql.Composable:
    """Build the JSON object of the used fields: every one is there, empty ones as null."""
    if not used:
        return sql.SQL("'{}'::jsonb")
    pairs = [sql.SQL("{}, {}").format(sql.Literal(name), _value(name)) for name in used]
    objects = [
        sql.SQL("jsonb_build_object({})").format(sql.SQL(", ").join(chunk)) for chunk in _chunks(pairs, _KEYS_AT_ONCE)
    ]
    return sql.SQL(" || ").join(objects)


def _value(name: str) -> sql.Composable:
    if name in FIXED:
        return sql.SQL("r.{}").format(sql.Identifier(name))
    return sql.SQL("r.fields->{}").format(sql.Literal(name))


def _chunks(items: list[sql.Composed], size: int) -> Iterator[list[sql.Composed]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
