"""The delivery log as a comparison reads it, and the repair of single rows, in the caller's transaction.

A repair sets a row to what the mid's ledger holds, whatever its revision here: it overwrites only what the comparison has
seen (state, reason and revision are its condition), so a row that the feed moved meanwhile is left to the feed. A missing
row is written anew for the person who has that address and no other row of the delivery; where nobody has it (erased), for
nobody and without address. `broad_log_total` moves in that very statement, by what it changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from midsource.model.address import AddressProblem, EmailAddress
from midsource.model.outcome import MAX_REPLY_TEXT
from midsource.policy.reconciling import Seen
from midsource.store.database import Connection
from midsource.wire.blocks import BLOCK_OF, BLOCK_ROWS, ROW_HASH, BlockSum, LedgerRow, ids_of, sums

_OF_THE_MID = "state <> 0 and not (state = 7 and revision = 0)"
"""Rows a mid has as well: neither excluded nor cancelled before it took them (policy/reconciling.py says the same)."""

_SUMS = f"""
select {BLOCK_OF} as block, state, count(*), sum({ROW_HASH}), max(event_at) from broad_log
where delivery_id = %s and id between %s and %s and {_OF_THE_MID} group by 1, 2
"""  # noqa: S608 - constants

_MEND = """
with old as materialized (
    select n.*, b.domain as old_domain, b.old_state, b.old_reason
    from (select * from mended where seen_state is not null order by id) n cross join lateral (
        select domain, state as old_state, reason as old_reason from broad_log
        where delivery_id = %(delivery)s and id = n.id
            and (state, reason, revision) = (n.seen_state, n.seen_reason, n.seen_revision) for no key update) b
), changed as (
    update broad_log b set state = o.state, reason = o.reason, attempts = o.attempts, revision = o.revision,
        event_at = o.event_at, reply = o.reply, message_id = o.message_id
    from old o where b.delivery_id = %(delivery)s and b.id = o.id
    returning b.domain, o.old_state, o.old_reason, b.state, b.reason
), restored as (
    insert into broad_log (delivery_id, id, recipient_id, email, domain, state, reason, attempts, revision, event_at, reply,
        message_id)
    select %(delivery)s, id, recipient_id, email, domain, state, reason, attempts, revision, event_at, reply, message_id
    from mended where seen_state is null order by id on conflict (delivery_id, id) do nothing
    returning domain, state, reason
), moves as (
    select domain, old_state as state, old_reason as reason, -count(*) as n from changed group by 1, 2, 3
    union all select domain, state, reason, count(*) from changed group by 1, 2, 3
    union all select domain, state, reason, count(*) from restored group by 1, 2, 3
), totals as (
    insert into broad_log_total as t (delivery_id, domain, state, reason, n)
    select %(delivery)s, domain, state, reason, sum(n) from moves group by 2, 3, 4 having sum(n) <> 0 order by 2, 3, 4
    on conflict (delivery_id, domain, state, reason) do update set n = t.n + excluded.n
)
select (select count(*) from changed) + (select count(*) from restored)
"""


@dataclass(frozen=True, slots=True)
class Mend:
    """One row to repair: what the comparison saw here (None: nothing), and what it shall be."""

    seen: Seen | None
    row: LedgerRow


def read_sums(conn: Connection, delivery_id: int, first: int, count: int) -> dict[int, BlockSum]:
    """Return the sums of ``count`` blocks of the log from block ``first`` on."""
    last = (first + count) * BLOCK_ROWS
    return sums(conn.execute(_SUMS, (delivery_id, first * BLOCK_ROWS + 1, last)).fetchall())


def read_rows(conn: Connection, delivery_id: int, blocks: Sequence[int]) -> dict[int, Seen]:
    """Return what is compared of every row of these blocks, by id."""
    spans = ids_of(blocks)
    found = conn.execute(
        "select l.id, l.state, l.reason, l.revision from unnest(%s::bigint[], %s::bigint[]) as b (first, last) "
        "cross join lateral (select id, state, reason, revision from broad_log "
        "  where delivery_id = %s and id between b.first and b.last) l",
        ([first for first, _ in spans], [last for _, last in spans], delivery_id),
        binary=True,
    )
    return {id_: Seen(state, reason, revision) for id_, state, reason, revision in found}


def mend(conn: Connection, delivery_id: int, mends: Sequence[Mend]) -> int:
    """Repair these rows and the totals; return how many rows were written. The caller holds the lock of the logs stream."""
    if not mends:
        return 0
    people = _people(conn, delivery_id, [each.row for each in mends if each.seen is None])
    conn.execute(
        "create temp table if not exists mended (id bigint, seen_state smallint, seen_reason smallint, seen_revision integer, "
        "recipient_id bigint, email text, domain text, state smallint, reason smallint, attempts smallint, revision integer, "
        "event_at timestamptz, reply text, message_id text) on commit delete rows"
    )
    with conn.cursor() as cursor, cursor.copy("copy mended from stdin") as copy:
        for each in mends:
            row, seen = each.row, each.seen
            person = people.get(row.id, 0)
            copy.write_row(
                (
                    *(row.id, seen and seen.state, seen and seen.reason, seen and seen.revision),
                    *(person, row.to if person else "", row.domain, row.state, row.reason, row.attempts, row.revision),
                    *(row.event_at, row.reply[:MAX_REPLY_TEXT], row.message_id),
                )
            )
    written = conn.execute(_MEND, {"delivery": delivery_id}).fetchone()
    assert written is not None
    conn.execute("truncate mended")  # there may be another repair in this transaction
    return int(written[0])


def _people(conn: Connection, delivery_id: int, rows: Sequence[LedgerRow]) -> dict[int, int]:
    """Return whose message each of these was: message id to person, where somebody has the address and no other row."""
    keys: dict[str, int] = {}
    for row in rows:
        try:
            keys[EmailAddress.parse(row.to).key] = row.id
        except AddressProblem:
            continue
    if not keys:
        return {}
    found = conn.execute(
        "select r.email_key, min(r.id) from recipient r where r.email_key = any(%s) and not exists ("
        "  select from broad_log b where b.recipient_id = r.id and b.delivery_id = %s) group by 1",
        (list(keys), delivery_id),
    )
    return {keys[key]: person for key, person in found}
