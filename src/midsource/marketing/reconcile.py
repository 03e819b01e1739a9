"""Compare one delivery with its mid, down to single rows, and repair what differs.

Order of events: the mid's summary (its ledger counted anew; its counters corrected by it; the delivery's state and figures
taken) → span by span of a hundred blocks: our sums, the mid's, and of blocks that differ the rows: ours, the mid's, ours
again once the feed has come to the mid's look (policy/reconciling.py judges) → what differs is set to the mid's row, totals
with it (repairing.py) → at the end the totals are counted anew and everybody targeted must have a row. Each step of repair
is one transaction with the report that counts it, so a crash repeats at most one step, which then finds nothing.

A busy delivery moves while it is looked at. Where the feed is behind, it is read on from here, CATCH_UP_SECONDS at most;
blocks that keep changing are looked at row by row up to MOVING_BLOCKS, and the rest waits until they rest. So a healthy pair
has no differences, however busy.

A row that the mid does not know is reported, never deleted. A mid that was restored may be older than the log: until it was
told what is known here, rows that claim more than it knows are reported and not overwritten.

Limits: one answer a call (wire/blocks.py); what is left when the time is over is the next slice's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from midsource.engine.work import Context
from midsource.marketing import deliveries, gaps, pages, pointers, reconcile_reports, repairing, totals
from midsource.marketing.feed_reader import FeedReader, Tally
from midsource.marketing.reconcile_reports import Report
from midsource.marketing.repairing import Mend
from midsource.model.delivery import DeliveryState
from midsource.model.errors import RemoteRefused
from midsource.policy.reconciling import Seen, Verdict, judge
from midsource.store.database import Connection, scalar
from midsource.wire.blocks import (
    MAX_BLOCKS,
    ROW_BLOCKS,
    BlockSum,
    LedgerPage,
    LedgerRow,
    LedgerSummary,
    block_of,
    differing,
)
from midsource.wire.client import MidClient
from midsource.wire.failures import NotAMid

CATCH_UP_SECONDS = 8.0
"""How long the feed is waited for before rows are left unjudged."""
CATCH_UP_PAGES = 5
"""Read between two looks at the pointer."""
LOOK_SECONDS = 0.2
"""Between two looks at the pointer."""
MOVING_BLOCKS = 50
"""Blocks of a running delivery whose rows are read although they keep changing: half a second of both databases."""
RESTING = timedelta(seconds=60)
"""A block without a change for so long is no moving one, by the mid's clock."""
LEAST_SECONDS = 5.0
"""A step is not begun with less time left: a call may take that long."""


def compare(context: Context, client: MidClient, report: Report, deadline: float, *, mend: bool = True) -> bool:
    """Carry a comparison on until it is done (True) or boot time ``deadline`` comes. Raises what the link raises, NotFound.

    ``mend`` False changes nothing on either side, nor keeps the report.
    """
    return _Comparison(context, client, report, mend=mend).run(deadline)


@dataclass(frozen=True, slots=True)
class _Judged:
    """The rows of a few blocks, judged."""

    verdicts: dict[int, Verdict]
    theirs: dict[int, LedgerRow]
    after: dict[int, Seen]


