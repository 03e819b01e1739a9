"""A mid that was put back from a backup: nothing of an account is dispatched before it was told what became of its messages.

Order of events: the database gets a new generation (by who restores it) and a trigger holds every account; the marketing
instance hears *rewound* from the feed, asks what is held, tells page by page what its log knows of the deliveries under
way (messages that are older here take it), and releases. At release every message that still waits and was due may have
been sent after the backup: it becomes *uncertain*, and where its delivery's policy says *resend* it is due again in the same
transaction, so that ledger, feed and counters show both. The hold goes when every delivery under way is named.
What was not due yet (a later wave) goes on waiting. A cursor beyond the end of the feed means the same without a new generation.

The other way out: an operator releases the account here, without being told (``account release NAME --role mid``).

Limits: KNOWN_ROWS a page, RELEASED_ROWS named in one transaction, which also moves how far the release has come; RELEASED_MESSAGES
and RELEASE_TURNS a call. Repeating any call changes nothing more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from midsource.mid import counters, deliveries, ledger
from midsource.mid.ledger import OutcomeRecord
from midsource.model.errors import Conflict, NotFound
from midsource.model.message import MessageEvent
from midsource.store.database import Connection, Database, scalar
from midsource.wire.hold import HELD_DELIVERIES, HoldAnswer, KnownAnswer, KnownRow, ReleaseAnswer

RELEASED_ROWS = ledger.MAX_BATCH_ROWS
RELEASED_MESSAGES = 100_000
"""Named in one call: some 20 s, where they are made due again; its caller waits for the answer."""
RELEASE_TURNS = 1_000
"""Transactions of one call: as many deliveries, where little waits in each."""
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
        and m.id between (select min(id) from told) and (select max(id) from told)
    returning o.domain, o.old_state, m.state
)
select domain, old_state, state, count(*) from changed group by 1, 2, 3
"""
_WAITING = """
select m.id from message m where m.account_id = %(account)s and m.delivery_id = %(delivery)s and m.state in (6, 61)
    and m.id > %(after)s and not (m.state = 6 and m.attempts = 0 and m.id in (select unnest(b.ids) from dispatch_batch b
        where b.account_id = %(account)s and b.delivery_id = %(delivery)s and b.ready_at > now()))
order by m.id limit %(limit)s for no key update of m
"""
_OPEN = """
select d.id from delivery d where d.account_id = %s and d.started_at is not null and d.finished_at is null
    and d.id <> all(%s) order by d.id limit %s
"""
_NAMED = """
update account_hold set naming = %(naming)s, named_up_to = %(after)s,
    named = case when %(naming)s::bigint is null then named || %(delivery)s::bigint else named end
where account_id = %(account)s
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
        row = conn.execute(
            "select since, told, telling, told_to from account_hold where account_id = %s", (account_id,)
        ).fetchone()
        if row is None:
            return HoldAnswer(held=False)
        found = conn.execute(_OPEN, (account_id, row[1], HELD_DELIVERIES)).fetchall()
    return HoldAnswer(
        held=True, since=row[0], deliveries=tuple(each[0] for each in found), telling=row[2], told_to=row[3]
    )


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
        if rows:
            conn.execute(
                "update account_hold set telling = %s, told_to = %s where account_id = %s",
                (delivery_id, max(row.id for row in rows), account_id),
            )
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
    for _ in range(RELEASE_TURNS):
        done = _name_some(database, account_id, now)
        if done is None:
            return ReleaseAnswer(released=True, uncertain=named)
        named += done
        if named >= RELEASED_MESSAGES:
            break
    return ReleaseAnswer(released=False, uncertain=named)


def _name_some(database: Database, account_id: int, now: datetime) -> int | None:
    """Name some messages of the next delivery under way, and return how many; None: there is none, and the hold is gone.

    One transaction, and one at a time for an account: its hold is locked. The sweep moves the delivery on (mid/orders.py).
    """
    with database.transaction() as conn:
        row = conn.execute(
            "select naming, named_up_to, named from account_hold where account_id = %s for update", (account_id,)
        ).fetchone()
        if row is None:
            return None
        delivery_id, after, named = row
        if delivery_id is None:
            following = conn.execute(_OPEN, (account_id, named, 1)).fetchone()
            if following is None:
                conn.execute("delete from account_hold where account_id = %s", (account_id,))
                return None
            delivery_id = following[0]
        found = _doubt(conn, account_id, delivery_id, after, now)
        going_on = len(found) == RELEASED_ROWS
        moved = {"naming": delivery_id, "after": found[-1]} if going_on else {"naming": None, "after": 0}
        conn.execute(_NAMED, {"account": account_id, "delivery": delivery_id} | moved)
    return len(found)


def _doubt(conn: Connection, account_id: int, delivery_id: int, after: int, now: datetime) -> list[int]:
    """Make the next waiting messages of one delivery uncertain, and return them; where its policy is *resend*, due again.

    Those stay in their batches, and are sent when the account is released.
    """
    policy = deliveries.find(conn, account_id, delivery_id, lock="update").spec.uncertain_policy
    key = {"account": account_id, "delivery": delivery_id, "after": after, "limit": RELEASED_ROWS}
    found = [row[0] for row in conn.execute(_WAITING, key).fetchall()]
    events = (MessageEvent.LOST, MessageEvent.RESEND) if policy == "resend" else (MessageEvent.LOST,)
    records = [
        OutcomeRecord(delivery_id, id_, event, now, reply=WHY, counts_attempt=False)
        for event in events
        for id_ in found
    ]
    ledger.record_outcomes(conn, account_id, records, now, tell=False)
    return found


def account_named(conn: Connection, name: str) -> int:
    """Return the id of an account. Raises NotFound."""
    found = scalar(conn, "select id from account where name = %s", (name,))
    if found is None:
        raise NotFound(f"there is no account {name!r} on this mid", "see `midsource account list --role mid`")
    return int(found)
