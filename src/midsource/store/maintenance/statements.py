"""Each step as the one statement that does it: what is executed and what a DBA is given are the same text."""

from __future__ import annotations

import psycopg
from psycopg import sql

from midsource.model.maintenance import Act, Step
from midsource.store.database import Connection, scalar

LOCK_SECONDS = 2
"""Who holds a table all to himself for longer is not waited for: its size is then not recorded."""


def identifier(relation: str) -> sql.Identifier:
    """Return a relation's quoted name: ``message_202612`` in public, ``dbos.workflow_status`` in its schema."""
    schema, dot, name = relation.partition(".")
    return sql.Identifier(schema, name) if dot else sql.Identifier("public", relation)


def statement(step: Step) -> str:
    """Return the SQL of a step, without a semicolon. VACUUM, REINDEX and DROP run outside any transaction."""
    name = identifier(step.relation)
    if step.act is Act.REINDEX:
        composed = sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(name)
    elif step.act is Act.DROP:
        composed = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(name)
    elif step.act is Act.ANALYZE:
        composed = sql.SQL("ANALYZE ONLY {}" if step.only else "ANALYZE {}").format(name)
    else:
        words = ["ANALYZE"] if step.act is Act.VACUUM_ANALYZE else []
        words += ["FREEZE"] if step.freezes else []
        words += [] if step.truncates else ["TRUNCATE OFF"]
        options = sql.SQL(f"({', '.join(words)}) " if words else "")
        composed = sql.SQL("VACUUM {}{}").format(options, name)
    return composed.as_string(None)


def total_bytes(conn: Connection, relation: str) -> int | None:
    """Return the size of a table with its indexes and TOAST, or of an index; None where there is none, or it is locked."""
    try:
        with conn.transaction():
            conn.execute(f"set local lock_timeout = '{LOCK_SECONDS}s'")
            found = scalar(
                conn, "select pg_total_relation_size(to_regclass(%s))", (identifier(relation).as_string(None),)
            )
    except psycopg.errors.LockNotAvailable:
        return None
    return None if found is None else int(found)


def known_rows(conn: Connection, relation: str) -> float | None:
    """Return the rows that the catalogue knows of a relation; None where there is none, or it was never counted."""
    found = scalar(
        conn, "select reltuples from pg_class where oid = to_regclass(%s)", (identifier(relation).as_string(None),)
    )
    return None if found is None or found < 0 else float(found)
