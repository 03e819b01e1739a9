"""Steps of `cleanup` that remove old rows of a table, the oldest first, PAGE_ROWS a transaction.

``order`` is an indexed column that grows with time; a page looks at the first rows by it and ends at the first that is
kept, so a page with nothing to do reads a page, never the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from psycopg import sql

from midsource.store.cleanup import COUNTED_AT_MOST, Removable, Removed, Scene, Step, next_time
from midsource.store.database import scalar

PAGE_ROWS = 10_000
"""A tenth of a second: locks and the snapshot of a page are over before anybody waits for them."""


def old_rows(
    name: str,
    removes: str,
    table: str,
    *,
    key: Sequence[str],
    order: str,
    at: str,
    option: str = "",
    kept: timedelta = timedelta(0),
) -> Step:
    """Return the step that removes the rows of ``table`` whose ``at`` is older than they are kept. Names are constants of ours."""
    parts = {
        "table": sql.Identifier(table),
        "key": sql.SQL(", ").join(map(sql.Identifier, key)),
        "order": sql.Identifier(order),
        "at": sql.Identifier(at),
    }
    oldest = sql.SQL("select {key}, {at} from {table} order by {order} limit %(limit)s").format(**parts)
    delete = sql.SQL(
        "delete from {table} where ({key}) in (select {key} from ({oldest}) o where o.{at} < %(before)s)"
    ).format(**parts, oldest=oldest)
    counted = sql.SQL("select count(*) from ({oldest}) o where o.{at} < %(before)s").format(**parts, oldest=oldest)
    first = sql.SQL("select {at} from {table} order by {order} limit 1").format(**parts)

    def count(scene: Scene) -> Removable:
        with scene.database.connection() as conn:
            rows = int(scalar(conn, counted, {"before": scene.before, "limit": COUNTED_AT_MOST}))
            return Removable(rows, next_at=None if rows else next_time(scalar(conn, first), scene))

    def page(scene: Scene) -> Removed:
        with scene.database.transaction() as conn:
            rows = conn.execute(delete, {"before": scene.before, "limit": PAGE_ROWS}).rowcount
        return Removed(rows, more=rows == PAGE_ROWS)

    return Step(name, removes, count, page, option, kept)


def matching_rows(
    name: str,
    removes: str,
    table: str,
    where: str,
    *,
    key: Sequence[str],
    option: str = "",
    kept: timedelta = timedelta(0),
) -> Step:
    """Return the step that removes the rows of ``table`` that a condition names; it may use ``%(before)s``.

    For small tables, or conditions that an index answers. ``table`` may have an alias; names are constants of ours.
    """
    parts = {
        "source": sql.SQL(table),
        "table": sql.Identifier(table.split(maxsplit=1)[0]),
        "key": sql.SQL(", ").join(map(sql.Identifier, key)),
        "where": sql.SQL(where),
    }
    found = sql.SQL("select {key} from {source} where {where} limit %(limit)s").format(**parts)
    delete = sql.SQL("delete from {table} where ({key}) in ({found})").format(**parts, found=found)
    counted = sql.SQL("select count(*) from ({found}) o").format(found=found)

    def count(scene: Scene) -> Removable:
        with scene.database.connection() as conn:
            return Removable(int(scalar(conn, counted, {"before": scene.before, "limit": COUNTED_AT_MOST})))

    def page(scene: Scene) -> Removed:
        with scene.database.transaction() as conn:
            rows = conn.execute(delete, {"before": scene.before, "limit": PAGE_ROWS}).rowcount
        return Removed(rows, more=rows == PAGE_ROWS)

    return Step(name, removes, count, page, option, kept)
