"""Measures and daily samples on a real PostgreSQL, as an ordinary role that owns its tables and has no other right."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import psycopg
import pytest
from psycopg import sql

from midsource.model.maintenance import Act, Level, Measures, Outcome, Step
from midsource.policy import maintenance as policy
from midsource.policy.bloat import btree_bytes, table_bytes
from midsource.store import migrate
from midsource.store.database import Connection, Database, scalar
from midsource.store.maintenance import actions, measuring, samples, server, status
from midsource.store.maintenance.session import MaintenanceSession
from midsource.store.maintenance.statements import statement
from midsource.supervise import roles
from midsource.supervise.cluster import SUPERUSER
from midsource.supervise.postgres import PostgresUse
from midsource.supervise.state import State

NOW = datetime(2026, 3, 4, 3, 0, tzinfo=UTC)


@pytest.fixture
def opened(database: Callable[[], str]) -> Iterator[Database]:
    with Database("mid", database(), application="tests") as made:
        migrate.upgrade(made, "mid")
        with made.transaction() as conn:
            migrate.ensure_partitions(conn, "mid", NOW)
        yield made


def measured(opened: Database) -> Measures:
    with opened.connection() as conn:
        return measuring.measure(conn, NOW)


def test_every_table_of_ours_is_measured_partitions_apart(opened: Database) -> None:
    found = measured(opened)
    tables = {table.name: table for table in found.tables}
    assert tables["message"].is_partitioned
    assert (tables["message_202603"].parent, tables["message_202603"].is_partitioned) == ("message", False)
    with opened.connection() as conn:
        ours = scalar(
            conn, "select count(*) from pg_class where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace"
        )
    assert len(found.tables) == ours
    assert {"message_202603_pkey", "feed_batch_unnumbered"} <= {index.name for index in found.indexes}
    assert found.server.version >= 16
    assert found.server.freeze_age == 200_000_000
    assert any(number.name == "feed_seq" for number in found.server.numbers)
    assert not found.has_pgstattuple, "the wheel has none"


@pytest.mark.parametrize(
    ("columns", "row", "index"),
    [
        ("a bigint, b bigint", "n, n", "(a, b)"),
        ("a bigint, b text", "n, 'person' || n || '@example.org'", "(b)"),
        ("a bigint, b text", "n, case when n % 3 = 0 then 'x' end", "(b)"),
        ("a bigint, b text", "n % 100, repeat('x', 200)", "(a)"),
        ("a bigint, b timestamptz", "n % 1000, now()", "(a, b)"),
        ("a bigint, b text", "n, 'P' || n", "(lower(b))"),
    ],
)
def test_the_estimate_of_a_fresh_table_and_index_is_near_its_size(
    opened: Database, columns: str, row: str, index: str
) -> None:
    """Too small by at most a fifth, so that nothing is rebuilt for nothing; too large, towards no bloat, where entries are narrow."""
    with opened.connection() as conn:
        conn.execute(f"create table fresh ({columns})")
        conn.execute(f"insert into fresh select {row} from generate_series(1, 100000) n")
        conn.execute(f"create index fresh_of on fresh {index}")
        conn.execute("vacuum analyze fresh")
    found = measured(opened)
    table = next(table for table in found.tables if table.name == "fresh")
    made = next(index for index in found.indexes if index.name == "fresh_of")
    assert table.shape is not None
    assert made.shape is not None
    assert 0.8 < table_bytes(table.rows, table.shape) / table.bytes < 1.2
    assert 0.8 < btree_bytes(made.rows, made.shape) / made.bytes < 1.45
    assert policy.plan(found, policy.Settings(), by="tests") is not None
    assert [step for step in policy.plan(found, policy.Settings(), by="tests") if step.act is Act.REINDEX] == []


def test_dead_rows_modifications_and_use_are_those_of_the_server(opened: Database) -> None:
    with opened.connection() as conn:
        conn.execute(
            "create table used (a bigint primary key, b smallint) with (autovacuum_enabled = off, autovacuum_vacuum_threshold = 7)"
        )
        conn.execute("insert into used select n, 32000 from generate_series(1, 1000) n")
        conn.execute("select pg_stat_force_next_flush()")
        conn.execute("analyze used")
        conn.execute("delete from used where a <= 400")
        conn.execute("set enable_seqscan = off")
        for number in (500, 501):
            conn.execute("select * from used where a = %s", (number,))
        conn.execute("select pg_stat_force_next_flush()")
        conn.execute("reset enable_seqscan")
    found = measured(opened)
    table = next(table for table in found.tables if table.name == "used")
    index = next(index for index in found.indexes if index.name == "used_pkey")
    assert (table.live, table.dead, table.modified, table.rows) == (600, 400, 400, 1000)
    assert (table.has_autovacuum, table.vacuum_threshold) == (False, 7 + 0.2 * 1000)
    assert index.enforces
    assert index.scans >= 2
    assert index.scanned_at is not None
    assert [(n.used, n.most) for n in found.server.numbers if n.name == "used.b"] == [(32000, 32767)]


def test_a_long_transaction_is_seen_and_our_own_session_is_not(opened: Database) -> None:
    with psycopg.connect(opened.dsn, application_name="report") as other, opened.connection() as conn:
        other.execute("select 1")
        with MaintenanceSession("mid", opened.dsn) as ours:
            assert not ours.is_lost
            found = server.open_transactions(conn, 0)
    assert [("report" in one.who, one.doing) for one in found] == [(True, "idle in transaction")]


def test_a_locked_table_holds_up_no_measuring(opened: Database) -> None:
    with psycopg.connect(opened.dsn) as holder:
        holder.execute("lock table message_202603 in access exclusive mode")
        found = measured(opened)
        assert "a table is locked by somebody" in found.unseen[-1]
        assert "message_202603" in {table.name for table in found.tables}


@pytest.fixture
def ordinary(postgres: PostgresUse) -> Iterator[Database]:
    """A database of a role that owns its tables and has no right beside: not even that of reading statistics."""
    name, secret = f"ordinary_{secrets.token_hex(4)}", secrets.token_hex(16)
    files = postgres._server.files
    socket = State.read(files).socket
    with roles.connect(files, socket, SUPERUSER) as superuser:
        superuser.execute(sql.SQL("create role {} login password {}").format(sql.Identifier(name), sql.Literal(secret)))
        superuser.execute(sql.SQL("create database {0} owner {0}").format(sql.Identifier(name)))
    url = f"postgresql://{name}:{secret}@/{name}?{urlencode({'host': socket, 'port': roles.PORT})}"
    with Database("mid", url, application="tests") as made:
        migrate.upgrade(made, "mid")
        with made.transaction() as conn:
            migrate.ensure_partitions(conn, "mid", NOW)
        yield made


def test_an_ordinary_role_measures_and_does_everything_and_says_what_it_does_not_see(
    ordinary: Database, postgres: PostgresUse
) -> None:
    with ordinary.connection() as conn:
        assert (
            scalar(conn, "select rolsuper or rolcreaterole or rolcreatedb from pg_roles where rolname = current_user")
            is False
        )
        conn.execute("create table hot (a bigint primary key, b text) with (autovacuum_enabled = off)")
        conn.execute("insert into hot select n, repeat('x', 100) from generate_series(1, 20000) n")
        conn.execute("analyze hot")
        conn.execute("delete from hot where a % 3 > 0")
        conn.execute("select pg_stat_force_next_flush()")
    files = postgres._server.files
    name = psycopg.conninfo.conninfo_to_dict(ordinary.dsn)["dbname"]
    state = State.read(files)
    foreign = psycopg.connect(
        host=state.socket, port=roles.PORT, dbname=str(name), user=SUPERUSER,
        password=roles.password(files, SUPERUSER, has_data=True),
    )  # fmt: skip
    with foreign as other, ordinary.connection() as conn:
        other.execute("create table public.theirs (a int)")
        other.commit()
        other.execute("select 1")
        found = status.read(conn, NOW)
    assert [" ".join(sentence.split()[:5]) for sentence in found.measures.unseen] == [
        "1 sessions of other roles", "where the database keeps its", "1 tables belong to another",
    ]  # fmt: skip
    assert found.measures.server.disk is None
    dead = next(step for step in found.steps if step.relation == "hot")
    assert dead.act is Act.VACUUM_ANALYZE
    with MaintenanceSession("mid", ordinary.dsn) as session, ordinary.connection() as conn:
        for step in [dead, *policy.of(found.measures, ["hot"], Act.REINDEX)]:
            session.run(step, 60, lambda: None)
        after = measuring.measure(conn, NOW)
    assert next(table for table in after.tables if table.name == "hot").dead == 0


def test_each_statement_is_one_that_the_server_takes(opened: Database) -> None:
    found = measured(opened)
    steps = [*policy.plan(found, policy.Settings(), by="tests"), *policy.of(found, ["message"], Act.VACUUM_ANALYZE)]
    steps += policy.of(found, ["message"], Act.REINDEX)
    steps.append(Step(Act.ANALYZE, "message", "message", "", 0, 0, only=found.server.version >= 18))
    steps.append(Step(Act.VACUUM_ANALYZE, "job", "job", "", 0, 0, freezes=True, truncates=True))
    steps.append(Step(Act.DROP, "gone_ccnew", "job", "", 0, 0))
    with opened.connection() as conn:
        for step in steps:
            conn.execute(sql.SQL(statement(step)))


def sample_of(conn: Connection) -> int:
    return int(scalar(conn, "select count(*) from size_sample"))


def test_one_sample_a_day_and_a_forecast_from_the_fourth_day(opened: Database) -> None:
    with opened.connection() as conn:
        conn.execute("create table counted (a int generated always as identity)")
        for day in range(4):
            conn.execute("select setval('counted_a_seq', %s)", (2_000_000_000 + day * 20_000_000,))
            assert samples.take_daily(conn, NOW + timedelta(days=day)) > 0
            before = sample_of(conn)
            assert samples.take_daily(conn, NOW + timedelta(days=day, hours=5)) == 0
            assert sample_of(conn) == before
        found = status.read(conn, NOW + timedelta(days=3))
    number = next(forecast for forecast in found.forecasts if forecast.name == "counted_a_seq")
    assert (number.per_day, number.most) == (20_000_000, 2_147_483_647)
    assert 4 < (number.days_left or 0) < 5
    assert {(r.kind, r.subject, r.level) for r in found.remarks} >= {("forecast", "counted_a_seq", Level.NOW)}
    assert {"database", "counted_a_seq"} <= {forecast.name for forecast in found.forecasts}


def test_samples_and_actions_are_kept_for_a_bounded_time(opened: Database) -> None:
    with opened.connection() as conn:
        conn.execute(
            "insert into size_sample (kind, name, day, at, value) values ('database', '', '2025-01-01', '2025-01-01', 1)"
        )
        samples.take_daily(conn, NOW)
        assert scalar(conn, "select min(day) from size_sample") == NOW.date()
        step = policy.of(measuring.measure(conn, NOW), ["job"], Act.VACUUM_ANALYZE)[0]
        actions.end(conn, actions.begin(conn, step, None, ""), "job", Outcome.DONE)
        assert actions.forget(conn, NOW + timedelta(days=10 * actions.KEEP_DAYS)) == 1
