"""Years of deliveries in both halves at once, as a mid has them whose results were never fetched.

Written set by set in SQL: on the mid finished deliveries, a ledger row for each message, and one feed batch for each
hundred outcomes, numbered in the order of their times; on the marketing side the same deliveries with every log row still
*pending*. Then the two pointers are put to the beginning, as an operator finds them who never looked (F30, F31).

*Bounds*: at most 20 000 deliveries and 50 000 000 rows; a transaction holds one delivery month, so memory and locks stay
small however many years are made. Only where nothing was sent yet: positions in a feed never go back in time, so history
cannot be written behind what is there. A run that is cut leaves whole months; make another home then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from midsource.model.errors import Conflict, UserError
from midsource.model.ids import Month
from midsource.model.options import LAST_BROAD_LOG, LAST_DELIVERY
from midsource.store.database import Database, scalar

MAX_DELIVERIES = 20_000
MAX_ROWS = 50_000_000
BATCH_ROWS = 100
"""Outcomes of one feed batch: a mid that sends slowly, so that positions are many."""
MONTH_SECONDS = 600.0
"""Longest transaction: one month's rows."""
DOMAINS = ("gmail.example", "orange.example", "sapo.example", "laposte.example")
BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)
FIRST_SERIAL = 2_000_000_000
"""Their numbers within a month begin here: far above what a sequence has given."""

_MARKETING_DELIVERIES = """
insert into delivery (id, label, state, brand, account, subject, html, text, from_name, from_address, validity_seconds,
                      retry_count, retry_period_seconds, uncertain_policy, created_at, confirmed_at, started_at, finished_at,
                      targeted, excluded, to_deliver, handed_over, refused, recounted_at)
select (%(month)s::bigint << 32) + %(serial)s + n, 'history ' || %(month)s || ' ' || n, 95, b.name, %(account)s, 'History', '', 'History',
       b.from_name, b.from_address, 432000, 5, 3600, 'hold', t, t, t, t, %(each)s, 0, %(each)s, %(each)s, 0, t
  from generate_series(1, %(deliveries)s) n,
       lateral (select %(begins)s::timestamptz + (n - 1) * %(apart)s::interval as t) times,
       (select name, from_name, from_address from brand order by name limit 1) b
"""
_MARKETING_ROWS = """
insert into broad_log (delivery_id, id, recipient_id, email, domain, state, event_at)
select d.id, n, n, 'h' || n || '@' || o.domain, o.domain, 6, d.created_at
  from delivery d, generate_series(1, %(each)s) n, lateral (select (%(domains)s::text[])[1 + n %% 4] as domain) o
 where d.id > (%(month)s::bigint << 32) + %(serial)s and d.id <= (%(month)s::bigint << 32) + %(serial)s + %(deliveries)s
"""
_MARKETING_TOTALS = """
insert into broad_log_total (delivery_id, domain, state, reason, n)
select d.id, o.domain, 6, 0, count(*)
  from delivery d, generate_series(1, %(each)s) n, lateral (select (%(domains)s::text[])[1 + n %% 4] as domain) o
 where d.id > (%(month)s::bigint << 32) + %(serial)s and d.id <= (%(month)s::bigint << 32) + %(serial)s + %(deliveries)s group by 1, 2
"""
_MID_DELIVERIES = """
insert into delivery (account_id, id, label, state, spec, spec_hash, received_at, finalised_at, expected, started_at, finished_at)
select %(account)s, (%(month)s::bigint << 32) + %(serial)s + n, 'history ' || %(month)s || ' ' || n, 95, '{}', 'history', t, t, %(each)s, t,
       t + interval '1 hour'
  from generate_series(1, %(deliveries)s) n, lateral (select %(begins)s::timestamptz + (n - 1) * %(apart)s::interval as t) times
"""
_MID_ROWS = """
insert into message (account_id, delivery_id, id, email, domain, state, attempts, revision, event_at, reply, message_id, data)
select %(account)s, d.id, n, 'h' || n || '@' || o.domain, o.domain, 1, 1, 2, d.started_at, '250 2.0.0 Ok',
       '<' || substr(md5(d.id || '.' || n), 1, 24) || '@history.example>', '{}'
  from delivery d, generate_series(1, %(each)s) n, lateral (select (%(domains)s::text[])[1 + n %% 4] as domain) o
 where account_id = %(account)s and d.id > (%(month)s::bigint << 32) + %(serial)s and d.id <= (%(month)s::bigint << 32) + %(serial)s + %(deliveries)s
"""
_MID_TOTALS = """
insert into message_total (account_id, delivery_id, domain, state, n)
select account_id, delivery_id, domain, state, count(*) from message
 where account_id = %(account)s and delivery_id > (%(month)s::bigint << 32) + %(serial)s
   and delivery_id <= (%(month)s::bigint << 32) + %(serial)s + %(deliveries)s group by 1, 2, 3, 4
"""
_MID_FEED = """
with made as (
  insert into feed_batch (account_id, day, rows, deliveries, folded, seq, sequenced_at, created_at)
  select %(account)s, current_date, least(%(batch)s, %(each)s - b * %(batch)s), array[d.id], true, nextval('feed_seq'), t, t
    from (select id, started_at from delivery where account_id = %(account)s and id > (%(month)s::bigint << 32) + %(serial)s
             and id <= (%(month)s::bigint << 32) + %(serial)s + %(deliveries)s order by id) d,
         generate_series(0, (%(each)s - 1) / %(batch)s) b, lateral (select d.started_at + b * interval '1 second' as t) times
   order by t, d.id
  returning id, deliveries[1] as delivery, sequenced_at, rows)
insert into outcome (account_id, day, batch_id, row, delivery_id, id, old_state, new_state, attempts, revision, event_at,
                     reply, message_id)
select m.account_id, current_date, p.batch_id, p.row, m.delivery_id, m.id, 6, 1, 1, 2, m.event_at, m.reply, m.message_id
  from (select made.id as batch_id, made.delivery, r as row,
               (row_number() over (partition by made.delivery order by made.sequenced_at, r))::int as id
          from made, generate_series(1, made.rows) r) p
  join message m on m.account_id = %(account)s and m.delivery_id = p.delivery and m.id = p.id
"""


