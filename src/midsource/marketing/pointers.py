"""Where each lane of each feed stands, and the option that shows it: rules of design 5, "Options and pointers".

A pointer has two lanes. The *backlog* lane is what the option shows: a time with its zone. The *recent* lane exists while
the backlog is more than 48 hours behind; it began 48 hours before the present, so today's results never wait behind 2020.
When the backlog arrives where the recent lane began, it takes over that lane's position, and the lane ends.

Order of events in a run: ``open_lanes`` reads the option (a text that differs from what the pointer last showed was
written by hand, and wins), repairs what is broken, says so in the journal; each page then calls ``advance`` inside the
transaction that writes its rows. ``advance`` answers False when somebody moved the pointer or its option meanwhile: the
caller rolls back and opens again. Nothing here moves a pointer backwards by itself.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from midsource.marketing import gaps
from midsource.marketing.standing import OPTION_OF, gap
from midsource.model.errors import NotFound
from midsource.policy.position import ACCEPTED, read_by_hand, show
from midsource.policy.window import Window
from midsource.store.database import Connection, scalar
from midsource.wire.schema import FeedHead

STREAMS = ("deliveries", "logs")
RECENT = timedelta(hours=48)
"""What is active in the last 48 hours comes first (design 6)."""
MARGIN = timedelta(hours=1)
"""A pointer made anew starts this much before the oldest delivery: the mid's clock may be behind ours."""

Say = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Lane:
    """The position of one lane. ``cursor`` '': the next page starts by time, at ``reached_at``."""

    account: str
    stream: str
    name: str  # backlog | recent
    cursor: str
    seq: int
    start_seq: int
    reached_at: datetime
    shown: str
    window: Window
    version: int

    @property
    def option(self) -> str:
        """Name of the option that shows this pointer."""
        return OPTION_OF[self.stream] + self.account

    @property
    def is_backlog(self) -> bool:
        """Whether this is the lane that the option shows."""
        return self.name == "backlog"


@dataclass(frozen=True, slots=True)
class Lanes:
    """Both lanes of one stream of one account."""

    backlog: Lane
    recent: Lane | None


_COLUMNS = "account, stream, lane, cursor, seq, start_seq, reached_at, shown, page_rows, page_ceiling, version"


def open_lanes(conn: Connection, account: str, stream: str, now: datetime, say: Say) -> Lanes:
    """Return the lanes of a stream, created, repaired and moved by hand as the option says; in the caller's transaction."""
    backlog = _read(conn, account, stream, "backlog")
    if backlog is None:
        backlog = _create(conn, account, stream, now, say)
    backlog = _follow_option(conn, backlog, now, say)
    recent = _read(conn, account, stream, "recent")
    if recent is None and backlog.reached_at < now - RECENT:
        recent = _begin_recent(conn, account, stream, now, say)
    return Lanes(backlog, recent)


def advance(conn: Connection, lane: Lane, head: FeedHead) -> Lane | None:
    """Move a lane to the end of a page, and its option with it; None when somebody moved either meanwhile."""
    reached = max(lane.reached_at, head.reached_at)  # the mid's clock may be behind a time set by hand
    shown = show(reached) if lane.is_backlog else ""
    begins = lane.cursor == "" and not lane.is_backlog
    row = conn.execute(
        f"""update pointer set cursor = %s, seq = %s, generation = %s, reached_at = %s, shown = %s, start_seq = %s,
                version = version + 1, moved_at = clock_timestamp()
            where account = %s and stream = %s and lane = %s and version = %s returning {_COLUMNS}""",  # noqa: S608 - constant
        (
            *(
                head.cursor,
                head.seq,
                uuid.UUID(head.generation),
                reached,
                shown,
                head.seq if begins else lane.start_seq,
            ),
            *(lane.account, lane.stream, lane.name, lane.version),
        ),
    ).fetchone()
    if row is None or (lane.is_backlog and not _write_option(conn, lane.option, shown, only_if=lane.shown)):
        return None
    return _lane(row)


