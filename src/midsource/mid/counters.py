"""Counters of messages by delivery, domain and state: tallies, folded and not, and the recount that corrects them.

A tally is what a transaction changed: ``[delivery, domain, old state or null, new state, n]`` entries in its feed batch,
written in that very transaction (here, or by the one statement of ``mid.ledger``). ``fold`` adds tallies to
``message_total`` in transactions of its own; totals are both, read in one snapshot, so folding never shows. The ledger
rows are the truth: ``recount`` compares, and corrects by one more tally.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from psycopg import sql
from psycopg.types.json import Jsonb

from midsource.store.database import Connection, scalar

FOLD_BATCHES = 500
"""Batches folded in one transaction: some 10 ms; more would hold the totals of busy deliveries for too long."""
_FOLD_LOCK = 0x6D69647372630010
"""Advisory lock key: one folder at a time, so two never take the same totals in different order."""


def write_batch(
    conn: Connection,
    account_id: int,
    deliveries: Sequence[int],
    now: datetime,
    tally: Sequence[tuple[int, str, int | None, int, int]] = (),
) -> None:
    """Append a feed batch without outcome rows: new messages (old state None), or a change of a delivery's own row.

    The tally must be what the same transaction's statement returned.
    """
    conn.execute(
        "insert into feed_batch (account_id, day, rows, deliveries, tally) values (%s, %s, 0, %s, %s)",
        (account_id, now.astimezone(UTC).date(), list(deliveries), Jsonb(tally)),
    )


def totals(conn: Connection, account_id: int, delivery_id: int) -> dict[int, int]:
    """Return the number of messages in each state, states with none left out."""
    return totals_of(conn, account_id, [delivery_id])[delivery_id]


def totals_of(conn: Connection, account_id: int, delivery_ids: Sequence[int]) -> dict[int, dict[int, int]]:
    """Return ``totals`` of several deliveries at once, all in one snapshot."""
    found: dict[int, dict[int, int]] = {delivery_id: {} for delivery_id in delivery_ids}
    for delivery_id, state, n in conn.execute(_TOTALS, {"account": account_id, "deliveries": list(found)}):
        found[delivery_id][state] = int(n)
    return found


def totals_since(conn: Connection, first_delivery_id: int) -> list[tuple[str, int, int]]:
    """Return (account, state, messages) over all deliveries from ``first_delivery_id`` on, in one snapshot."""
    rows = conn.execute(_TOTALS_SINCE, {"first": first_delivery_id}).fetchall()
    return [(account, state, int(n)) for account, state, n in rows]


def fold(conn: Connection, limit: int = FOLD_BATCHES) -> int:
    """Fold at most ``limit`` tallies into ``message_total``; return how many, 0 also when another process is at it."""
    if not scalar(conn, "select pg_try_advisory_xact_lock(%s)", (_FOLD_LOCK,)):
        return 0
    return int(scalar(conn, _FOLD, {"limit": limit}))


def recount(conn: Connection, account_id: int, delivery_id: int, now: datetime) -> dict[tuple[str, int], int]:
    """Compare the counters of a delivery with its ledger rows; correct the counters and return what was wrong.

    The ledger wins. The answer maps (domain, state) to rows minus counter and is empty when all was right.
    """
    wrong = drift(conn, account_id, delivery_id)
    if wrong:
        tally = [(delivery_id, domain, None, state, n) for (domain, state), n in wrong.items()]
        write_batch(conn, account_id, [delivery_id], now, tally)
    return wrong


def drift(conn: Connection, account_id: int, delivery_id: int) -> dict[tuple[str, int], int]:
    """Compare as ``recount`` does, and change nothing: one statement, one snapshot."""
    found = conn.execute(_RECOUNT, {"account": account_id, "deliveries": [delivery_id]}).fetchall()
    return {(domain, state): int(n) for domain, state, n in found}


def _unfolded(source: str, columns: str) -> sql.Composed:
    """Expand tallies: each entry takes n from its old state, if it had one, and adds n to its new one."""
    return sql.SQL("""
        select {columns} (e ->> 0)::bigint as delivery_id, e ->> 1 as domain, v.state, v.n
        from {source} b cross join lateral jsonb_array_elements(b.tally) e cross join lateral (
            values ((e ->> 3)::smallint, (e ->> 4)::bigint), ((e ->> 2)::smallint, -(e ->> 4)::bigint)) v (state, n)
        where v.state is not null""").format(columns=sql.SQL(columns), source=sql.Identifier(source))


_COUNTED = sql.SQL("""
    select delivery_id, domain, state, n from message_total
    where account_id = %(account)s and delivery_id = any(%(deliveries)s)
    union all select * from (
        {unfolded} and not b.folded and b.account_id = %(account)s and b.deliveries && %(deliveries)s::bigint[]) u
    where u.delivery_id = any(%(deliveries)s)""").format(unfolded=_unfolded("feed_batch", ""))

_TOTALS = sql.SQL("select delivery_id, state, sum(n) from ({}) c group by 1, 2 having sum(n) <> 0").format(_COUNTED)

_TOTALS_SINCE = sql.SQL("""
select a.name, c.state, sum(c.n) from account a join (
    select account_id, delivery_id, state, n from message_total
    union all select account_id, delivery_id, state, n from ({unfolded} and not b.folded) u) c
  on c.account_id = a.id and c.delivery_id >= %(first)s
group by 1, 2 having sum(c.n) <> 0""").format(unfolded=_unfolded("feed_batch", "b.account_id,"))

_FOLD = sql.SQL("""
with taken as (
    update feed_batch set folded = true where id in (
        select id from feed_batch where not folded order by id limit %(limit)s for update skip locked)
    returning account_id, tally
),
entry as ({unfolded}),
added as (
    insert into message_total as t (account_id, delivery_id, domain, state, n)
    select account_id, delivery_id, domain, state, sum(n) from entry group by 1, 2, 3, 4
    on conflict (account_id, delivery_id, domain, state) do update set n = t.n + excluded.n
)
select count(*) from taken""").format(unfolded=_unfolded("taken", "b.account_id,"))

_RECOUNT = sql.SQL("""
select domain, state, sum(n) from (
    select domain, state, -n as n from ({counted}) c
    union all
    select domain, state, count(*) from message
    where account_id = %(account)s and delivery_id = any(%(deliveries)s) group by 1, 2) d
group by 1, 2 having sum(n) <> 0""").format(counted=_COUNTED)
