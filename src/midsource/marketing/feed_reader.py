"""Read one feed of one external account for one slice: pages, lanes, the window, and what the mid may answer instead.

Each page is one transaction: rows, totals, pointer and option together, or nothing; so a killed worker loses at most the
page in its hands. A page that fails for its size or its time is halved and asked again at once, six times in a row at
most, and the smaller window is remembered with the pointer. While a page is written the next one is on its way
(read_ahead.py). While a delivery runs, the call waits at the mid for the next
result. Once nothing runs any more one more page is read, which holds the last results.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, cast

from midsource.engine.work import Context
from midsource.marketing import accounts, gaps, link_journal, losses, pages, pointers, samples
from midsource.marketing.activity import activity_of, slow_period
from midsource.marketing.link_journal import Call, Method
from midsource.marketing.pointers import Lane, Lanes, MovedByHand
from midsource.marketing.read_ahead import ReadAhead
from midsource.model.errors import Failed
from midsource.policy.parts import pause_seconds
from midsource.policy.position import show
from midsource.policy.window import MAX_ROWS, Window
from midsource.store.database import Connection, StatementTimeout
from midsource.wire.client import MAX_SKEW_SECONDS, DeliveryPage, LogPage, MidClient
from midsource.wire.failures import LinkFailure
from midsource.wire.schema import DeliveryRow, FeedHead, GoneBefore, LogRow, Rewound

Stream = Literal["deliveries", "logs"]
RECENT_EVERY_SECONDS = 10.0
"""How often backlog work makes way for what is new: today's results are never later than this plus one page."""
GATHER_SECONDS = 1.0
"""While a delivery runs, pages begin at least this far apart: a page of a second's results costs what one result costs."""
DELIVERY_ROWS = 1_000
"""Deliveries of one page: each costs a statement, and its row stays locked to the end of the page, a second at most."""
MOST_ROWS = {"deliveries": DELIVERY_ROWS, "logs": MAX_ROWS}
HALVINGS = 6
"""Failed pages in a row within a slice before the account pauses: 5 000 rows are 78 by then."""
REWINDS = 2
"""A mid that says *rewound* more often than this in one slice contradicts itself."""

METHODS = {"deliveries": Method.DELIVERIES, "logs": Method.LOGS}


@dataclass(slots=True)
class Tally:
    """What a slice did, over all accounts."""

    read: int = 0
    written: int = 0
    refused: int = 0
    pages: int = 0
    window_from: list[str] = field(default_factory=list)
    window_to: list[str] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    """Classes of the failures."""
    trying: int = 0
    """Accounts that failed and are tried again in this run."""


