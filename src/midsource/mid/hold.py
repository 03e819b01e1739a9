"""A mid that was put back from a backup: nothing of an account is dispatched before it was told what became of its messages.

Order of events: the database gets a new generation (by who restores it) and a trigger holds every account; the marketing
instance hears *rewound* from the feed, asks what is held, tells page by page what its log knows of the deliveries under
way (messages that are older here take it), and releases. At release every message that still waits and was due may have
been sent after the backup: it becomes *uncertain*, and is sent again only where its delivery's policy says *resend*.
What was not due yet (a later wave) goes on waiting. A cursor beyond the end of the feed means the same without a new generation.

The other way out: an operator releases the account here, without being told (``account release NAME --role mid``).

Limits: KNOWN_ROWS a page, RELEASED_ROWS made uncertain in one transaction, RELEASE_TURNS of them a call. Repeating any
call changes nothing more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from midsource.mid import counters, deliveries, ledger, orders
from midsource.mid.ledger import OutcomeRecord
from midsource.model.errors import Conflict, NotFound
from midsource.model.message import MessageEvent
from midsource.store.database import Connection, Database, scalar
from midsource.wire.hold import HELD_DELIVERIES, HoldAnswer, KnownAnswer, KnownRow, ReleaseAnswer

RELEASED_ROWS = ledger.MAX_BATCH_ROWS
RELEASE_TURNS = 20
WHY = "the mid was restored: it may have been sent after the backup"
NOT_HELD = "not exists (select from account_hold h where h.account_id = {}.account_id)"
"""SQL: of a row with an account, whether its messages may be dispatched."""

_KNOWN = """
with told as (
    select * from json_to_recordset(%(rows)s::json) as t (id bigint, state smallint, reason smallint, attempts smallint,
        revision integer, event_at timestamptz, message_id text)
), old as materialized (
    select t.*, m.domain, m.old_state from (select * from told order by id) t cross join lateral (
        select domain, state as old_state from message where account_id = %(account)s and delivery_id = %(delivery)s
            and message.id = t.id and revision < t.revision for no key update) m
), changed as (
    update message m set state = o.state, reason = o.reason, attempts = o.attempts, revision = o.revision,
        event_at = o.event_at, message_id = o.message_id, first_try_at = coalesce(m.first_try_at, o.event_at)
    from old o where m.account_id = %(account)s and m.delivery_id = %(delivery)s and m.id = o.id
    returning o.domain, o.old_state, m.state
)
select domain, old_state, state, count(*) from changed group by 1, 2, 3
"""
_WAITING = """
select m.id from message m where m.account_id = %(account)s and m.delivery_id = %(delivery)s and m.state in (6, 61)
    and not (m.state = 6 and m.attempts = 0 and m.id in (select unnest(b.ids) from dispatch_batch b
        where b.account_id = %(account)s and b.delivery_id = %(delivery)s and b.ready_at > now()))
order by m.id limit %(limit)s for no key update of m
"""
_OPEN = """
select d.id from delivery d where d.account_id = %s and d.started_at is not null and d.finished_at is null
    and d.id <> all(%s) order by d.id limit %s
"""


def is_held(conn: Connection, account_id: int) -> bool:
    """Tell whether an account's messages are held."""
    return bool(scalar(conn, "select exists (select from account_hold where account_id = %s)", (account_id,)))


def begin(conn: Connection, account_id: int) -> None:
    """Hold an account: its marketing instance knows more of the feed than this database."""
    conn.execute("insert into account_hold (account_id) values (%s) on conflict do nothing", (account_id,))


def look(database: Database, account_id: int) -> HoldAnswer:
    """Return whether the account is held, and the deliveries that wait to be told about."""
    with database.connection() as conn:
        row = conn.execute("select since, told from account_hold where account_id = %s", (account_id,)).fetchone()
        if row is None:
            return HoldAnswer(held=False)
        found = conn.execute(_OPEN, (account_id, row[1], HELD_DELIVERIES)).fetchall()
    return HoldAnswer(held=True, since=row[0], deliveries=tuple(each[0] for each in found))


