"""What this mid's ledger holds of one delivery: counted, in sums of blocks, and row by row. For ``GET reconcile``.

Each answer is one snapshot. Afterwards the feed is numbered until every batch that the snapshot could see has its number:
the highest of these covers the answer (wire/blocks.py). The feed may be busy, so only those batches are waited for.

The summary counts the ledger anew. Where the counters are wrong the ledger wins: with ``mend`` they are corrected in a
transaction of its own, the delivery's row locked, as at the end of a delivery. Nothing else here writes.

Limits: READ_SECONDS a statement, MAX_BLOCKS sums or the rows of ROW_BLOCKS blocks an answer, TURNS numbering turns.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

from midsource.mid import counters, deliveries, feed, hold
from midsource.model.errors import UserError
from midsource.store.database import Connection, Database, scalar
from midsource.wire.blocks import (
    BLOCK_OF,
    BLOCK_ROWS,
    MAX_BLOCKS,
    ROW_BLOCKS,
    ROW_HASH,
    BlockPage,
    Drift,
    LedgerPage,
    LedgerRow,
    LedgerSummary,
    ids_of,
    sums,
)
from midsource.wire.schema import DeliveryRow

READ_SECONDS = 20
"""Longest statement: counting a delivery of ten million messages takes some five seconds."""
TURNS = 20
"""Numbering turns waited for: 20 000 batches; more of a backlog than that and the answer says that it is not covered."""
MISSED_TURN_SECONDS = 0.05
"""Pause where another process is numbering just now."""

_SUMS = f"""
select {BLOCK_OF} as block, state, count(*), sum({ROW_HASH}), max(event_at) from message
where account_id = %s and delivery_id = %s and id between %s and %s group by 1, 2
"""  # noqa: S608 - constants
_ROWS = """
select m.id, m.state, m.reason, m.attempts, m.revision, m.event_at, m.reply, m.message_id, m.email, m.domain
from unnest(%s::bigint[], %s::bigint[]) as b (first, last) cross join lateral (
    select * from message where account_id = %s and delivery_id = %s and id between b.first and b.last) m order by m.id
"""


def summary(database: Database, account_id: int, delivery_id: int, now: datetime, *, mend: bool) -> LedgerSummary:
    """Count a delivery's ledger and compare it with the counters. Raises NotFound."""
    with database.transaction(statement_seconds=READ_SECONDS) as conn:
        look = Look(conn, account_id)
        delivery = deliveries.find(conn, account_id, delivery_id)
        ledger = conn.execute(
            "select state, count(*), max(id) from message where account_id = %s and delivery_id = %s group by state",
            (account_id, delivery_id),
        ).fetchall()
        gone = "select ledger_dropped_at is not null from delivery where account_id = %s and id = %s"
        is_dropped = scalar(conn, gone, (account_id, delivery_id))  # by `cleanup`: the counters are all there is then
        drift = {} if is_dropped else counters.drift(conn, account_id, delivery_id)
        held = hold.is_held(conn, account_id)
        figures = counters.totals(conn, account_id, delivery_id)
    mended = False
    if drift and mend:
        mended = recount(database, account_id, delivery_id, now)
    return LedgerSummary(
        generation=look.generation,
        seq=look.covered(database, now),
        now=now,
        delivery=DeliveryRow(
            id=delivery_id,
            state=delivery.state,
            revision=delivery.revision,
            figures={str(state): n for state, n in sorted(figures.items())},
            started_at=delivery.started_at,
            finished_at=delivery.finished_at,
        ),
        ledger={str(state): n for state, n, _ in sorted(ledger)},
        last_id=max((last for _, _, last in ledger), default=0),
        drift=tuple(Drift(domain=domain, state=state, n=n) for (domain, state), n in sorted(drift.items())),
        mended=mended,
        held=held,
    )


