"""Stores checked rows: COPY into a temporary table, then one statement into ``recipient`` and the list; chunk by chunk.

A chunk is one transaction. The statement updates by key and counts who is new by what it wrote (``xmax = 0``: inserted).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from psycopg import sql

from midsource.marketing import columns
from midsource.store.database import Database

STORE_SECONDS = 120
"""A chunk takes 0.1 s; this is for the disk that is busy with something else."""
Row: TypeAlias = tuple[str | None, ...]
"""Cells of the staging table as text; the first is the key, never None."""


class Storing:
    """Stores chunks, one transaction each, and counts what became of their rows."""

    def __init__(self, database: Database, plan: columns.Plan, members_of: int | None) -> None:
        self.stored = 0
        self.updated = 0
        self._database = database
        self._members_of = members_of
        self._upsert = _upsert(plan, with_list=members_of is not None)

    def store(self, block: bytes, lines: int) -> None:
        """Store one chunk of so many lines of the file; durable when it returns."""
        with self._database.transaction(statement_seconds=STORE_SECONDS) as conn:
            # Two imports of the same people in other orders would lock each other's rows; chunk by chunk they take turns.
            conn.execute("select pg_advisory_xact_lock(hashtext('import'))")
            conn.execute(_STAGING_TABLE)
            with conn.cursor().copy(_COPY) as copy:
                copy.write(block)
            counted = conn.execute(self._upsert, {"list": self._members_of}).fetchone()
        assert counted is not None
        self.stored += counted[0]
        self.updated += lines - counted[0]


def copy_block(chunk: Sequence[Row]) -> bytes:
    """Return the rows in the text format of COPY, one of each key: the last one, opted out if any of them is.

    Made here and not by ``write_row``: one block is one call, so the storing thread seldom waits for the interpreter's lock.
    """
    unique: dict[str | None, Row] = {}
    for row in chunk:  # ON CONFLICT refuses a key twice in one statement
        before = unique.get(row[0])
        unique[row[0]] = row if before is None or before[_FLAG] == NO else (*row[:_FLAG], YES, *row[_FLAG + 1 :])
    lines = ["\t".join([_NULL if cell is None else cell for cell in row]) for row in unique.values()]
    return ("\n".join(lines).replace("\\", "\\\\") + "\n").encode()


_NULL, YES, NO = "\x01", "t", "f"  # no cell holds a control character: cleaned in texts, escaped in JSON
_STAGED = (
    "key", "external_id", "email", "email_key", "domain", "address_problem",
    "first_name", "last_name", "language", "opted_out", "fields",
)  # fmt: skip
_FLAG = _STAGED.index("opted_out")
_STAGING_TABLE = """
create temp table if not exists import_row (
    key text, external_id text, email text, email_key text, domain text, address_problem text,
    first_name text, last_name text, language text, opted_out boolean, fields jsonb
) on commit delete rows
"""
_COPY = sql.SQL("copy import_row ({}) from stdin with (null {})").format(
    sql.SQL(", ").join(map(sql.Identifier, _STAGED)), sql.Literal(_NULL)
)


def _upsert(plan: columns.Plan, *, with_list: bool) -> sql.Composed:
    """Build the one statement of a chunk: columns of the file replace, others keep; new people and known are counted."""
    replaced = [name for name in ("first_name", "last_name", "language") if plan.position(name) is not None]
    if plan.position("external_id") is not None:
        replaced.append("external_id")
    if plan.position("email") is not None:
        replaced += ["email", "email_key", "domain", "address_problem"]
    sets: list[sql.Composable] = [sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in replaced]
    if plan.position("opted_out") is not None:
        sets.append(sql.SQL("opted_out = r.opted_out or excluded.opted_out"))
    if plan.own:
        names = sql.Literal([name for name, _, _ in plan.own])
        sets.append(sql.SQL("fields = (r.fields - {}::text[]) || excluded.fields").format(names))
    sets.append(sql.SQL("modified_at = now()"))
    member = sql.SQL(
        ", member as (insert into list_member (list_id, recipient_id) select %(list)s, id from done on conflict do nothing)"
    )
    return sql.SQL(
        "with done as (insert into recipient as r ({columns}) select {values} from import_row "
        "on conflict (key) do update set {sets} returning r.id, (xmax = 0) as fresh){member} "
        "select count(*) filter (where fresh), count(*) from done"
    ).format(
        columns=sql.SQL(", ").join(map(sql.Identifier, _STAGED)),
        values=sql.SQL(", ").join(
            sql.SQL("jsonb_strip_nulls(fields)") if name == "fields" else sql.Identifier(name) for name in _STAGED
        ),
        sets=sql.SQL(", ").join(sets),
        member=member if with_list else sql.SQL(""),
    )