def merge(conn: Connection, lanes: Lanes, say: Say) -> Lanes:
    """Let the backlog take over the recent lane's position once it has come to where that lane began."""
    backlog, recent = lanes.backlog, lanes.recent
    if recent is None or "" in (recent.cursor, backlog.cursor) or not recent.start_seq <= backlog.seq <= recent.seq:
        return lanes
    reached = max(backlog.reached_at, recent.reached_at)
    gone = conn.execute(
        "delete from pointer where account = %s and stream = %s and lane = 'recent' and version = %s",
        (recent.account, recent.stream, recent.version),
    ).rowcount
    row = conn.execute(
        f"""update pointer set cursor = %s, seq = %s, reached_at = %s, shown = %s, version = version + 1,
                moved_at = clock_timestamp()
            where account = %s and stream = %s and lane = 'backlog' and version = %s returning {_COLUMNS}""",  # noqa: S608 - constant
        (recent.cursor, recent.seq, reached, show(reached), backlog.account, backlog.stream, backlog.version),
    ).fetchone()
    if not gone or row is None or not _write_option(conn, backlog.option, show(reached), only_if=backlog.shown):
        raise MovedByHand
    say(
        "info",
        f"{backlog.option}: the backlog has met the last 48 hours at batch {backlog.seq}, now at {show(reached)}",
    )
    return Lanes(_lane(row), None)


class MovedByHand(Exception):
    """A pointer or its option changed while a page was on its way: roll back and open the lanes again."""


def move(conn: Connection, account: str, stream: str, moment: datetime) -> Lane:
    """Set the backlog lane to a time: the next page starts there. Moves the option too; in the caller's transaction."""
    row = conn.execute(
        f"""update pointer set cursor = '', seq = 0, generation = null, reached_at = %s, shown = %s,
                version = version + 1, moved_at = clock_timestamp()
            where account = %s and stream = %s and lane = 'backlog' returning {_COLUMNS}""",  # noqa: S608 - constant
        (moment, show(moment), account, stream),
    ).fetchone()
    if row is None:
        raise NotFound(f"there is no pointer of {stream} for {account!r}", "see `midsource account list`")
    lane = _lane(row)
    _write_option(conn, lane.option, lane.shown, only_if=None)
    return lane


def rewind(conn: Connection, lane: Lane) -> Lane:
    """Start a stream again at the oldest result the mid can hold, after it said *rewound* (restored, cloned)."""
    conn.execute(
        "delete from pointer where account = %s and stream = %s and lane = 'recent'", (lane.account, lane.stream)
    )
    return move(conn, lane.account, lane.stream, _oldest(conn, lane.account))


def keep_window(conn: Connection, lane: Lane, window: Window) -> Lane:
    """Remember the page size of a lane; not a move, so the version stays."""
    conn.execute(
        "update pointer set page_rows = %s, page_ceiling = %s where account = %s and stream = %s and lane = %s",
        (window.rows, window.ceiling, lane.account, lane.stream, lane.name),
    )
    return replace(lane, window=window)


def lock(conn: Connection, account: str, stream: str) -> None:
    """Let one writer at a time apply pages of a stream; held to the end of the transaction."""
    conn.execute("select 1 from pointer where account = %s and stream = %s order by lane for update", (account, stream))


def _create(conn: Connection, account: str, stream: str, now: datetime, say: Say) -> Lane:
    """Make a missing pointer at the oldest row not yet pulled (F31); an option that exists is followed afterwards."""
    start = min(_oldest(conn, account), now)
    conn.execute(
        "insert into pointer (account, stream, lane, reached_at, shown) values (%s, %s, 'backlog', %s, %s)",
        (account, stream, start, show(start)),
    )
    lane = _read(conn, account, stream, "backlog")
    assert lane is not None
    if scalar(conn, "select 1 from option where name = %s", (lane.option,)) is None:
        say("info", f"{lane.option} was missing: made at {lane.shown}, before the oldest result not yet pulled")
        _write_option(conn, lane.option, lane.shown, only_if=None)
    return lane