def recount(database: Database, account_id: int, delivery_id: int, now: datetime) -> bool:
    """Correct the counters of one delivery by its ledger, its row locked; return whether any was wrong. Raises NotFound.

    A ledger that `cleanup` has dropped says nothing.
    """
    with database.transaction(statement_seconds=READ_SECONDS) as conn:
        deliveries.find(conn, account_id, delivery_id, lock="update")
        gone = "select ledger_dropped_at is not null from delivery where account_id = %s and id = %s"
        if scalar(conn, gone, (account_id, delivery_id)):
            return False
        return bool(counters.recount(conn, account_id, delivery_id, now))


def blocks(database: Database, account_id: int, delivery_id: int, first: int, count: int, now: datetime) -> BlockPage:
    """Return the sums of ``count`` blocks from block ``first`` on. Raises NotFound, UserError."""
    if first < 0 or not 1 <= count <= MAX_BLOCKS:
        raise UserError(f"{count} blocks from {first} on cannot be summed", f"ask for 1 to {MAX_BLOCKS} from 0 on")
    with database.transaction(statement_seconds=READ_SECONDS) as conn:
        look = Look(conn, account_id)
        deliveries.find(conn, account_id, delivery_id)
        last = (first + count) * BLOCK_ROWS
        found = conn.execute(_SUMS, (account_id, delivery_id, first * BLOCK_ROWS + 1, last)).fetchall()
    return BlockPage(
        generation=look.generation, seq=look.covered(database, now), now=now, blocks=tuple(sums(found).values())
    )


def rows(database: Database, account_id: int, delivery_id: int, wanted: Sequence[int], now: datetime) -> LedgerPage:
    """Return every message of the ``wanted`` blocks. Raises NotFound, UserError."""
    if not 1 <= len(wanted) <= ROW_BLOCKS or min(wanted) < 0:
        raise UserError(f"the rows of {len(wanted)} blocks cannot be read", f"ask for 1 to {ROW_BLOCKS} blocks")
    spans = ids_of(sorted(set(wanted)))
    with database.transaction(statement_seconds=READ_SECONDS) as conn:
        look = Look(conn, account_id)
        deliveries.find(conn, account_id, delivery_id)
        firsts, lasts = [first for first, _ in spans], [last for _, last in spans]
        found = conn.execute(_ROWS, (firsts, lasts, account_id, delivery_id), binary=True).fetchall()
    names = LedgerRow.__struct_fields__
    return LedgerPage(
        generation=look.generation,
        seq=look.covered(database, now),
        now=now,
        rows=tuple(LedgerRow(**dict(zip(names, row, strict=True))) for row in found),
    )


class Look:
    """One snapshot: the caller's transaction from here on, and which batches of the feed it can see."""

    def __init__(self, conn: Connection, account_id: int) -> None:
        conn.execute("set transaction isolation level repeatable read")
        self._account_id = account_id
        self.generation = str(scalar(conn, "select generation from instance"))
        self._seq: int = scalar(
            conn, "select coalesce(max(seq), 0) from feed_batch where account_id = %s", (account_id,)
        )
        self._unnumbered: list[int] = scalar(
            conn,
            "select coalesce(array_agg(id), '{}') from (select id from feed_batch where account_id = %s and seq is null "
            "limit %s) b",
            (account_id, TURNS * feed.TURN_BATCHES),
        )

    def covered(self, database: Database, now: datetime) -> int | None:
        """Return the number of the feed that covers the snapshot, after its end; None where numbering takes too long."""
        waiting = self._unnumbered
        for _ in range(TURNS if waiting else 0):
            if feed.take_turn(database, now) is None:
                time.sleep(MISSED_TURN_SECONDS)
            with database.connection() as conn:
                row = conn.execute(
                    "select coalesce(max(seq), 0), count(*) filter (where seq is null) from feed_batch where id = any(%s)",
                    (waiting,),
                ).fetchone()
            assert row is not None
            if row[1] == 0:
                return max(self._seq, int(row[0]))
        return None if waiting else self._seq
