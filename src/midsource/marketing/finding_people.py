"""Finding people by the beginning of an address or a name, page by page, and saying about how many there are.

A search walks an index (migration 0005) from the last row it showed: a page costs the same in the first and the last of a
million. A beginning is compared without case; a name is the first or the last one. Counts are exact up to EXACT_ROWS and
the planner's estimate beyond it: ``about`` is then true, and nobody waits for a count of a million rows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, Literal, LiteralString

from psycopg import sql
from psycopg.rows import class_row

from midsource.marketing.recipients import Recipient
from midsource.store.database import Connection, scalar

PAGE_ROWS = 50
EXACT_ROWS = 10_000
"""Counted one by one in some milliseconds; more are estimated."""
MAX_SEARCH_CHARS = 200
_ABOVE_ALL = "\U0010ffff"

By = Literal["address", "name"]


@dataclass(frozen=True, slots=True)
class Count:
    """How many; ``about``: estimated from statistics."""

    n: int
    about: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins: after this key and id. ``key`` is '' where people go by id."""

    key: str = ""
    id: int = 0


@dataclass(frozen=True, slots=True)
class PeoplePage:
    """Some people, and where the next page begins; None: there are no more."""

    people: list[Recipient]
    following: Place | None


_COLUMNS = sql.SQL(", ").join(sql.SQL("r.{}").format(sql.Identifier(field.name)) for field in fields(Recipient))
_KEYS: dict[str, tuple[LiteralString, ...]] = {
    "address": ("r.email_key",),
    "name": ("lower(r.last_name)", "lower(r.first_name)"),
}


def in_order(conn: Connection, after: int = 0, members_of: int | None = None) -> PeoplePage:
    """Return people after id ``after``, of one list if it is given."""
    # The members of the page come first: joined at once, the planner would sort whoever is left of the list.
    source = (
        sql.SQL(
            "(select recipient_id from list_member where list_id = %(list)s and recipient_id > %(after)s "
            "order by recipient_id limit {limit}) m join recipient r on r.id = m.recipient_id order by r.id"
        )
        if members_of is not None
        else sql.SQL("recipient r where r.id > %(after)s order by r.id limit {limit}")
    ).format(limit=sql.Literal(PAGE_ROWS + 1))
    found = _read(
        conn,
        sql.SQL("select {} from {}").format(_COLUMNS, source),
        {"list": members_of, "after": after},
    )
    more = found[PAGE_ROWS - 1].id if len(found) > PAGE_ROWS else None
    return PeoplePage(found[:PAGE_ROWS], None if more is None else Place("", more))


def search(conn: Connection, beginning: str, by: By, place: Place = Place()) -> PeoplePage:
    """Return people whose address or name begins so, in order of it."""
    branches = []
    for at, key in enumerate(_KEYS[by]):
        # Who was found by the last name is not found by the first name again.
        known = (
            sql.SQL("and not coalesce(starts_with({}, %(low)s), false)").format(sql.SQL(_KEYS[by][0]))
            if at
            else sql.SQL("")
        )
        branches.append(
            sql.SQL(
                "(select {key} as sorted, r.id from recipient r where {key} ~>=~ %(from)s and {key} ~<~ %(high)s "
                "and ({key} ~>~ %(from)s or r.id > %(id)s) {known} order by {key} using ~<~, r.id limit {limit})"
            ).format(key=sql.SQL(key), known=known, limit=sql.Literal(PAGE_ROWS + 1))
        )
    low = scalar(conn, "select lower(%s)", (beginning.strip()[:MAX_SEARCH_CHARS],))
    statement = sql.SQL(
        "select found.sorted, {} from (select * from ({}) u order by sorted using ~<~, id limit {}) found "
        "join recipient r on r.id = found.id order by found.sorted using ~<~, found.id"
    ).format(_COLUMNS, sql.SQL(" union all ").join(branches), sql.Literal(PAGE_ROWS + 1))
    with conn.cursor() as cursor:
        rows = cursor.execute(
            statement,
            {"low": low, "from": max(low, place.key), "high": low + _ABOVE_ALL, "id": place.id if place.key else 0},
        ).fetchall()
    people = [Recipient(*row[1:]) for row in rows[:PAGE_ROWS]]
    following = Place(rows[PAGE_ROWS - 1][0], people[-1].id) if len(rows) > PAGE_ROWS else None
    return PeoplePage(people, following)


def count(conn: Connection, source: sql.Composable, params: dict[str, Any]) -> Count:
    """Count the rows of ``source`` (what follows FROM), exactly up to EXACT_ROWS, else as the planner estimates."""
    exact = scalar(
        conn,
        sql.SQL("select count(*) from (select from {} limit {}) counted").format(source, sql.Literal(EXACT_ROWS + 1)),
        params,
    )
    if exact <= EXACT_ROWS:
        return Count(int(exact), about=False)
    row = conn.execute(sql.SQL("explain (format json) select from {}").format(source), params).fetchone()
    assert row is not None
    plan = row[0] if isinstance(row[0], list) else json.loads(row[0])
    return Count(max(EXACT_ROWS, int(plan[0]["Plan"]["Plan Rows"])), about=True)


def everybody(conn: Connection) -> Count:
    """Count all people."""
    return count(conn, sql.SQL("recipient"), {})


def members(conn: Connection, list_id: int) -> Count:
    """Count the people on a list."""
    return count(conn, sql.SQL("list_member where list_id = %(list)s"), {"list": list_id})


def _read(conn: Connection, statement: sql.Composed, params: dict[str, Any]) -> list[Recipient]:
    with conn.cursor(row_factory=class_row(Recipient)) as cursor:
        return cursor.execute(statement, params).fetchall()