def _oldest(conn: Connection, account: str) -> datetime:
    """Return a moment before the oldest result of an account: its own creation or its oldest delivery's, less a margin."""
    oldest: datetime | None = scalar(
        conn,
        "select least(a.created_at, (select min(d.created_at) from delivery d where d.account = a.name)) "
        "from external_account a where a.name = %s",
        (account,),
    )
    if oldest is None:
        raise NotFound(f"there is no external account {account!r}", "see `midsource account list`")
    return oldest - MARGIN


def _follow_option(conn: Connection, lane: Lane, now: datetime, say: Say) -> Lane:
    """Take what was written into the option by hand, refuse or clamp what cannot be meant, and say so."""
    written = scalar(conn, "select value from option where name = %s", (lane.option,))
    if written is None:
        say("warning", f"{lane.option} was deleted: shown again at {lane.shown}")
        _write_option(conn, lane.option, lane.shown, only_if=None)
        return lane
    if written == lane.shown:
        return lane
    moment, remark = read_by_hand(written, now)
    if moment is None:
        say("warning", f"{lane.option}: {remark}; kept at {lane.shown}, {ACCEPTED}")
        _write_option(conn, lane.option, lane.shown, only_if=None)
        return lane
    if remark:
        say("warning", f"{lane.option}: {remark}")
    if moment > lane.reached_at:
        gaps.record(conn, lane.account, lane.stream, "set by hand", lane.reached_at, moment)
        say(
            "warning",
            f"{lane.option} was set by hand from {lane.shown} to {show(moment)}: {gap(conn, lane.account, lane.reached_at, moment)}",
        )
    else:
        say("info", f"{lane.option} was set by hand from {lane.shown} back to {show(moment)}: read again from there")
    return move(conn, lane.account, lane.stream, moment)


def _begin_recent(conn: Connection, account: str, stream: str, now: datetime, say: Say) -> Lane:
    conn.execute(
        "insert into pointer (account, stream, lane, reached_at) values (%s, %s, 'recent', %s)",
        (account, stream, now - RECENT),
    )
    say("info", f"{OPTION_OF[stream]}{account} is more than 48 h behind: the last 48 h come first, then the backlog")
    lane = _read(conn, account, stream, "recent")
    assert lane is not None
    return lane


def _read(conn: Connection, account: str, stream: str, name: str) -> Lane | None:
    row = conn.execute(
        f"select {_COLUMNS} from pointer where account = %s and stream = %s and lane = %s for update",  # noqa: S608 - constant
        (account, stream, name),
    ).fetchone()
    return None if row is None else _lane(row)


def _lane(row: tuple[object, ...]) -> Lane:
    account, stream, name, cursor, seq, start_seq, reached_at, shown, rows, ceiling, version = row
    return Lane(account, stream, name, cursor, seq, start_seq, reached_at, shown, Window(rows, ceiling), version)  # type: ignore[arg-type]


def _write_option(conn: Connection, name: str, value: str, *, only_if: str | None) -> bool:
    """Show ``value``; with ``only_if`` only where the option still says that, else False."""
    if only_if is None:
        conn.execute(
            "insert into option (name, value, modified_by) values (%s, %s, 'pointer') on conflict (name) do update "
            "set value = excluded.value, modified_at = clock_timestamp(), modified_by = 'pointer', version = option.version + 1",
            (name, value),
        )
        return True
    return (
        conn.execute(
            "update option set value = %s, modified_at = clock_timestamp(), modified_by = 'pointer', version = version + 1 "
            "where name = %s and value = %s",
            (value, name, only_if),
        ).rowcount
        == 1
    )
