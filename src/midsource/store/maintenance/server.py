"""Measure what concerns the whole server: numbers that run out, open transactions, connections, slots, disk.

An ordinary role sees its own sessions; what others do is hidden from it, and that is said (``Measures.unseen``) with the
grant that would show it. Every query is bounded in rows, and its caller bounds its time.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from midsource.model.maintenance import Disk, Numbers, OpenTransaction, Server, Slot
from midsource.store import budget, processes
from midsource.store.database import Connection, scalar

LISTED = 500
"""Sequences, columns and slots looked at."""
LONG_SECONDS = 60
"""A transaction open for longer is listed: ours end within it, but for the targeting of very large deliveries."""
SESSION = "maintenance@"
"""Begins the application name of our own maintenance sessions, which hold nobody up."""
_LOCAL = ("", "localhost", "127.0.0.1", "::1")

_SEQUENCES = f"""
    select case when s.schemaname = 'public' then s.sequencename::text else s.schemaname || '.' || s.sequencename end,
           coalesce(s.last_value, 0),
           least(s.max_value, case t.typname when 'int2' then 32767 when 'int4' then 2147483647 else s.max_value end), s.cycle
      from pg_sequences s
      join pg_namespace n on n.nspname = s.schemaname
      join pg_class c on c.relnamespace = n.oid and c.relname = s.sequencename
      left join pg_depend d on d.objid = c.oid and d.classid = 'pg_class'::regclass and d.refobjsubid > 0
      left join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
      left join pg_type t on t.oid = a.atttypid
     where s.increment_by > 0 order by coalesce(s.last_value, 0)::numeric / s.max_value desc limit {LISTED}
"""  # noqa: S608 - constants
_COLUMNS = f"""
    select name, used, most from (
        select case when p.schemaname = 'public' then p.tablename::text else p.schemaname || '.' || p.tablename end
                   || '.' || p.attname as name,
               (select max(v) from unnest(
                   coalesce(p.histogram_bounds::text::bigint[], '{{}}') || coalesce(p.most_common_vals::text::bigint[], '{{}}')
               ) v) as used,
               case a.atttypid when 'int2'::regtype then 32767 else 2147483647 end as most
          from pg_stats p
          join pg_namespace n on n.nspname = p.schemaname
          join pg_class c on c.relnamespace = n.oid and c.relname = p.tablename and c.relkind = 'r'
          join pg_attribute a on a.attrelid = c.oid and a.attname = p.attname
         where not p.inherited and a.atttypid in ('int2'::regtype, 'int4'::regtype)
           and p.schemaname not in ('pg_catalog', 'information_schema')
    ) c where used > most / 4 order by used::numeric / most desc limit {LISTED}
"""  # noqa: S608 - constants
_TRANSACTIONS = """
    select pid, coalesce(usename || ' (' || application_name || ')', '?'), coalesce(state, ''),
           extract(epoch from clock_timestamp() - xact_start)::float8
      from pg_stat_activity
     where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()
       and xact_start < clock_timestamp() - make_interval(secs => %(long)s) and application_name not like %(ours)s
    union all
    select 0, owner::text || ' (' || gid || ')', 'prepared', extract(epoch from clock_timestamp() - prepared)::float8
      from pg_prepared_xacts
     where database = current_database() and prepared < clock_timestamp() - make_interval(secs => %(long)s)
     order by 4 desc limit 50
"""
_SLOTS = f"""
    select slot_name::text, active, coalesce(wal_status, ''),
           case when pg_is_in_recovery() then null else pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint end
      from pg_replication_slots order by 4 desc nulls last limit {LISTED}
"""  # noqa: S608 - constants


def server(conn: Connection) -> tuple[Server, list[str]]:
    """Return what the server says, and what this role may not see of it."""
    unseen = _hidden(conn)
    disk, why = _disk(conn)
    if why:
        unseen.append(why)
    row = conn.execute(
        "select pg_database_size(current_database()), (select count(*) from pg_stat_activity where datname is not null), "
        "current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int, "
        "age(d.datfrozenxid), mxid_age(d.datminmxid), current_setting('autovacuum_freeze_max_age')::int, "
        "current_setting('autovacuum')::bool, s.stats_reset "
        "from pg_database d join pg_stat_database s on s.datid = d.oid where d.datname = current_database()"
    ).fetchone()
    assert row is not None
    alive = [found.name for found in processes.listing(conn) if found.alive]
    return Server(
        version=conn.info.server_version // 10_000,
        database_bytes=row[0],
        connections=row[1],
        connections_allowed=row[2],
        connections_budget=budget.needed(alive),
        transaction_age=row[3],
        multixact_age=row[4],
        freeze_age=row[5],
        autovacuum_on=row[6],
        stats_since=row[7],
        numbers=_numbers(conn),
        transactions=open_transactions(conn, LONG_SECONDS),
        slots=tuple(
            Slot(name, active, held, status) for name, active, status, held in conn.execute(_SLOTS.encode()).fetchall()
        ),
        disk=disk,
    ), unseen


def open_transactions(conn: Connection, seconds: float) -> tuple[OpenTransaction, ...]:
    """Return transactions of this database that are open for longer than ``seconds``, the oldest first."""
    rows = conn.execute(_TRANSACTIONS, {"long": seconds, "ours": f"{SESSION}%"}).fetchall()
    return tuple(OpenTransaction(*row) for row in rows)


def _numbers(conn: Connection) -> tuple[Numbers, ...]:
    rows = [(*row, False) for row in conn.execute(_COLUMNS.encode()).fetchall()]
    return tuple(Numbers(*row) for row in [*conn.execute(_SEQUENCES.encode()).fetchall(), *rows])


def _hidden(conn: Connection) -> list[str]:
    """Return what the role may not see of other sessions, as sentences without a final dot."""
    hidden = scalar(
        conn,
        "select count(*) from pg_stat_activity where datname = current_database() and query = '<insufficient privilege>'",
    )
    if not hidden:
        return []
    grant = f"grant pg_read_all_stats to {conn.info.user}"
    return [
        f"{hidden} sessions of other roles cannot be looked into, so a long transaction of theirs is not seen: {grant}"
    ]


def _disk(conn: Connection) -> tuple[Disk | None, str]:
    """Return the disk under the data where the server runs on this machine, or why it is not known."""
    if not (conn.info.host.startswith("/") or conn.info.host in _LOCAL):
        return None, "the disk of the database is on another machine, so its free space is not known here"
    if not scalar(conn, "select pg_has_role(current_user, 'pg_read_all_settings', 'usage')"):
        return None, (
            "where the database keeps its data may not be asked, so the free space of its disk is not known: "
            f"grant pg_read_all_settings to {conn.info.user}"
        )
    folder = Path(scalar(conn, "select current_setting('data_directory')"))
    try:
        found = shutil.disk_usage(folder)
    except OSError as exc:
        return None, f"the free space of the database's disk is not known ({exc.strerror})"
    return Disk(found.free, found.total), ""