def take_known(
    database: Database, account_id: int, delivery_id: int, rows: Sequence[KnownRow], now: datetime, *, last: bool
) -> KnownAnswer:
    """Take what the delivery log knows of messages that are older here. Raises NotFound, Conflict where nothing is held."""
    names = KnownRow.__struct_fields__
    document = [{name: getattr(row, name) for name in names} | {"event_at": row.event_at.isoformat()} for row in rows]
    with database.transaction() as conn:
        if scalar(conn, "select 1 from account_hold where account_id = %s for update", (account_id,)) is None:
            raise Conflict("nothing is held here: this mid was not restored", "ask `GET hold` first")
        deliveries.find(conn, account_id, delivery_id)
        key = {"account": account_id, "delivery": delivery_id}
        changed = conn.execute(_KNOWN, key | {"rows": json.dumps(document)}).fetchall()
        if changed:
            tally = [(delivery_id, domain, old, new, n) for domain, old, new, n in changed if old != new]
            counters.write_batch(conn, account_id, [delivery_id], now, tally)
        if last:
            conn.execute(
                "update account_hold set told = told || %s::bigint where account_id = %s and %s <> all(told)",
                (delivery_id, account_id, delivery_id),
            )
    return KnownAnswer(taken=sum(n for *_, n in changed))


def release(database: Database, account_id: int, now: datetime, *, untold: bool = False) -> ReleaseAnswer:
    """Name what may have been sent since the backup, then let the account be dispatched again.

    Raises Conflict while a delivery under way was not told about, unless ``untold``: an operator's own decision.
    """
    open_ = look(database, account_id)
    if not open_.held:
        return ReleaseAnswer(released=True, uncertain=0)
    if open_.deliveries and not untold:
        raise Conflict(
            f"{len(open_.deliveries)} deliveries were not told about yet", "tell what is known of each first"
        )
    named = 0
    with database.connection() as conn:
        under_way = [row[0] for row in conn.execute(_OPEN, (account_id, [], HELD_DELIVERIES)).fetchall()]
    for delivery_id in under_way:
        for _ in range(RELEASE_TURNS):
            done = _doubt(database, account_id, delivery_id, now)
            named += done
            if done < RELEASED_ROWS:
                break
        else:
            return ReleaseAnswer(released=False, uncertain=named)
    with database.transaction() as conn:
        conn.execute("delete from account_hold where account_id = %s", (account_id,))
    for delivery_id in under_way:
        with database.transaction() as conn:
            orders.advance(conn, account_id, delivery_id, now)
    return ReleaseAnswer(released=True, uncertain=named)


def _doubt(database: Database, account_id: int, delivery_id: int, now: datetime) -> int:
    """Make some waiting messages of one delivery uncertain; where its policy is *resend*, due again."""
    with database.transaction() as conn:
        policy = deliveries.find(conn, account_id, delivery_id, lock="update").spec.uncertain_policy
        key = {"account": account_id, "delivery": delivery_id, "limit": RELEASED_ROWS}
        if policy == "resend":
            return 0  # they wait in their batches, and are sent as the policy says
        found = [row[0] for row in conn.execute(_WAITING, key).fetchall()]
        records = [
            OutcomeRecord(delivery_id, id_, MessageEvent.LOST, now, reply=WHY, counts_attempt=False) for id_ in found
        ]
        return ledger.record_outcomes(conn, account_id, records, now).changed


def account_named(conn: Connection, name: str) -> int:
    """Return the id of an account. Raises NotFound."""
    found = scalar(conn, "select id from account where name = %s", (name,))
    if found is None:
        raise NotFound(f"there is no account {name!r} on this mid", "see `midsource account list --role mid`")
    return int(found)
