"""Checks of what carries the work: processes, the leader, the queue, jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from midsource.doctor.check import BOTH, Check
from midsource.doctor.facts import Facts
from midsource.engine.leader import LEADER_LOCK
from midsource.model.finding import Seen, Severity, age
from midsource.store import processes
from midsource.store.database import Connection, scalar

WAITS_TOO_LONG = timedelta(minutes=2)
"""The leader hands over each second and a worker takes six slices at once, each a minute at most."""
FAILED_WITHIN = timedelta(days=1)
STARTED_LATELY = timedelta(minutes=1)
"""Processes of a home that is just starting report themselves one after the other."""


def missing(conn: Connection, facts: Facts, _now: datetime) -> Iterator[Seen]:
    """Kinds of processes of which fewer live than the configuration says, on all machines together."""
    alive = Counter(row.kind for row in processes.listing(conn) if row.alive)
    name = facts.instance.name
    wanted = {"web": 1, "worker": facts.instance.workers}
    if facts.instance.role == "mid":
        wanted["mta"] = facts.instance.mtas
    does = {
        "web": "Pages, API and link are not served."
        if facts.instance.role == "mid"
        else "Console and API are not served.",
        "worker": "Technical workflows, hand-over and orders stand still.",
        "mta": "Nothing is sent.",
    }
    for kind, count in wanted.items():
        if alive[kind] >= count:
            continue
        yield Seen(
            Severity.CRITICAL if alive[kind] == 0 else Severity.WARNING,
            evidence=f"{alive[kind]} of {count} {kind} processes of {name} live.",
            cause=does[kind] if alive[kind] == 0 else "The others do its work, slower.",
            remedy=f"`midsource ps` says why it ended; `midsource up`, or `midsource start {kind}@{name}`.",
            subject=f"{kind}@{name}",
        )


def dead(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Processes that stopped reporting themselves without a goodbye, and were not started again under their name and host."""
    for row in processes.listing(conn):
        if not row.alive:
            yield Seen(
                Severity.WARNING,
                evidence=f"{row.name} on {row.host} (process {row.pid}) last reported itself {age(now - row.beat_at)} ago.",
                cause="It was killed, hangs, or its machine or the network to the database is gone. Others took over what it held.",
                remedy=f"On {row.host}: `midsource ps`, `midsource logs {row.name}`. A process that is meant to be gone is forgotten after a day.",
                subject=f"{row.name} {row.host}",
            )


def leader(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """No worker leads though one lives: nobody makes runs, hands work over, or takes back what dead workers held."""
    living = [row for row in processes.listing(conn) if row.alive and row.kind == "worker"]
    if not living or all(now - row.started_at < STARTED_LATELY for row in living):
        return
    high, low = LEADER_LOCK >> 32, LEADER_LOCK & 0xFFFFFFFF
    held = scalar(
        conn,
        "select count(*) from pg_locks where locktype = 'advisory' and granted and classid::bigint = %s and objid::bigint = %s "
        "and objsubid = 1 and database = (select oid from pg_database where datname = current_database())",
        (high, low),
    )
    if not held:
        yield Seen(
            Severity.CRITICAL,
            evidence=f"{len(living)} workers live and none of them holds the leader's lock.",
            cause="Their connections for leading fail, or a pooler between them and PostgreSQL gives session locks away.",
            remedy="`midsource logs worker@NAME --grep leader`; connect workers to PostgreSQL itself, not to a transaction pooler.",
        )


def queue(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Jobs and runs that are due and were not begun for two minutes."""
    rows = conn.execute(
        "select 'job ' || kind, count(*), min(due_at) from job where finished_at is null and due_at < %(before)s "
        "and (enqueued_at is null or executor is null) and coalesce(beat_at, due_at) < %(before)s group by 1 "
        "union all select 'workflow ' || r.workflow, count(*), min(r.due_at) from workflow_run r join workflow w on w.name = r.workflow "
        "and w.state in (2, 11) where r.finished_at is null and r.due_at < %(before)s "
        "and (r.enqueued_at is null or r.executor is null) and coalesce(r.beat_at, r.due_at) < %(before)s group by 1 order by 3 limit 50",
        {"before": now - WAITS_TOO_LONG},
    ).fetchall()
    for what, count, oldest in rows:
        yield Seen(
            Severity.ERROR,
            evidence=f"{count} × {what}: due for {age(now - oldest)} and not begun.",
            cause="No worker lives or leads, or all of them are busy with other slices.",
            remedy="`midsource ps`; raise `workers` of the instance where they are all busy.",
            subject=what,
        )


def failed_jobs(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Jobs about deliveries that failed for good in the last day and were not asked for again. Refused preparations are for information: their delivery says what to correct."""
    rows = conn.execute(
        "select distinct on (j.kind, j.subject) j.kind, j.subject, j.finished_at, j.error from job j where j.outcome = 'failed' "
        "and j.finished_at > %s and not exists (select from job n where n.kind = j.kind and n.subject = j.subject "
        "and n.asked_at > j.asked_at) order by j.kind, j.subject, j.finished_at desc limit 200",
        (now - FAILED_WITHIN,),
    ).fetchall()
    for kind, subject, at, error in rows:
        yield Seen(
            Severity.INFO if kind == "prepare" else Severity.WARNING,
            evidence=f"{kind} of delivery {subject} failed {age(now - at)} ago.",
            cause=error or "Its journal says why.",
            remedy=f"`midsource delivery show {subject}`; correct what it names, then prepare or send it again.",
            subject=f"{kind} {subject}",
        )


CHECKS = (
    Check("process.missing", missing, BOTH, Severity.CRITICAL, ("F13", "F78", "F102", "F103", "F104"), "Start the processes of the home."),
    Check("process.dead", dead, BOTH, Severity.WARNING, ("F91", "F104"), "Look at the machine it ran on."),
    Check("engine.leader", leader, BOTH, Severity.CRITICAL, ("F102", "F103"), "Connect workers to PostgreSQL itself."),
    Check("engine.queue", queue, BOTH, Severity.ERROR, ("F102", "F103", "F120"), "See that workers live; run more of them."),
    Check("engine.jobs", failed_jobs, BOTH, Severity.WARNING, ("F77", "F100", "F101"), "Correct what the job names, and ask again."),
)  # fmt: skip
