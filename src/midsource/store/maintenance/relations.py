"""Measure every table and index of this database: size, rows, use, age, and what the statistics say of their shape.

Three bounded queries of the catalogue and one of the statistics, joined here: joining `pg_stats` in SQL costs seconds where
there are hundreds of partitions. Whoever owns the tables sees all of it; statistics of a column that the role may not
read are missing, and then its bloat is not known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from psycopg.rows import namedtuple_row

from midsource.model.maintenance import IndexMeasure, Rebuilt, Shape, TableMeasure
from midsource.store.database import Connection

MAX_RELATIONS = 2_000
"""Tables measured, and indexes: the largest ones. Ten years of months and two months of days are 200."""
MAX_COLUMNS = 40_000
"""Statistics read: twenty columns of each."""

NAME = "case when n.nspname = 'public' then c.relname else n.nspname || '.' || c.relname end"
OURS = (
    "n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg\\_%' and c.relpersistence <> 't' "
    "and not exists (select from pg_depend e where e.objid = c.oid and e.deptype = 'e')"
)
"""What an extension brought is not ours to keep."""

_TABLES = f"""
    select c.oid, n.nspname as schema, c.relname as bare, {NAME} as name, c.relkind = 'p' as is_partitioned,
           coalesce((select inhparent::regclass::text from pg_inherits where inhrelid = c.oid limit 1), '') as parent,
           pg_has_role(c.relowner, 'usage') as is_mine, c.reltuples as rows, coalesce(c.reloptions, '{{}}') as options,
           (select count(*) from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns,
           <bytes> as bytes, <toast_bytes> as toast_bytes, <index_bytes> as index_bytes,
           coalesce(s.n_live_tup, 0) as live, coalesce(s.n_dead_tup, 0) as dead,
           coalesce(s.n_mod_since_analyze, 0) as modified,
           greatest(s.last_vacuum, s.last_autovacuum) as vacuumed_at,
           greatest(s.last_analyze, s.last_autoanalyze) as analyzed_at,
           coalesce(s.seq_scan, 0) as sequential_scans, coalesce(s.seq_tup_read, 0) as sequential_rows,
           coalesce(s.idx_scan, 0) as index_scans,
           case when c.relkind = 'r' then age(c.relfrozenxid) else 0 end as transaction_age,
           case when c.relkind = 'r' then mxid_age(c.relminmxid) else 0 end as multixact_age
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      left join pg_stat_user_tables s on s.relid = c.oid
     where c.relkind in ('r', 'p') and {OURS}
     order by c.relpages desc, c.oid limit {MAX_RELATIONS}
"""  # noqa: S608 - constants
_INDEXES = f"""
    select c.oid, {NAME} as name, c.relname as bare, i.indrelid, a.amname as method, coalesce(c.reloptions, '{{}}') as options,
           i.indisunique or exists (select from pg_constraint k where k.conindid = c.oid) as enforces,
           i.indisvalid as is_valid, pg_has_role(c.relowner, 'usage') as is_mine,
           <bytes> as bytes, i.indpred is not null as is_partial, c.reltuples as rows,
           coalesce(s.idx_scan, 0) as scans, to_jsonb(s) ->> 'last_idx_scan' as scanned_at,
           (select array_agg(coalesce(t.attname, k.attname) order by k.attnum) from pg_attribute k
              left join pg_attribute t on t.attrelid = i.indrelid and t.attnum = i.indkey[k.attnum - 1] and t.attnum <> 0
             where k.attrelid = c.oid) as columns
      from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
      join pg_am a on a.oid = c.relam
      left join pg_stat_user_indexes s on s.indexrelid = c.oid
     where c.relkind = 'i' and {OURS}
     order by c.relpages desc, c.oid limit {MAX_RELATIONS}
"""  # noqa: S608 - constants
_SIZES = {
    "<bytes>": "coalesce(pg_relation_size(c.oid), 0)",
    "<toast_bytes>": "coalesce(pg_total_relation_size(nullif(c.reltoastrelid, 0)), 0)",
    "<index_bytes>": "coalesce(pg_indexes_size(c.oid), 0)",
}
"""What it is now: waits for whoever holds a table all to himself."""
_PAGES = {
    "<bytes>": "c.relpages::bigint * 8192",
    "<toast_bytes>": "coalesce((select t.relpages::bigint * 8192 from pg_class t where t.oid = c.reltoastrelid), 0)",
    "<index_bytes>": "(select coalesce(sum(x.relpages::bigint), 0)::bigint * 8192 from pg_index y "
    "join pg_class x on x.oid = y.indexrelid where y.indrelid = c.oid)",
}
"""What it was when it was last vacuumed or analysed: waits for nobody."""
_COLUMNS = f"""
    select schemaname, tablename, attname, null_frac, avg_width, n_distinct from pg_stats
     where not inherited and schemaname not in ('pg_catalog', 'information_schema') limit {MAX_COLUMNS}
"""  # noqa: S608 - constants
_REBUILT = """
    select distinct on (relation) relation, ended_at, bytes_after, rows_after from maintenance_action
     where act = 'reindex' and outcome = 'done' and bytes_after is not null order by relation, id desc
"""

Column: TypeAlias = tuple[float, int, float]
"""Share of nulls, average bytes, different values (negative: as a share of the rows)."""


@dataclass(frozen=True, slots=True)
class Autovacuum:
    """The server's settings that a table may set aside for itself."""

    is_on: bool
    vacuum_rows: float
    vacuum_share: float
    vacuum_most: float
    analyze_rows: float
    analyze_share: float


def relations(
    conn: Connection, *, waits: bool = True
) -> tuple[tuple[TableMeasure, ...], tuple[IndexMeasure, ...], dict[str, int]]:
    """Return tables, indexes, and the object id of each by its name.

    Without ``waits`` sizes are those of the last vacuum or analysis, which takes no lock.
    """
    settings = autovacuum(conn)
    columns = _statistics(conn)
    with conn.cursor(row_factory=namedtuple_row) as cursor:
        tables: list[Any] = cursor.execute(_sized(_TABLES, waits=waits)).fetchall()
        indexes: list[Any] = cursor.execute(_sized(_INDEXES, waits=waits)).fetchall()
    rebuilt = {name: Rebuilt(at, size, rows) for name, at, size, rows in conn.execute(_REBUILT).fetchall()}
    by_oid = {row.oid: row for row in tables}
    oids = {row.name: row.oid for row in [*tables, *indexes]}
    return (
        tuple(_table(row, settings, columns.get((row.schema, row.bare), {})) for row in tables),
        tuple(
            _index(row, by_oid[row.indrelid], columns, rebuilt.get(row.name))
            for row in indexes
            if row.indrelid in by_oid
        ),
        oids,
    )


def _sized(query: str, *, waits: bool) -> bytes:
    for mark, expression in (_SIZES if waits else _PAGES).items():
        query = query.replace(mark, expression)
    return query.encode()


def autovacuum(conn: Connection) -> Autovacuum:
    """Return the server's settings. `autovacuum_vacuum_max_threshold` exists from PostgreSQL 18 on."""
    names = (
        "autovacuum", "autovacuum_vacuum_threshold", "autovacuum_vacuum_scale_factor", "autovacuum_vacuum_max_threshold",
        "autovacuum_analyze_threshold", "autovacuum_analyze_scale_factor",
    )  # fmt: skip
    rows = conn.execute("select name, setting from pg_settings where name = any(%s)", (list(names),)).fetchall()
    found: dict[str, str] = dict(rows)
    most = float(found.get(names[3], -1))
    return Autovacuum(
        is_on=found[names[0]] == "on",
        vacuum_rows=float(found[names[1]]),
        vacuum_share=float(found[names[2]]),
        vacuum_most=most if most >= 0 else math.inf,
        analyze_rows=float(found[names[4]]),
        analyze_share=float(found[names[5]]),
    )


def _statistics(conn: Connection) -> dict[tuple[str, str], dict[str, Column]]:
    found: dict[tuple[str, str], dict[str, Column]] = {}
    for schema, relation, column, nulls, width, distinct in conn.execute(_COLUMNS.encode()):
        found.setdefault((schema, relation), {})[column] = (nulls, width, distinct)
    return found


def _table(row: Any, server: Autovacuum, columns: Mapping[str, Column]) -> TableMeasure:
    options = dict(option.split("=", 1) for option in row.options)
    rows = max(0.0, row.rows)
    vacuum = _number(options, "autovacuum_vacuum_threshold", server.vacuum_rows)
    vacuum += rows * _number(options, "autovacuum_vacuum_scale_factor", server.vacuum_share)
    analyze = _number(options, "autovacuum_analyze_threshold", server.analyze_rows)
    analyze += rows * _number(options, "autovacuum_analyze_scale_factor", server.analyze_share)
    is_whole = len(columns) >= row.columns > 0
    return TableMeasure(
        **{
            name: getattr(row, name)
            for name in (
                "name", "parent", "is_partitioned", "is_mine", "bytes", "toast_bytes", "index_bytes", "rows", "live", "dead",
                "modified", "vacuumed_at", "analyzed_at", "sequential_scans", "sequential_rows", "index_scans",
                "transaction_age", "multixact_age",
            )
        },
        shape=_shape(list(columns.values()), int(_number(options, "fillfactor", 100))) if is_whole else None,
        has_autovacuum=server.is_on and options.get("autovacuum_enabled", "true") not in ("false", "off", "0", "no"),
        vacuum_threshold=min(vacuum, _number(options, "autovacuum_vacuum_max_threshold", server.vacuum_most)),
        analyze_threshold=analyze,
    )  # fmt: skip


def _index(
    row: Any, table: Any, columns: Mapping[tuple[str, str], Mapping[str, Column]], rebuilt: Rebuilt | None
) -> IndexMeasure:
    options = dict(option.split("=", 1) for option in row.options)
    known = {**columns.get((table.schema, table.bare), {}), **columns.get((table.schema, row.bare), {})}
    rows = row.rows if row.is_partial else table.rows
    values = [known[name] for name in row.columns or () if name in known]
    shape = None
    if row.method == "btree" and values and len(values) == len(row.columns):
        distinct = None if row.enforces else _distinct(values, rows)
        shape = _shape(values, int(_number(options, "fillfactor", 90)), distinct)
    return IndexMeasure(
        name=row.name,
        table=table.name,
        bytes=row.bytes,
        method=row.method,
        enforces=row.enforces,
        is_valid=row.is_valid,
        is_mine=row.is_mine,
        rows=rows,
        shape=shape,
        scans=row.scans,
        scanned_at=datetime.fromisoformat(row.scanned_at) if row.scanned_at else None,
        rebuilt=rebuilt,
    )


def _shape(columns: Sequence[Column], fillfactor: int, distinct: float | None = None) -> Shape:
    width = sum((1 - nulls) * size for nulls, size, _ in columns)
    return Shape(width, len(columns), any(nulls > 0 for nulls, _, _ in columns), fillfactor, distinct)


def _distinct(columns: Sequence[Column], rows: float) -> float:
    """Return how many different entries there are at most: no more than rows."""
    counts = (count if count >= 0 else -count * rows for _, _, count in columns)
    return min(max(rows, 0.0), math.prod(max(1.0, count) for count in counts))


def _number(options: Mapping[str, str], name: str, default: float) -> float:
    return float(options.get(name, default))