class FeedReader:
    """One stream of one account, for one slice."""

    def __init__(
        self,
        context: Context,
        client: MidClient,
        account: str,
        stream: Stream,
        seconds: float,
        most_pages: int,
        wait: float,
        tally: Tally,
    ) -> None:
        self._context = context
        self._client = client
        self._account = account
        self._stream = stream
        self._deadline = context.clock.boot_seconds() + seconds
        self._started = context.clock.boot_seconds()
        self._most_pages = most_pages
        self._pages = 0
        self._wait = wait
        self._tally = tally
        self._lanes = self._open()
        self._ahead = ReadAhead(client.feed_logs if stream == "logs" else client.feed_deliveries, context.clock)
        self._recent_at = 0.0  # boot time from which the recent lane is due
        self._asked_at = 0.0  # boot time at which the last page was asked for
        self._failed = 0
        self._rewinds = 0
        self._pulled_to: datetime | None = None  # up to here all was pulled of the mid before it was restored
        self._generation: str | None = None  # of the mid, as its last page said
        self._skew_said = False
        self._behind_at_start: int | None = None
        self._behind = 0

    def run(self) -> None:
        """Read pages until there is nothing more, or the slice is over."""
        with self._ahead:
            self._run()

    def _run(self) -> None:
        self._tally.window_from.append(show(self._lanes.backlog.reached_at))
        more, activity, answered, asked = True, "idle", False, 0.0
        while self._pages < self._most_pages and self._context.clock.boot_seconds() < self._deadline:
            self._context.beat()
            # Looked at before the page: once nothing runs, one more page is asked for, which holds the last results.
            looked = self._context.clock.boot_seconds()
            activity = activity_of(self._context, self._account)
            lane = self._next_lane()
            waits = lane.is_backlog and not more and activity == "busy"
            if waits:
                time.sleep(max(0.0, asked + GATHER_SECONDS - self._context.clock.boot_seconds()))
            asked = self._context.clock.boot_seconds()
            page = self._page(lane, self._wait if waits else 0.0)
            if page is None:
                continue
            answered = True
            if not lane.is_backlog:
                self._recent_at = 0.0 if page.head.more else self._context.clock.boot_seconds() + RECENT_EVERY_SECONDS
                continue
            # A page that was asked for ahead, before the look, may lack what came between the two.
            more = page.head.more or self._asked_at < looked
            self._note_lag(page)
            if not more and self._lanes.recent is not None:
                self._recent_at = 0.0  # both lanes are at the end: one look at the recent one lets them meet
            if not more and self._lanes.recent is None and activity != "busy":
                break
        if answered:
            with self._context.database.transaction() as conn:
                accounts.answered(conn, self._account, self._generation)
        self._end(more=more or self._lanes.recent is not None, activity=activity)

    def _end(self, *, more: bool, activity: str) -> None:
        backlog = self._lanes.backlog
        self._tally.window_to.append(show(backlog.reached_at))
        if more:
            self._tally.pauses.append(0.0)
            self._context.say(
                "info", f"{backlog.option} at {backlog.shown}: {self._behind} batches to go, {self._eta()}"
            )
        elif activity != "idle":
            self._tally.pauses.append(0.0 if activity == "busy" else slow_period(self._context, self._account))

    def _eta(self) -> str:
        seconds = self._context.clock.boot_seconds() - self._started
        if not self._behind_at_start or self._behind >= self._behind_at_start:
            return "no estimate yet"
        rate = (self._behind_at_start - self._behind) / max(seconds, 0.001)
        left = self._behind / rate
        return f"about {left:.0f} s left" if left < 120 else f"about {left / 60:.0f} min left"

    def _note_lag(self, page: LogPage | DeliveryPage) -> None:
        self._behind = max(0, page.head.head_seq - page.head.seq)
        if self._behind_at_start is None:
            self._behind_at_start = self._behind

    def _open(self) -> Lanes:
        context = self._context
        with context.database.transaction() as conn:
            return pointers.open_lanes(conn, self._account, self._stream, context.clock.now(), context.say)

    def _next_lane(self) -> Lane:
        recent = self._lanes.recent
        return recent if recent and self._context.clock.boot_seconds() >= self._recent_at else self._lanes.backlog

    def _page(self, lane: Lane, wait: float) -> LogPage | DeliveryPage | None:
        """Ask for one page and keep it; None when it has to be asked again."""
        try:
            since = None if lane.cursor else lane.reached_at
            asked = self._ahead.take(lane.cursor) or self._ahead.ask(
                after=lane.cursor, since=since, limit=self._window(lane).rows, wait=wait, held=self._held(lane)
            )
            answer, self._asked_at = asked.answer, asked.at
            if isinstance(answer, Rewound):
                self._rewound(lane, answer)
                return None
            if isinstance(answer, GoneBefore):
                self._gone_before(lane, answer)
                return None
            if answer.head.more and self._pages + 1 < self._most_pages:
                self._ahead.begin(answer.head.cursor, self._window(lane).rows, held=self._held(lane))
            self._keep(lane, answer, 0.0 if wait else asked.seconds)
        except (LinkFailure, StatementTimeout) as exc:
            self._shrink(lane, exc)
            return None
        except MovedByHand:
            self._context.say("warning", f"{lane.option} was moved while a page was on its way: the page was not kept")
            self._lanes = self._open()
            return None
        self._failed = 0
        self._pages += 1
        self._tally.pages += 1
        self._generation = answer.head.generation
        self._compare_clocks(answer)
        return answer

    def _window(self, lane: Lane) -> Window:
        return lane.window.at_most(MOST_ROWS[self._stream])

    def _held(self, lane: Lane) -> str:
        """Return the cursor before which everything is durable here: the backlog's whichever lane asks.

        What only the recent lane has passed is not all here, and the mid forgets what is acknowledged.
        """
        return lane.cursor if lane.is_backlog else self._lanes.backlog.cursor

    def _keep(self, lane: Lane, page: LogPage | DeliveryPage, seconds: float) -> None:
        """Write rows, totals, pointer and option in one transaction; raises MovedByHand."""
        with self._context.database.transaction() as conn:
            pointers.lock(conn, self._account, self._stream)
            written = self._write(conn, page)
            moved = pointers.advance(conn, lane, page.head)
            if moved is None:
                raise MovedByHand
            if page.head.rows:
                moved = pointers.keep_window(conn, moved, self._window(moved).after_success(seconds))
            lanes = Lanes(moved, self._lanes.recent) if lane.is_backlog else Lanes(self._lanes.backlog, moved)
            lanes = pointers.merge(conn, lanes, self._context.say)
        self._lanes = lanes
        self._tally.read += written.read
        self._tally.written += written.written
        self._tally.refused += written.refused

    def _write(self, conn: Connection, page: LogPage | DeliveryPage) -> pages.Written:
        if self._stream == "logs":
            return pages.take_logs(conn, self._account, cast("list[LogRow]", page.rows))
        rows = cast("list[DeliveryRow]", page.rows)
        written = pages.take_deliveries(conn, self._account, rows, page.head.now)
        samples.keep(conn, self._account, [row.id for row in rows])
        return written

    def _shrink(self, lane: Lane, exc: LinkFailure | StatementTimeout) -> None:
        """Halve the window after a failed page and remember it; raise where smaller pages do not help."""
        self._failed += 1
        smaller = self._window(lane).after_failure()
        too_much = isinstance(exc, StatementTimeout) or (exc.reached and exc.status != 429)
        hopeful = too_much and not lane.window.is_smallest and self._failed <= HALVINGS
        with self._context.database.transaction() as conn:
            attempt = link_journal.next_attempt(conn, self._account, METHODS[self._stream])
            if too_much:
                pointers.keep_window(conn, lane, smaller)
        if hopeful:
            following = link_journal.in_seconds(0.0, smaller.rows)
        else:
            retry_after = exc.retry_after_seconds if isinstance(exc, LinkFailure) else None
            following = link_journal.in_seconds(
                pause_seconds(attempt, retry_after, 0.0), smaller.rows if too_much else None
            )
        call = Call(self._account, METHODS[self._stream], f"of {self._account}")
        link_journal.record(self._context, call, exc, attempt, following)
        if not hopeful:
            raise exc
        self._lanes = self._open()

    def _rewound(self, lane: Lane, answer: Rewound) -> None:
        """Start again at the oldest result kept: the mid was restored or cloned, or the cursor is beyond its end."""
        self._count_refusal(answer.generation)
        self._pulled_to = self._lanes.backlog.reached_at
        with self._context.database.transaction() as conn:
            gaps.record_rewound(conn, self._account, self._stream, self._context.clock.now())
            moved = pointers.rewind(conn, lane)
            accounts.answered(conn, self._account, answer.generation)
        self._context.say(
            "warning",
            f"{moved.option}: the mid was restored or cloned (generation {answer.generation}, batches {answer.oldest_seq} "
            f"to {answer.head_seq}): what it holds since {moved.shown} is read again; what is known here is not changed by it",
        )
        self._lanes = self._open()

    def _gone_before(self, lane: Lane, answer: GoneBefore) -> None:
        """Go on with what the mid keeps, and note in the same transaction what may be lost before it.

        Nothing is, where a restored mid is read again and all that it forgot was pulled before.
        """
        self._count_refusal(answer.generation)
        now, before = self._context.clock.now(), answer.gone_before
        head = FeedHead(
            generation=answer.generation, cursor=answer.cursor, rows=0, more=True, reached_at=before, now=now,
            seq=answer.seq, head_seq=answer.seq,
        )  # fmt: skip
        with self._context.database.transaction() as conn:
            pointers.lock(conn, self._account, self._stream)
            if pointers.advance(conn, lane, head) is None:
                raise MovedByHand
            was_pulled = self._pulled_to is not None and before <= self._pulled_to
            noted = None if was_pulled else losses.note(conn, self._account, self._stream, before, now)
        self._context.say(
            "warning" if noted and noted.deliveries else "info",
            f"{lane.option} stood at {show(lane.reached_at)}: the mid keeps no results from before {show(before)}; "
            f"{noted or 'what it had from before was pulled'}",
        )
        self._lanes = self._open()

    def _count_refusal(self, generation: str) -> None:
        """Raise Failed where a mid refuses the cursors it gave."""
        self._rewinds += 1
        if self._rewinds > REWINDS:
            raise Failed(
                f"the mid of {self._account} refuses its own cursors (generation {generation})",
                "check that one mid answers at this address, and see its log",
            )

    def _compare_clocks(self, page: LogPage | DeliveryPage) -> None:
        skew = self._client.skew_seconds(page.head.now)
        if abs(skew) > MAX_SKEW_SECONDS and not self._skew_said:
            self._skew_said = True
            self._context.say("warning", accounts.skew_sentence(skew))
