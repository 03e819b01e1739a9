"""A marketing instance with a history: what the pages of the console are looked at with, and tested against."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from midsource.marketing import brands
from midsource.model.ids import delivery_id
from midsource.store.database import Connection, Database

ACCOUNT = "defaultEmailMid"
PROBLEM = "the mid at http://127.0.0.1:8101 does not answer (connection refused): check that it runs; the link is tried again."
HOSTILE = "<script>alert(1)</script>"
DOMAINS = ("gmail.example", "orange.example", "outlook.example", "sapo.example", "laposte.example", "greylist.example")


@dataclass(frozen=True, slots=True)
class Scene:
    """The deliveries by what they are there for."""

    running: int
    cut: int
    finished: int
    broken: int
    edited: int


def fill(database: Database, now: datetime, people: int = 1_000, seconds: float | None = None) -> Scene:
    """Fill an empty database; ``people`` are targeted by each delivery that has been prepared. A million take longer ``seconds``."""
    with database.transaction(statement_seconds=seconds) as conn:
        brands.ensure_defaults(
            conn,
            from_name="Brand",
            from_address="news@brand.example",
            unsubscribe_url="http://x/u/{token}",
            mirror_url="",
        )
        _instance(conn, now)
        _people(conn, people)
        conn.execute("select setval('delivery_serial', 100)")  # below are ours
        finished = _delivery(
            conn, now - timedelta(days=2), 1, "Newsletter of October", 95, people, now - timedelta(days=1)
        )
        broken = _delivery(conn, now - timedelta(hours=9), 2, f"Voucher {HOSTILE}", 37, None)
        cut = _delivery(conn, now - timedelta(hours=3), 3, "Invitation to the autumn evening", 75, people, now)
        running = _delivery(conn, now - timedelta(minutes=4), 4, "Newsletter of November", 55, people, now)
        edited = _delivery(conn, now - timedelta(minutes=1), 5, "Season’s greetings", 0, None)
        conn.execute(
            "update delivery set error = %s, findings = %s where id = %s",
            (
                "html line 12: there is no field 'vocher'; did you mean 'voucher'?",
                Jsonb([
                    {"severity": "error", "check": "template", "sentence": "html line 12: there is no field 'vocher'."},
                    {"severity": "warning", "check": "size", "sentence": f"The subject holds {HOSTILE}."},
                ]),
                broken,
            ),
        )  # fmt: skip
        conn.execute(
            "update delivery set ordered = 'pause', ordered_at = %s, order_confirmed_at = null where id = %s",
            (now - timedelta(minutes=2), cut),
        )
        _link(conn, cut, now)
    return Scene(running=running, cut=cut, finished=finished, broken=broken, edited=edited)


def _instance(conn: Connection, now: datetime) -> None:
    conn.execute(
        "insert into process (name, kind, host, pid, executor, started_at, beat_at) values "
        "('web@marketing', 'web', 'send1', 4711, 'a', %(old)s, now()), "
        "('worker@marketing', 'worker', 'send1', 4712, 'b', %(old)s, now()), "
        "('worker@marketing.2', 'worker', 'send1', 4713, 'c', %(old)s, now() - interval '3 minutes')",
        {"old": now - timedelta(hours=5)},
    )
    conn.execute(
        "insert into workflow (name, state, failed, schedule, next_at, last_run_at, last_success_at, consecutive_failures, "
        "last_error) values ('defaultMidSourcingDlv', 2, false, '*/10 * * * *', %(next)s, %(ran)s, %(ran)s, 0, ''), "
        "('defaultMidSourcingLog', 11, true, '7 * * * *', %(next)s, %(ran)s, %(old)s, 3, %(why)s)",
        {
            "next": now + timedelta(minutes=6), "ran": now - timedelta(minutes=3), "old": now - timedelta(hours=26),
            "why": f"{PROBLEM}\nsecond line of the cause",
        },
    )  # fmt: skip
    conn.execute(
        "insert into external_account (name, label, url, key_id, secret, last_hello_at, last_problem) "
        "values (%s, 'Mid 1', 'http://127.0.0.1:8101', 'k', 'x', %s, %s)",
        (ACCOUNT, now - timedelta(minutes=12), PROBLEM),
    )


def _people(conn: Connection, people: int) -> None:
    conn.execute(
        "insert into recipient (key, external_id, email, email_key, domain) "
        "select 'id:' || n, n::text, 'person' || n || '@' || d, 'person' || n || '@' || d, d "
        "from (select n, (%(domains)s::text[])[n %% %(count)s + 1] as d from generate_series(1, %(people)s) n) x",
        {"domains": list(DOMAINS), "count": len(DOMAINS), "people": people},
    )


def _delivery(
    conn: Connection,
    at: datetime,
    serial: int,
    label: str,
    state: int,
    people: int | None,
    counted: datetime | None = None,
) -> int:
    number = delivery_id(at, serial)
    conn.execute("select ensure_month('broad_log', %s)", (int(f"{at:%Y%m}"),))
    values: dict[str, Any] = {
        "id": number, "label": label, "state": state, "brand": _brand(conn), "account": ACCOUNT,
        "subject": "Good morning, {{ first_name }}", "html": "<p>Good morning</p>", "text": "Good morning", "from_name": "Brand",
        "from_address": "news@brand.example", "target_expression": "language = 'fr' and city is not empty",
        "validity_seconds": 432_000, "retry_count": 5, "retry_period_seconds": 3_600, "uncertain_policy": "hold", "created_at": at,
    }  # fmt: skip
    names = ", ".join(values)
    conn.execute(f"insert into delivery ({names}) values ({', '.join(f'%({name})s' for name in values)})", values)
    if people:
        _prepared(conn, number, at, state, people, counted or at)
    return number


def _brand(conn: Connection) -> str:
    row = conn.execute("select name from brand limit 1").fetchone()
    assert row is not None
    return str(row[0])


def _prepared(conn: Connection, number: int, at: datetime, state: int, people: int, counted: datetime) -> None:
    """Write log, totals, figures, phases, jobs and parts of a delivery that was handed over."""
    _log(conn, number, at, people, finished=state == 95)
    _totals(conn, number)
    excluded = _count(conn, number, "state = 0")
    figures = {
        label: _count(conn, number, f"state = {code}")
        for label, code in {
            "sent": 1,
            "failed": 2,
            "pending": 6,
            "cancelled": 7,
            "deferred": 61,
            "uncertain": 62,
        }.items()
    }
    if state == 55:  # counters run ahead of the log
        ahead = min(7, figures["pending"])
        figures |= {"sent": figures["sent"] + ahead, "pending": figures["pending"] - ahead}
    phases = [
        {"phase": name, "started_at": at.isoformat(), "seconds": seconds, "rows": people}
        for name, seconds in (("checks", 0.004), ("target", 0.812), ("personalisation", 3.2), ("hand-over", 1.9))
    ]
    conn.execute(
        "update delivery set targeted = %(n)s, excluded = %(out)s, to_deliver = %(n)s - %(out)s, handed_over = %(n)s - %(out)s, "
        "refused = 0, confirmed_at = %(at)s, started_at = %(at)s, finished_at = %(end)s, figures = %(figures)s, "
        "figures_at = %(counted)s, phases = %(phases)s, ordered = 'start', ordered_at = %(at)s, order_confirmed_at = %(at)s "
        "where id = %(id)s",
        {
            "n": people, "out": excluded, "at": at, "end": at + timedelta(minutes=3) if state == 95 else None,
            "figures": Jsonb(figures), "counted": counted, "phases": Jsonb(phases), "id": number,
        },
    )  # fmt: skip
    conn.execute(
        "insert into upload_part (delivery_id, part, position, first_id, last_id, rows, bytes, content_hash, row_hash, state, "
        "acknowledged_at) select %s, n::text, n, n, n, 1, 1, 'x', 1, 'acknowledged', %s from generate_series(1, 3) n",
        (number, at),
    )
    conn.execute(
        "insert into job (id, kind, subject, asked_at, started_at, finished_at, outcome) select kind || %(id)s, kind, %(id)s, "
        "%(at)s, %(at)s, %(at)s, 'finished' from unnest(array['prepare', 'handover', 'order']) kind",
        {"id": number, "at": at},
    )


def _log(conn: Connection, number: int, at: datetime, people: int, *, finished: bool) -> None:
    conn.execute(
        """
        insert into broad_log (delivery_id, id, recipient_id, email, domain, state, reason, attempts, revision, event_at, reply)
        select %(delivery)s, n, r.id, r.email, r.domain, o.state, o.reason, o.attempts, o.attempts, %(at)s, o.reply
          from generate_series(1, %(people)s) n
          join recipient r on r.key = 'id:' || n
          cross join lateral (select *
            from (values (n %% 41 = 0, 0, 8, 0, ''), (n %% 67 = 0, 0, 10, 0, ''), (n %% 101 = 0, 0, 7, 0, ''),
                         (n %% 53 = 0, 2, 1, 1, '550 5.1.1 <' || r.email || '>: no such user here'),
                         (n %% 97 = 0, 2, 5, 6, '452 4.2.2 mailbox full'),
                         (n %% 173 = 0, 62, 0, 1, ''), (n %% 29 = 0 and not %(finished)s, 61, 0, 1, '451 4.7.1 greylisted, try again'),
                         (n > %(people)s * 0.7 and not %(finished)s, 6, 0, 0, ''), (true, 1, 0, 1, '250 2.0.0 OK'))
                 as rule (holds, state, reason, attempts, reply) where holds limit 1) o
        """,
        {"delivery": number, "at": at, "people": people, "finished": finished},
    )


def _totals(conn: Connection, number: int) -> None:
    conn.execute(
        "insert into broad_log_total (delivery_id, domain, state, reason, n) select delivery_id, domain, state, reason, count(*) "
        "from broad_log where delivery_id = %s group by 1, 2, 3, 4",
        (number,),
    )


def _count(conn: Connection, number: int, condition: str) -> int:
    row = conn.execute(
        f"select coalesce(sum(n), 0)::bigint from broad_log_total where delivery_id = %s and {condition}", (number,)
    ).fetchone()
    assert row is not None
    return int(row[0])


def _link(conn: Connection, number: int, now: datetime) -> None:
    for attempt in range(1, 13):
        conn.execute(
            "insert into link_event (at, account, delivery_id, method, http_code, attempt, line) values (%s, %s, %s, %s, 0, %s, %s)",
            (
                now - timedelta(minutes=14 - attempt), ACCOUNT, number, "ExecCommand", attempt,
                f"ExecCommand pause: no answer (connection refused), attempt {attempt}, next in {min(60, 2**attempt)} s",
            ),
        )  # fmt: skip
