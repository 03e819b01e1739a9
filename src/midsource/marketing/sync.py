"""Pull a feed of every mid into the marketing tables: counters (`deliveries`) or outcomes (`logs`).

Order of events, for each active external account by itself: open the lanes (options and pointers, marketing/pointers.py)
→ the recent lane up to its end, then backlog pages, looking at the recent lane again every ten seconds (feed_reader.py).

Bounds: a slice is at most 100 pages and 50 seconds; each account has its share; a page at most 10 000 rows. What is left
is the next slice's. The truth is the pointer, not the engine's checkpoint.

Failures: an account fails by itself, and waits by itself: it is not called before its pause is over, however many slices
the others take. A mid that cannot be reached is tried five times, one that refuses once; then the run fails with the
sentences of all failed accounts, or, where a delivery under way keeps it going, its workflow is marked failed with them.
*Rewound* (the mid was restored) reads again from the oldest result kept; harmless, because rows only go forward. *Gone before
T* (the pointer stood before what the mid keeps) goes on at T, and what may be lost is noted, a row a delivery (marketing/losses.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from midsource.engine import circuit
from midsource.engine.work import Cancelled, Context, Report, run_began
from midsource.marketing import accounts, failed_tries, link_journal
from midsource.marketing.activity import activity_of
from midsource.marketing.failed_tries import FailedTry, Step
from midsource.marketing.feed_reader import METHODS, FeedReader, Stream, Tally
from midsource.marketing.link_journal import Call
from midsource.model.errors import Bug, MidsourceError, RemoteUnavailable, first_line
from midsource.policy.parts import MAX_SECONDS, pause_seconds
from midsource.store.database import Connection

SLICE_SECONDS = 50.0
"""Below the engine's 60 s, so that the last page's own time fits in."""
LEAST_SECONDS = 5.0
"""Each account gets at least this much of a slice, however many there are before it."""
WAIT_SECONDS = 10.0
"""Long-poll at a mid while one of its deliveries runs; stopping a worker waits no longer than this."""
MAX_PAGES = 100
"""Pages of a slice (design 3), shared by the accounts."""
LEAST_PAGES = 5
"""Each account gets at least so many: one with years of small pages must not use up the slices of the others."""
SHORT_WAIT_SECONDS = 2.0
"""The same where several accounts have running deliveries: they take turns."""
TRIES = 5
"""Failed calls in a row before the run is marked failed: with doubling pauses about 15 s."""


def pull(context: Context, stream: Stream, only: Sequence[str] = ()) -> Report:
    """Do one slice for every active external account, or for those named in ``only``. Raises Failed naming the accounts that could not be read,
    what all of them wait for where that is one thing: RemoteUnavailable where no mid of them answered.
    """
    began = run_began(context)
    with context.database.connection() as conn:
        names = [
            account.name
            for account in accounts.list_accounts(conn)
            if account.active and (not only or account.name in only)
        ]
        resting = _resting(conn, stream, names, began)
    asked = [name for name in names if name not in resting]
    busy = [name for name in asked if activity_of(context, name) == "busy"]
    tally = Tally()
    for failed in resting.values():
        _rest(failed, tally)
    end = context.clock.boot_seconds() + SLICE_SECONDS
    for number, name in enumerate(asked):
        left = (end - context.clock.boot_seconds()) / (len(asked) - number)
        pages = (MAX_PAGES - tally.pages) // (len(asked) - number)
        wait = WAIT_SECONDS if len(busy) <= 1 else SHORT_WAIT_SECONDS
        share = _Share(max(LEAST_SECONDS, left), max(LEAST_PAGES, pages), wait)
        _pull_alone(context, name, stream, share, tally)
    more = min(tally.pauses) if tally.pauses else None
    failure = _failure(tally, len(names))
    if failure and more is None:
        raise failure
    return Report(
        rows_read=tally.read,
        rows_written=tally.written,
        rows_refused=tally.refused,
        window_from=min(tally.window_from, default=""),
        window_to=min(tally.window_to, default=""),
        more_after_seconds=more,
        failing=str(failure) if failure else "" if tally.pauses and not tally.trying else None,
    )


def _failure(tally: Tally, total: int) -> MidsourceError | None:
    """Return what the run fails with, or goes on with as failing; None where every account was read or is tried again."""
    if not tally.failures:
        return None
    return circuit.common(tally.kinds)(
        f"{len(tally.failures)} of {total} external accounts could not be read: " + "; ".join(tally.failures),
        "see `midsource account test`, and the lines above in the journal",
    )


@dataclass(frozen=True, slots=True)
class _Share:
    """What one account may use of a slice, and how long it may wait at its mid."""

    seconds: float
    pages: int
    wait_seconds: float


def _pull_alone(context: Context, name: str, stream: Stream, share: _Share, tally: Tally) -> None:
    """Read one account; whatever goes wrong stays with it (invariant 9)."""
    try:
        with accounts.open_client(context.database, context.home, name, context.clock) as client:
            FeedReader(context, client, name, stream, share.seconds, share.pages, share.wait_seconds, tally).run()
        with context.database.connection() as conn:
            failed_tries.forget(conn, Step(stream), name)
    except Cancelled:
        raise
    except RemoteUnavailable as exc:
        _rest(_note(context, name, stream, exc), tally)
    except MidsourceError as exc:
        _tell(context, name, stream, exc)
        _rest(_note(context, name, stream, exc), tally)
    except Exception as exc:  # noqa: BLE001 - a bug met with one mid's data must not stop the other mids
        bug = Bug(first_line(exc)[:500], "please report it with the journal")
        _tell(context, name, stream, bug)
        _rest(_note(context, name, stream, bug), tally)


def _tell(context: Context, name: str, stream: Stream, exc: MidsourceError) -> None:
    link_journal.record(context, Call(name, METHODS[stream], f"of {name}"), exc, 1, exc.remedy)


def _resting(conn: Connection, stream: Stream, names: Sequence[str], began: datetime) -> dict[str, FailedTry]:
    """Return the accounts that failed in this run and whose pause is not over: they are not called."""
    found = failed_tries.since(conn, Step(stream), began)
    return {each.account: each for each in found if each.account in names and (each.rests_seconds or 0.0) > 0.0}


def _note(context: Context, name: str, stream: Stream, exc: MidsourceError) -> FailedTry:
    """Note a failure and its pause: doubling while there are tries left, then a minute, or as long as the mid asked."""
    retry_after = exc.retry_after_seconds if isinstance(exc, RemoteUnavailable) else None
    with context.database.transaction() as conn:
        tries = max(1, link_journal.next_attempt(conn, name, METHODS[stream]) - 1)
        is_over = not isinstance(exc, RemoteUnavailable) or tries >= TRIES
        pause = max(MAX_SECONDS, retry_after or 0.0) if is_over else pause_seconds(tries, retry_after, 0.0)
        return failed_tries.note(conn, Step(stream), name, exc, rests_seconds=pause, is_over=is_over)


def _rest(failed: FailedTry, tally: Tally) -> None:
    """Let an account wait: for its next try in this run, or, out of tries, as one of the failures of the run."""
    if not failed.is_over:
        tally.trying += 1
        tally.pauses.append(failed.rests_seconds or 0.0)
        return
    tally.kinds.append(failed.kind)
    tally.failures.append(f"{failed.account}: {failed.cause}")
