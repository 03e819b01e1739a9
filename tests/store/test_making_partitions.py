"""Partitions are made while others read and write their parent: nobody waits, neither they nor who makes them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from midsource.model.errors import Conflict
from midsource.store import migrate
from midsource.store.database import Connection, Database

NOW = datetime(2026, 3, 1, tzinfo=UTC)
_SHAPE = """
select 'column', string_agg(format('%%s %%s %%s %%s %%s', attname, atttypid::regtype, attnotnull, attstorage, pg_get_expr(adbin, adrelid)),
    ', ' order by attnum)
  from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
 where attrelid = %(table)s::regclass and attnum > 0
union all
select 'index', replace(pg_get_indexdef(indexrelid), %(table)s::text, 'child') || exists (select from pg_inherits where inhrelid = indexrelid)
  from pg_index where indrelid = %(table)s::regclass
union all
select 'constraint', contype::text || pg_get_constraintdef(oid) || coninhcount || conislocal
  from pg_constraint where conrelid = %(table)s::regclass and contype <> 'n'
union all
select 'options', reloptions::text from pg_class where oid = %(table)s::regclass
"""


@pytest.fixture(params=["marketing", "mid"])
def migrated(request: pytest.FixtureRequest, database: Callable[[], str]) -> Iterator[tuple[Database, str]]:
    role: str = request.param
    with Database(role, database(), application="tests", max_connections=6) as opened:
        migrate.upgrade(opened, role)
        with opened.transaction() as conn:
            migrate.ensure_partitions(conn, role, NOW)
        yield opened, role


def shape(conn: Connection, table: str) -> set[tuple[str, str | None]]:
    return {(kind, text) for kind, text in conn.execute(_SHAPE, {"table": table}).fetchall()}


def write(conn: Connection, role: str, number: int) -> None:
    if role == "marketing":
        conn.execute(
            "insert into broad_log (delivery_id, id, recipient_id, state, event_at) values (202603::bigint << 32, %s, 1, 6, now())",
            (number,),
        )
    else:
        conn.execute(
            "insert into message (account_id, delivery_id, id, email, domain, data) values (1, 202603::bigint << 32, %s, 'a', 'b', '{}')",
            (number,),
        )


def parents(role: str) -> list[str]:
    return ["broad_log"] if role == "marketing" else ["message", "outcome"]


@pytest.mark.parametrize("kind", ["reader", "dump", "writer"])
def test_a_partition_is_made_beside_open_transactions_and_writers_go_on(
    migrated: tuple[Database, str], kind: str
) -> None:
    opened, role = migrated
    failures: list[Exception] = []

    def make() -> None:
        try:
            with opened.transaction() as conn:
                migrate.ensure_partitions(conn, role, datetime(2027, 3, 1, tzinfo=UTC))
        except Exception as exc:  # noqa: BLE001 - looked at below
            failures.append(exc)

    with psycopg.connect(opened.dsn) as other:  # its transaction stays open
        for table in parents(role):
            if kind == "dump":
                other.execute(f"lock table {table} in access share mode")
            else:
                other.execute(f"select count(*) from {table}")
        if kind == "writer":
            write(other, role, 0)
        thread = threading.Thread(target=make)
        thread.start()
        slowest, writes = 0.0, 0
        while thread.is_alive() or writes < 10:
            began = time.monotonic()
            writes += 1
            with opened.transaction() as conn:
                write(conn, role, writes)
            slowest = max(slowest, time.monotonic() - began)
        thread.join()
        assert failures == []
        assert slowest < 1.0, "a writer waited for the lock that making a partition waits for"
    with opened.connection() as conn:
        found = conn.execute(
            "select count(*) from pg_inherits where inhrelid = to_regclass(%s)", (f"{parents(role)[0]}_202703",)
        ).fetchone()
        assert found == (1,)


def test_one_that_is_attached_has_the_shape_of_one_made_as_a_partition(migrated: tuple[Database, str]) -> None:
    opened, role = migrated
    with opened.connection() as conn:
        for parent in parents(role):
            day = parent == "outcome"
            conn.execute(
                f"select {'ensure_day' if day else 'ensure_month'}(%s, %s)", (parent, "2027-01-01" if day else 202701)
            )
            bounds = "('2027-01-02') to ('2027-01-03')" if day else f"({202702 << 32}) to ({202703 << 32})"
            filled = 40 if parent == "broad_log" else 100 if day else 85
            conn.execute(
                f"create table {parent}_copy partition of {parent} for values from {bounds} with (fillfactor = {filled})"
            )
            ours = shape(conn, f"{parent}_20270101" if day else f"{parent}_202701")
            assert ours == shape(conn, f"{parent}_copy")


def test_who_does_not_get_the_lock_gives_up_after_two_seconds(migrated: tuple[Database, str]) -> None:
    opened, role = migrated
    with psycopg.connect(opened.dsn) as other:
        other.execute(f"lock table {parents(role)[0]} in share update exclusive mode")
        began = time.monotonic()
        with pytest.raises(Conflict), opened.connection() as conn:
            migrate.ensure_partitions(conn, role, datetime(2027, 3, 1, tzinfo=UTC))
        assert time.monotonic() - began < 4
    with opened.connection() as conn:
        migrate.ensure_partitions(conn, role, datetime(2027, 3, 1, tzinfo=UTC))
