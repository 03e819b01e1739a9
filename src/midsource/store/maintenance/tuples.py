"""Measure bloat exactly where the extension pgstattuple is present: free space of tables, density of indexes.

Reading a table by `pgstattuple_approx` costs the pages that are not all visible, `pgstatindex` all of an index. So only
what is large enough to matter and small enough to read is asked, and no longer than ``TOTAL_SECONDS``; the rest stays with
the estimate (policy/bloat.py). The wheel's PostgreSQL does not have the extension.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import psycopg
from psycopg import sql

from midsource.model.maintenance import IndexMeasure, TableMeasure
from midsource.store.database import Connection

LEAST_BYTES = 8_388_608
"""Below 8 MB bloat is not worth a read."""
MOST_BYTES = 1_073_741_824
"""Above 1 GB the read itself would be felt."""
EACH_SECONDS = 5
TOTAL_SECONDS = 20.0


def schema_of(conn: Connection) -> str | None:
    """Return the schema of the extension where it is present and this role may use it, else None."""
    row = conn.execute(
        "select n.nspname, bool_and(has_function_privilege(p.oid, 'execute')) from pg_extension e "
        "join pg_namespace n on n.oid = e.extnamespace "
        "join pg_proc p on p.pronamespace = n.oid and p.proname in ('pgstattuple_approx', 'pgstatindex') "
        "where e.extname = 'pgstattuple' group by 1"
    ).fetchone()
    return str(row[0]) if row is not None and row[1] else None


def measured(
    conn: Connection,
    schema: str,
    tables: Sequence[TableMeasure],
    indexes: Sequence[IndexMeasure],
    oids: Mapping[str, int],
) -> tuple[tuple[TableMeasure, ...], tuple[IndexMeasure, ...]]:
    """Return both with what was measured of them, the largest first; what there was no time for stays as it was."""
    deadline = time.monotonic() + TOTAL_SECONDS
    found_tables = {
        table.name: replace(table, free=round(free))
        for table in sorted(tables, key=lambda table: -table.bytes)
        if not table.is_partitioned
        and (free := _ask(conn, schema, "pgstattuple_approx", "approx_free_space + dead_tuple_len", table.bytes,
                          oids[table.name], deadline)) is not None
    }  # fmt: skip
    found_indexes = {
        index.name: replace(index, density=density)
        for index in sorted(indexes, key=lambda index: -index.bytes)
        if index.method == "btree"
        and (density := _ask(conn, schema, "pgstatindex", "nullif(avg_leaf_density, 'NaN')", index.bytes,
                             oids[index.name], deadline)) is not None
    }  # fmt: skip
    return (
        tuple(found_tables.get(table.name, table) for table in tables),
        tuple(found_indexes.get(index.name, index) for index in indexes),
    )


def _ask(
    conn: Connection, schema: str, function: str, wanted: str, size: int, oid: int, deadline: float
) -> float | None:
    """Return one figure of one relation; None where it was not worth asking, too late, or could not be read."""
    if not LEAST_BYTES <= size <= MOST_BYTES or time.monotonic() > deadline:
        return None
    statement = sql.SQL("select {wanted} from {function}(%s::regclass)").format(
        wanted=sql.SQL(wanted),  # a constant of ours
        function=sql.Identifier(schema, function),
    )
    try:
        with conn.transaction():
            conn.execute(f"set local statement_timeout = '{EACH_SECONDS}s'")
            row = conn.execute(statement, (oid,)).fetchone()
    except (psycopg.errors.QueryCanceled, psycopg.errors.ObjectNotInPrerequisiteState, psycopg.errors.UndefinedTable):
        return None
    return None if row is None or row[0] is None else float(row[0])
