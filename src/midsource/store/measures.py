"""What any instance's database says about itself: who is alive, who is connected, how large it is.

A *measure* is a function of a connection that yields samples of figures declared in model/metrics.py. It reads only, and its
caller bounds its time. Measures of jobs are in engine/, those of each role in marketing/ and mid/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import TypeAlias

from midsource.model.maintenance import Outcome
from midsource.model.message import MessageState
from midsource.model.metrics import Sample
from midsource.store import processes
from midsource.store.budget import BUDGET
from midsource.store.database import Connection

Measure: TypeAlias = Callable[[Connection, datetime], Iterator[Sample]]


def messages(counted: Iterable[tuple[str, int, float]]) -> Iterator[Sample]:
    """Yield (account, state, messages) as samples; a state without messages is 0, so that no series comes and goes."""
    found: dict[str, dict[MessageState, float]] = {}
    for account, state, count in counted:
        found.setdefault(account, dict.fromkeys(MessageState, 0.0))[MessageState(state)] = count
    for account, states in found.items():
        for state, count in states.items():
            yield Sample("midsource_messages", count, (account, state.label))


def living(conn: Connection, now: datetime) -> Iterator[Sample]:  # noqa: ARG001 - beats are judged by the database's clock
    """Yield who is alive, by process and by kind."""
    alive = dict.fromkeys(("web", "worker", "mta"), 0)
    for row in processes.listing(conn):
        yield Sample("midsource_process_alive", row.alive, (row.name, row.host))
        alive[row.kind] = alive.get(row.kind, 0) + row.alive
    ages = conn.execute(
        "select distinct on (name, host) name, host, extract(epoch from now() - beat_at)::float8 from process "
        "where beat_at > now() - interval '1 day' order by name, host, beat_at desc limit 500"
    )
    for name, host, age in ages:
        yield Sample("midsource_process_beat_age_seconds", max(0.0, age), (name, host))
    for kind, count in alive.items():
        yield Sample("midsource_processes_alive", count, (kind,))


def database(conn: Connection, now: datetime) -> Iterator[Sample]:  # noqa: ARG001 - one shape for all measures
    """Yield connections by kind of process, what the server allows, and the size on disk."""
    held = dict.fromkeys((*BUDGET, "other"), 0)
    rows = conn.execute(
        "select split_part(application_name, '@', 1), count(*) from pg_stat_activity "
        "where datname = current_database() group by 1"
    )
    for kind, count in rows:
        held[kind if kind in BUDGET else "other"] += count
    for kind, count in held.items():
        yield Sample("midsource_database_connections", count, (kind,))
    row = conn.execute(
        "select current_setting('max_connections')::int, pg_database_size(current_database())"
    ).fetchone()
    assert row is not None
    yield Sample("midsource_database_connections_allowed", row[0])
    yield Sample("midsource_database_bytes", row[1])


def upkeep(conn: Connection, now: datetime) -> Iterator[Sample]:  # noqa: ARG001 - one shape for all measures
    """Yield what says whether maintenance keeps up."""
    row = conn.execute(
        "select sum(n_live_tup)::float8, sum(n_dead_tup)::float8, "
        "(select age(datfrozenxid) from pg_database where datname = current_database()), "
        "(select coalesce(extract(epoch from max(clock_timestamp() - xact_start)), 0)::float8 from pg_stat_activity "
        "  where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()) "
        "from pg_stat_user_tables"
    ).fetchone()
    assert row is not None
    yield Sample("midsource_database_rows", row[0] or 0, ("live",))
    yield Sample("midsource_database_rows", row[1] or 0, ("dead",))
    yield Sample("midsource_database_transaction_age", row[2])
    yield Sample("midsource_database_oldest_transaction_seconds", max(0.0, row[3]))
    ended = dict.fromkeys((Outcome.DONE, Outcome.SKIPPED, Outcome.FAILED, Outcome.CUT), 0)
    rows = conn.execute(
        "select outcome, count(*) from maintenance_action where asked_at > now() - interval '7 days' "
        "and outcome = any(%s) group by outcome",
        (list(ended),),
    )
    for outcome, count in rows:
        ended[Outcome(outcome)] = count
    for outcome, count in ended.items():
        yield Sample("midsource_maintenance_actions", count, (outcome.value,))
