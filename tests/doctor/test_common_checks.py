"""The checks that every instance has: processes, engine, database, machine, supervisors."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from midsource.doctor.checks import database
from midsource.model.finding import Severity
from midsource.security import keys
from midsource.testing.clock import ManualClock

from .conftest import CLOCK, Patient, delivery


@contextmanager
def session(patient: Patient, application: str = "psql") -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(patient.database.dsn, application_name=application) as conn:
        yield conn
        conn.rollback()


def test_processes_of_which_fewer_live_than_configured(mid: Patient) -> None:
    mid.execute("update process set beat_at = now() - interval '31 s' where kind = 'mta'")
    (missing,) = mid.see("process.missing")
    assert (missing.subject, missing.severity) == ("mta@mid1", Severity.CRITICAL)
    assert missing.cause == "Nothing is sent."
    (dead,) = mid.see("process.dead")
    assert dead.subject == "mta@mid1 here"
    mid.execute("update process set beat_at = now()")
    mid.instance = replace(mid.instance, mtas=2)
    (fewer,) = mid.see("process")
    assert (fewer.severity, fewer.evidence) == (Severity.WARNING, "1 of 2 mta processes of mid1 live.")


def test_workers_that_live_without_a_leader(marketing: Patient) -> None:
    marketing.leader.execute("select pg_advisory_unlock_all()")
    (found,) = marketing.see("engine.leader")
    assert found.severity is Severity.CRITICAL
    marketing.execute("update process set started_at = now()")
    assert marketing.see("engine.leader") == [], "they are just starting"


def test_work_that_is_due_and_not_begun(marketing: Patient) -> None:
    marketing.execute("insert into workflow (name, schedule) values ('cleanup', '0 4 * * *')")
    marketing.execute("insert into workflow_run (workflow, due_at) values ('cleanup', now() - interval '3 min')")
    marketing.execute(
        "insert into job (id, kind, subject, due_at, enqueued_at, executor, beat_at) values "
        "('a', 'order', 1, now() - interval '1 min', null, null, null), ('b', 'order', 2, now() - interval '1 h', now(), 'e', now()), "
        "('c', 'handover', 3, now() - interval '3 min', now(), null, null)"
    )
    assert {found.subject for found in marketing.see("engine.queue")} == {"workflow cleanup", "job handover"}
    marketing.execute("update workflow set state = 13")
    assert {found.subject for found in marketing.see("engine.queue")} == {"job handover"}


def test_jobs_that_failed_for_good_until_they_are_asked_for_again(marketing: Patient) -> None:
    marketing.execute(
        "insert into job (id, kind, subject, asked_at, finished_at, outcome, error) values ('a', 'order', 7, now() - interval '1 h', now(), 'failed', 'refused'), "
        "('b', 'prepare', 8, now(), now(), 'failed', 'wrong'), ('c', 'order', 9, now(), now() - interval '25 h', 'failed', 'old')"
    )
    found = {one.subject: one for one in marketing.see("engine.jobs")}
    assert {subject: one.severity for subject, one in found.items()} == {
        "order 7": Severity.WARNING,
        "prepare 8": Severity.INFO,
    }
    assert found["order 7"].cause == "refused"
    marketing.execute("insert into job (id, kind, subject) values ('d', 'order', 7)")
    assert [one.subject for one in marketing.see("engine.jobs")] == ["prepare 8"]


# -- the database


def test_upkeep_is_what_maintenance_says(marketing: Patient) -> None:
    with session(marketing) as conn:
        conn.execute("create table hot (id int, n int) with (autovacuum_enabled = false)")
        conn.execute("insert into hot select n, 0 from generate_series(1, 110000) n")
        conn.execute("update hot set n = 1 where id <= 60000")
        conn.commit()
        conn.execute("select pg_stat_force_next_flush()")
        conn.commit()
    found = {one.subject: one for one in marketing.see("database.upkeep")}
    assert {"dead rows hot", "autovacuum hot"} & set(found)
    assert all("hot" in one.evidence for one in found.values() if one.subject.endswith("hot"))
    assert any(one.healable for one in found.values())
    assert "F131" in next(iter(found.values())).answers
    with marketing.database.connection() as conn:
        conn.execute("vacuum analyze hot")
    assert "dead rows hot" not in {one.subject for one in marketing.see("database.upkeep")}


def test_a_long_write_transaction_on_a_mid_and_any_long_one(mid: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "WRITES_FOR", timedelta(0))
    later = CLOCK.now() + timedelta(minutes=6)
    with session(mid) as reading, session(mid, "writer") as writing:
        reading.execute("select 1")
        writing.execute("create temporary table t (n int) on commit drop")
        assert [found.subject.split()[0] for found in mid.see("database.transactions")] == ["writer"]
        assert {found.subject.split()[0] for found in mid.see("database.transactions", later)} == {"psql", "writer"}
        mid.instance = replace(mid.instance, role="marketing")
        assert mid.see("database.transactions") == []
    mid.instance = replace(mid.instance, role="mid")
    assert mid.see("database.transactions", later) == []


def test_who_waits_for_a_lock_and_who_holds_it(marketing: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOCKED_FOR", timedelta(0))
    with session(marketing, "holder") as holder, session(marketing, "waiter") as waiter:
        holder.execute("lock table option in access exclusive mode")
        pid = holder.info.backend_pid
        thread = threading.Thread(target=lambda: waiter.execute("select * from option"))
        thread.start()
        found = []
        for _ in range(200):
            found = marketing.see("database.locks")
            if found:
                break
        holder.rollback()
        thread.join(20)
    assert found
    assert found[0].subject.startswith("waiter ")
    assert f"for a lock of {pid}" in found[0].evidence


def test_connections_against_what_the_server_allows(marketing: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "USED_WARNING", 0.0)
    (found,) = marketing.see("database.connections")
    assert found.severity is Severity.WARNING
    monkeypatch.setattr(database, "USED_ERROR", 0.0)
    assert marketing.see("database.connections")[0].severity is Severity.ERROR


def test_sequences_that_run_out_and_old_transaction_ids(marketing: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    marketing.execute("create sequence short maxvalue 100")
    marketing.execute("create sequence around maxvalue 100 cycle")
    marketing.execute("select setval('short', 51), setval('around', 99)")
    (found,) = marketing.see("database.ids")
    assert (found.subject, found.severity) == ("short", Severity.WARNING)
    marketing.execute("select setval('short', 81)")
    assert marketing.see("database.ids")[0].severity is Severity.ERROR
    monkeypatch.setattr(database, "XID_WARNING", 0)
    assert "transaction ids" in {one.subject for one in marketing.see("database.ids")}


def test_a_database_whose_clock_is_another(marketing: Patient) -> None:
    facts = replace(marketing.facts(), clock=ManualClock(CLOCK.now() - timedelta(seconds=45)))
    with marketing.database.connection() as conn:
        seen = list(database.clock(conn, facts, CLOCK.now()))
    assert "45 s ahead" in seen[0].evidence


def test_a_server_that_may_forget_what_it_committed(mid: Patient) -> None:
    """The server of the tests has fsync and full_page_writes off; synchronous_commit is for each role or database."""
    (found,) = mid.see("database.durability")
    assert found.evidence == "Off for this database: fsync, full_page_writes."
    name = psycopg.conninfo.conninfo_to_dict(mid.database.dsn)["dbname"]
    with mid.database.transaction() as conn:
        conn.execute(sql.SQL("alter database {} set synchronous_commit = off").format(sql.Identifier(str(name))))
    with session(mid) as conn:
        (seen,) = database.durability(conn, mid.facts(), CLOCK.now())
    assert seen.evidence == "Off for this database: fsync, full_page_writes, synchronous_commit."


def test_partitions_that_are_not_made_ahead(mid: Patient) -> None:
    (found,) = mid.see("database.partitions", CLOCK.now() + timedelta(days=2))
    assert (found.severity, found.healable) == (Severity.WARNING, True)
    (found,) = mid.see("database.partitions", CLOCK.now() + timedelta(days=40))
    assert found.severity is Severity.CRITICAL


# -- the machine


class Usage:
    def __init__(self, total: float, free: float) -> None:
        self.total, self.free = total, free


@pytest.mark.parametrize(
    ("total", "free", "severity"),
    [(100e9, 11e9, None), (100e9, 9e9, "warning"), (4000e9, 100e9, None), (50e9, 1e9, "error")],
)
def test_free_space_by_share_and_bytes(
    mid: Patient, monkeypatch: pytest.MonkeyPatch, total: float, free: float, severity: str | None
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Usage(total, free))
    found = [one for one in mid.see("machine.disk") if one.subject == "home"]
    assert [one.severity for one in found] == ([severity] if severity else [])


def test_a_home_key_that_others_can_read(marketing: Patient) -> None:
    assert marketing.see("machine.key") == []
    keys.load(marketing.config.home)
    assert marketing.see("machine.key") == []
    (marketing.config.home / "keys" / "home.key").chmod(0o644)
    (found,) = marketing.see("machine.key")
    assert "can be read by others" in found.evidence


def test_a_folder_that_cannot_be_written(marketing: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    (marketing.config.home / "log").mkdir()
    assert marketing.see("machine.folders") == []
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    assert [one.subject for one in marketing.see("machine.folders")] == ["log"]


# -- those who are told


def test_nobody_is_told_while_something_is_above_info(marketing: Patient) -> None:
    delivery(marketing, state=25, targeted=3, excluded=1, to_deliver=1)
    found = marketing.look().findings
    of_the_tests = {"database.durability"}  # their server runs without fsync
    assert {one.check for one in found} - of_the_tests == {"delivery.sums", "supervisor.nobody", "mid.refuses"}
    assert next(one for one in found if one.check == "supervisor.nobody").answers == ("F106",)
    marketing.execute(
        "insert into supervisor (name, channel, address, created_by) values ('ops', 'syslog', 'udp://127.0.0.1:1', 't')"
    )
    assert "supervisor.nobody" not in {one.check for one in marketing.look().findings}


def test_a_supervisor_that_cannot_be_reached(marketing: Patient) -> None:
    marketing.execute(
        "insert into supervisor (name, channel, address, created_by, failures, failed_since, last_problem) values "
        "('ops', 'syslog', 'udp://127.0.0.1:1', 't', 1, now(), 'refused')"
    )
    assert marketing.see("supervisor.unreachable") == []
    marketing.execute("update supervisor set failures = 2")
    (found,) = marketing.see("supervisor.unreachable")
    assert (found.subject, found.cause) == ("ops", "refused")