class _Comparison:
    """One report on its way."""

    def __init__(self, context: Context, client: MidClient, report: Report, *, mend: bool) -> None:
        self._context = context
        self._client = client
        self._report = report
        self._mend = mend
        self._began = context.clock.boot_seconds()
        with context.database.connection() as conn:
            self._delivery = deliveries.get(conn, report.delivery_id)
            dropped = "select log_dropped_at is not null from delivery where id = %s"
            self._is_dropped = bool(scalar(conn, dropped, (report.delivery_id,)))
            self._rewound = gaps.is_rewound(conn, report.account, report.delivery_id)

    def run(self, deadline: float) -> bool:
        report = self._report
        if report.last_block < 0 and not self._begin():
            self._keep()
            return True
        while report.next_block <= report.last_block:
            if self._context.clock.boot_seconds() + LEAST_SECONDS > deadline:
                return False
            self._context.beat()
            self._span(report.next_block, min(MAX_BLOCKS, report.last_block + 1 - report.next_block))
        self._finish()
        return True

    # -- the delivery as a whole

    def _begin(self) -> bool:
        """Ask for the summary; False where there is nothing to compare with, and the report says why."""
        report, delivery = self._report, self._delivery
        if self._is_dropped:
            return self._over("its log was dropped after it was kept for its time")
        try:
            told = self._client.reconcile(delivery.id, mend=self._mend)
        except RemoteRefused as exc:
            if exc.status != 404 or isinstance(exc, NotAMid):
                raise
            return self._over("the mid does not know this delivery (any more)")
        if told.held:
            return self._over(reconcile_reports.UNTOLD)
        if not told.ledger and delivery.handed_over:
            return self._over("the mid keeps no messages of it any more")
        report.mid_counters_wrong = len(told.drift)
        report.delivery_wrong = self._take_delivery(told)
        report.last_block = block_of(max(told.last_id, delivery.targeted or 0, 1))
        self._keep()
        return True

    def _over(self, problem: str) -> bool:
        self._report.problem = problem
        self._report.finished_at = self._context.clock.now()
        return False

    def _take_delivery(self, told: LedgerSummary) -> bool:
        """Take the mid's word for state and figures; return whether ours were wrong although the feed had passed them."""
        row, report = told.delivery, self._report
        passed = self._has_passed("deliveries", told.generation, told.seq)
        with self._context.database.transaction() as conn:
            now = deliveries.get(conn, report.delivery_id, lock=True)
            moved = now.mid_revision > row.revision or (now.figures_at or told.now) > told.now  # since the mid looked
            wrong = passed and not moved and now.state != row.state
            if passed and not moved and not told.drift and not DeliveryState(row.state).sends:
                wrong = wrong or now.figures != pages.named_figures(row.figures)
            if self._mend and now.mid_revision <= row.revision:
                pages.take_deliveries(conn, report.account, [row], told.now)
        return wrong

    def _finish(self) -> None:
        report = self._report
        with self._context.database.transaction(statement_seconds=totals.RECOUNT_SECONDS) as conn:
            if self._mend:
                report.totals_wrong += totals.recount(conn, report.delivery_id)
            else:
                report.totals_wrong += len(totals.drift(conn, report.delivery_id))
            rows = sum(totals.by_state(conn, report.delivery_id).values())
            report.lost = max(0, (self._delivery.targeted or 0) - rows - (0 if self._mend else report.missing))
            report.finished_at = self._context.clock.now()
            self._keep(conn)

    # -- blocks and rows

    def _span(self, first: int, count: int) -> None:
        """Compare one span of blocks; its end is kept with the last repair in it."""
        report = self._report
        ours = self._sums(first, count)
        page = self._client.reconcile_blocks(report.delivery_id, first, count)
        theirs = {each.block: each for each in page.blocks}
        found = differing(ours, theirs)
        if found and self._catch_up(page.generation, page.seq):
            ours = self._sums(first, count)
            found = [block for block in differing(ours, theirs) if block in found]
        chosen = self._choose(found, theirs, page.now)
        for at in range(0, len(chosen), ROW_BLOCKS):
            self._context.beat()
            self._rows(chosen[at : at + ROW_BLOCKS])
        report.blocks += len(ours.keys() | theirs.keys())
        report.next_block = first + count
        self._keep()

    def _sums(self, first: int, count: int) -> dict[int, BlockSum]:
        with self._context.database.connection() as conn:
            return repairing.read_sums(conn, self._report.delivery_id, first, count)

    def _choose(self, found: Sequence[int], theirs: dict[int, BlockSum], now: datetime) -> list[int]:
        """Leave out moving blocks beyond the bound; those at rest come first."""
        moving = [block for block in found if block in theirs and theirs[block].latest > now - RESTING]
        room = max(0, MOVING_BLOCKS - self._report.rows // 1_000)
        left = set(moving[room:])
        self._report.moving_blocks += len(left)
        return [block for block in found if block not in left]

    def _rows(self, blocks: Sequence[int]) -> None:
        """Compare these blocks row by row, repair, and keep both in one transaction."""
        report = self._report
        judged = self._judge(blocks)
        mends = []
        wrong: set[int] = set()
        for message_id, verdict in judged.verdicts.items():
            row, seen = judged.theirs.get(message_id), judged.after.get(message_id)
            if verdict is Verdict.AHEAD and self._rewound:
                verdict = Verdict.UNKNOWN  # noqa: PLW2901 - the mid is older than the log: nobody knows better
            if verdict is Verdict.UNJUDGED:
                report.unjudged += 1
            elif verdict not in (Verdict.SAME, Verdict.MOVING):
                wrong.add(block_of(message_id))
                report.count(verdict, message_id, seen, _seen(row))
            if verdict.is_mended and row is not None:
                mends.append(Mend(seen, row))
        report.rows += len(judged.verdicts)
        report.differing += len(wrong)
        if not self._mend:
            return
        with self._context.database.transaction() as conn:
            pointers.lock(conn, report.account, "logs")
            report.repaired += repairing.mend(conn, report.delivery_id, mends)
            self._keep(conn)

    def _judge(self, blocks: Sequence[int]) -> _Judged:
        before = self._read(blocks)
        page: LedgerPage = self._client.reconcile_rows(self._report.delivery_id, blocks)
        passed = self._catch_up(page.generation, page.seq)
        after = self._read(blocks)
        theirs = {row.id: row for row in page.rows}
        verdicts = {
            message_id: judge(
                before.get(message_id), _seen(theirs.get(message_id)), after.get(message_id), passed=passed
            )
            for message_id in sorted(before.keys() | theirs.keys() | after.keys())
        }
        return _Judged(verdicts, theirs, after)

    def _read(self, blocks: Sequence[int]) -> dict[int, Seen]:
        with self._context.database.connection() as conn:
            return repairing.read_rows(conn, self._report.delivery_id, blocks)

    # -- the feed

    def _has_passed(self, stream: str, generation: str, seq: int | None) -> bool:
        """Tell whether the feed has been applied here up to ``seq``, as far as its pointer says."""
        if seq is None:
            return False
        with self._context.database.connection() as conn:
            found = scalar(
                conn,
                "select seq from pointer where account = %s and stream = %s and lane = 'backlog' "
                "and generation::text = %s and cursor <> ''",
                (self._report.account, stream, generation),
            )
        return found is not None and found >= seq

    def _catch_up(self, generation: str, seq: int | None) -> bool:
        """Wait until the logs feed has come to ``seq``, reading it from here while no run of the workflow does."""
        end = self._context.clock.boot_seconds() + CATCH_UP_SECONDS
        while not self._has_passed("logs", generation, seq):
            if seq is None or self._context.clock.boot_seconds() >= end:
                return False
            self._context.beat()
            if self._is_read_elsewhere():
                time.sleep(LOOK_SECONDS)
            else:
                reader = (self._context, self._client, self._report.account)
                FeedReader(*reader, "logs", LOOK_SECONDS, CATCH_UP_PAGES, 0.0, Tally()).run()
        return True

    def _is_read_elsewhere(self) -> bool:
        with self._context.database.connection() as conn:
            return bool(
                scalar(
                    conn,
                    "select exists (select from workflow_run where workflow = 'defaultMidSourcingLog' "
                    "and finished_at is null and executor is not null)",
                )
            )

    def _keep(self, conn: Connection | None = None) -> None:
        now = self._context.clock.boot_seconds()
        self._report.seconds, self._began = self._report.seconds + now - self._began, now
        if not self._mend:
            return
        if conn is not None:
            reconcile_reports.save(conn, self._report)
            return
        with self._context.database.transaction() as own:
            reconcile_reports.save(own, self._report)


def _seen(row: LedgerRow | None) -> Seen | None:
    return None if row is None else Seen(row.state, row.reason, row.revision)