@dataclass(frozen=True, slots=True)
class History:
    """What to make: so many deliveries with so many messages each, spread evenly over the months from ``since`` on."""

    deliveries: int = 5_000
    rows: int = 2_000_000
    since: datetime = BEGINNING

    @property
    def each(self) -> int:
        """Messages of one delivery."""
        return max(1, self.rows // self.deliveries)


def make(marketing: Database, mid: Database, account: str, mid_account: int, history: History, now: datetime,
         say: Callable[[str], None] = lambda _: None) -> int:  # fmt: skip
    """Write it, and put both pointers to its beginning; return how many rows each half got.

    Raises UserError for bounds that are not kept and Conflict where something was sent, before anything is written. Durable
    month by month.
    """
    months = _months(history, now)
    with mid.connection() as conn:
        if scalar(conn, "select exists (select from feed_batch)"):
            raise Conflict(
                "this mid has sent already, and history cannot be written behind it", "make a new home for the lab"
            )
    each, left = history.each, history.deliveries
    written = 0
    for number, month in enumerate(months):
        deliveries = left // (len(months) - number)
        if not deliveries:
            continue
        left -= deliveries
        begins = datetime(month.year, month.month, 1, tzinfo=UTC)
        values = {
            "month": int(str(month)), "serial": FIRST_SERIAL, "deliveries": deliveries, "each": each,
            "domains": list(DOMAINS), "batch": BATCH_ROWS, "begins": begins,
            "apart": timedelta(days=27) / deliveries,
        }  # fmt: skip
        with marketing.transaction(statement_seconds=MONTH_SECONDS) as conn:
            conn.execute("select ensure_month('broad_log', %s)", (int(str(month)),))
            for statement in (_MARKETING_DELIVERIES, _MARKETING_ROWS, _MARKETING_TOTALS):
                conn.execute(statement.encode(), values | {"account": account})
        with mid.transaction(statement_seconds=MONTH_SECONDS) as conn:
            conn.execute("select ensure_month('message', %s)", (int(str(month)),))
            for statement in (_MID_DELIVERIES, _MID_ROWS, _MID_TOTALS, _MID_FEED):
                conn.execute(statement.encode(), values | {"account": mid_account})
        written += deliveries * each
        say(f"{month}: {deliveries} deliveries, {written} of about {history.rows} rows")
    _settle(marketing, mid)
    forget_position(marketing, account, history.since)
    return written


def forget_position(marketing: Database, account: str, since: datetime) -> None:
    """Put both pointers of the account to ``since`` by plain SQL, as somebody does who knows no better."""
    shown = since.isoformat()
    with marketing.transaction() as conn:
        for option in (LAST_DELIVERY, LAST_BROAD_LOG):
            conn.execute(
                "insert into option (name, value, modified_by) values (%s, %s, 'lab') "
                "on conflict (name) do update set value = excluded.value, modified_by = 'lab', version = option.version + 1",
                (f"{option}{account}", shown),
            )


def _months(history: History, now: datetime) -> list[Month]:
    if not 1 <= history.deliveries <= MAX_DELIVERIES:
        raise UserError(f"{history.deliveries} deliveries are not possible here", f"give 1 to {MAX_DELIVERIES}")
    if not history.deliveries <= history.rows <= MAX_ROWS:
        raise UserError(f"{history.rows} rows for {history.deliveries} deliveries are not possible here",
                        f"give at least one each, and at most {MAX_ROWS}")  # fmt: skip
    first, last = Month.of(history.since), Month.of(now - timedelta(days=31))
    found = []
    while first <= last:
        found.append(first)
        first = first.next()
    if not found:
        raise UserError(f"{history.since:%Y-%m-%d} is not in an earlier month", "give --since a date months ago")
    return found


def _settle(marketing: Database, mid: Database) -> None:
    """Do at once what autovacuum would do within minutes, so that chance decides no measurement."""
    for database, tables in (
        (marketing, "delivery, broad_log, broad_log_total"),
        (mid, "message, outcome, feed_batch"),
    ):
        with database.connection() as conn:
            conn.execute(f"set statement_timeout = {int(MONTH_SECONDS * 1000)}")
            conn.execute(f"vacuum analyze {tables}")
            conn.execute("reset statement_timeout")
