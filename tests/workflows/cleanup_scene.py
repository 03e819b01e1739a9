"""Old deliveries, results and ledgers, and whole runs of cleanup over them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from midsource.config import InstanceConfig
from midsource.engine.work import Context
from midsource.model.errors import MidsourceError
from midsource.model.ids import delivery_id
from midsource.net.clock import SystemClock
from midsource.store import cleanup_status
from midsource.store.cleanup_status import StepStatus
from midsource.store.database import Database, scalar
from midsource.testing.link import LinkedHalves
from midsource.workflows import cleanup

NOW = SystemClock().now()


def of_mid(halves: LinkedHalves) -> Context:
    return replace(halves.context(), database=halves.mid, instance="mid")


def begin(database: Database) -> int:
    with database.transaction() as conn:
        conn.execute("insert into workflow (name, schedule) values ('cleanup', '0 4 * * *') on conflict do nothing")
        return int(scalar(conn, "insert into workflow_run (workflow) values ('cleanup') returning id"))


def end(database: Database, outcome: str) -> None:
    with database.connection() as conn:
        conn.execute("update workflow_run set finished_at = now(), outcome = %s where finished_at is null", (outcome,))


def clean(context: Context, slices: int = 50) -> int:
    """Do a whole run, as the engine would; return how many rows went."""
    begin(context.database)
    removed = 0
    try:
        for _ in range(slices):
            report = cleanup.run_once(context)
            removed += report.rows_written
            if report.more_after_seconds is None:
                end(context.database, "finished")
                return removed
        raise AssertionError("cleanup does not end")
    except MidsourceError:
        end(context.database, "failed")
        raise


def done(database: Database) -> dict[str, StepStatus]:
    with database.connection() as conn:
        return cleanup_status.listing(conn)


def forecast(context: Context, role: str) -> dict[str, int]:
    instance = InstanceConfig(name=role, role=role, port=1)  # type: ignore[arg-type]
    views = cleanup.overview(context.database, context.home, instance, context.clock.now())
    return {view.name: view.forecast.rows for view in views}


def tables(database: Database, parent: str) -> list[str]:
    with database.connection() as conn:
        rows = conn.execute(
            "select inhrelid::regclass::text from pg_inherits where inhparent = %s::regclass order by 1", (parent,)
        ).fetchall()
    return [name for (name,) in rows]


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def old_delivery(halves: LinkedHalves, days: float, *, state: int = 95, rows: int = 100, message_state: int = 1) -> int:
    """Make a delivery of so many days ago with its log, over for as long."""
    halves.prepared(10) if not known(halves) else None
    number = delivery_id(ago(days), 77)
    with halves.marketing.transaction() as conn:
        conn.execute("select ensure_month('broad_log', %s)", (number >> 32,))
        conn.execute(
            "insert into delivery (id, label, state, brand, account, subject, html, text, from_name, from_address, "
            "validity_seconds, retry_count, retry_period_seconds, uncertain_policy, targeted, handed_over, created_at, "
            "started_at, finished_at, modified_at) select %(id)s, 'old', %(state)s, brand, account, '', '', '', '', from_address, "
            "432000, 1, 60, 'hold', %(rows)s, %(rows)s, %(at)s, %(at)s, case when %(state)s in (85, 87, 95) then %(at)s::timestamptz end, "
            "%(at)s from delivery limit 1",
            {"id": number, "state": state, "rows": rows, "at": ago(days)},
        )
        conn.execute(
            "insert into broad_log (delivery_id, id, recipient_id, email, domain, state, event_at) "
            "select %s, n, n, 'p' || n || '@old.example', 'old.example', %s, %s from generate_series(1, %s) n",
            (number, message_state, ago(days), rows),
        )
        conn.execute(
            "insert into broad_log_total select delivery_id, domain, state, reason, count(*) from broad_log "
            "where delivery_id = %s group by 1, 2, 3, 4",
            (number,),
        )
    return number


def known(halves: LinkedHalves) -> bool:
    with halves.marketing.connection() as conn:
        return bool(scalar(conn, "select count(*) from delivery"))


def results(halves: LinkedHalves, days: int, rows: int = 5) -> int:
    """Let the mid have a batch of results of so many days ago, numbered; return its number."""
    day = ago(days).astimezone(UTC).date()
    with halves.mid.transaction() as conn:
        conn.execute("select ensure_day('outcome', %s)", (day,))
        batch, seq = conn.execute(  # type: ignore[misc]
            "insert into feed_batch (account_id, day, rows, deliveries, folded, seq, sequenced_at) "
            "values (%s, %s, %s, '{1}', true, nextval('feed_seq'), %s) returning id, seq",
            (halves.mid_account, day, rows, ago(days)),
        ).fetchone()
        conn.execute(
            "insert into outcome (account_id, day, batch_id, row, delivery_id, id, old_state, new_state, attempts, revision, event_at) "
            "select %s, %s, %s, n, 1, n, 6, 1, 1, 2, %s from generate_series(1, %s) n",
            (halves.mid_account, day, batch, ago(days), rows),
        )
    return int(seq)


def acknowledge(halves: LinkedHalves, seq: int, *streams: str) -> None:
    with halves.mid.transaction() as conn:
        for stream in streams or ("logs", "deliveries"):
            conn.execute(
                "insert into feed_ack (account_id, stream, seq) values (%s, %s, %s) "
                "on conflict (account_id, stream) do update set seq = excluded.seq",
                (halves.mid_account, stream, seq),
            )


def days_kept(halves: LinkedHalves) -> list[int]:
    with halves.mid.connection() as conn:
        rows = conn.execute("select distinct current_date - day from feed_batch order by 1 desc").fetchall()
    return [days for (days,) in rows]


def old_ledger(halves: LinkedHalves, days: int, *, state: int = 95, rows: int = 50) -> int:
    number = delivery_id(ago(days), 5)
    with halves.mid.transaction() as conn:
        conn.execute("select ensure_month('message', %s)", (number >> 32,))
        conn.execute(
            "insert into delivery (account_id, id, label, state, spec, spec_hash, started_at, valid_until, finished_at) "
            "values (%(a)s, %(id)s, 'old', %(state)s, %(spec)s, 'x', %(at)s, %(at)s::timestamptz + interval '5 days', "
            "case when %(state)s in (85, 87, 95) then %(at)s::timestamptz end)",
            {"a": halves.mid_account, "id": number, "state": state, "at": ago(days), "spec": SPEC.replace("0", str(number), 1)},
        )  # fmt: skip
        conn.execute(
            "insert into message (account_id, delivery_id, id, email, domain, state, data) "
            "select %s, %s, n, 'a@b.test', 'b.test', case when %s in (85, 87, 95) then 1 else 6 end, '{}' from generate_series(1, %s) n",
            (halves.mid_account, number, state, rows),
        )
        conn.execute(
            "insert into message_total select account_id, delivery_id, domain, state, count(*) from message "
            "where delivery_id = %s group by 1, 2, 3, 4",
            (number,),
        )
    return number


SPEC = (
    '{"id": 0, "label": "old", "subject": "s", "html": "h", "text": "t", "from_name": "Shop", '
    '"from_address": "news@shop.test", "brand": "shop"}'
)
