"""Checks of results that did not come back: gaps left out by hand, results a mid had dropped, differences that stay; and of cleanup's steps."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from midsource.doctor.check import BOTH, MARKETING, Check
from midsource.doctor.facts import Facts
from midsource.model.finding import Seen, Severity, age
from midsource.store.database import Connection

FILLED_WITHIN = timedelta(hours=3)
"""`reconcile` runs every hour and fills what was left out."""
DIFFERENCES_OF = timedelta(days=7)
FAILED_TIMES = 2
NOT_DONE_FOR = timedelta(days=3)
"""Cleanup runs every night; out of time once, a step goes on the next night."""
SHOWN = 50


def gaps(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Stretches of results that were left out, by an option set forward or a mid that was restored, and not filled by `reconcile` within three hours."""
    rows = conn.execute(
        "select account, stream, cause, min(from_at), max(to_at), min(noted_at), count(*) from pull_gap where filled_at is null "
        "group by 1, 2, 3 order by 6 limit %s",
        (SHOWN,),
    ).fetchall()
    for account, stream, cause, begin, end, noted, count in rows:
        waits = now - noted
        yield Seen(
            Severity.WARNING if waits > FILLED_WITHIN else Severity.INFO,
            evidence=f"{account}: {stream} of {begin:%Y-%m-%d %H:%MZ} to {end:%Y-%m-%d %H:%MZ} were left out ({cause}, {count} times), noted {age(waits)} ago.",
            cause="`reconcile` compares those deliveries with the mid and fills what is missing; it has not done so yet.",
            remedy="`midsource workflow run-now reconcile --wait`; its journal says what it could not fill.",
            subject=f"{account} {stream} {cause}",
        )


def lost(conn: Connection, _facts: Facts, _now: datetime) -> Iterator[Seen]:
    """Results that a mid had dropped before this side came to read them, and that `reconcile` has not mended."""
    rows = conn.execute(
        "select account, stream, count(*), sum(rows)::bigint, min(noticed_at), min(delivery_id) from feed_loss where mended_at is null "
        "group by 1, 2 order by 1, 2 limit %s",
        (SHOWN,),
    ).fetchall()
    for account, stream, deliveries, messages, noticed, first in rows:
        yield Seen(
            Severity.ERROR,
            evidence=f"{account}: {stream} of {deliveries} deliveries (first {first}) were dropped unread; up to {messages} messages may lack their result; noticed {noticed:%Y-%m-%d %H:%MZ}.",
            cause="The pointer stood behind what the mid keeps (NmsCleanup_UnpulledPurgeDelay).",
            remedy="`midsource workflow run-now reconcile`: the mid's ledger still knows what became of them, as long as it is kept.",
            subject=f"{account} {stream}",
        )


def differences(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Deliveries whose last comparison with the mid in a week found rows that nothing explains, or people whose row is gone."""
    rows = conn.execute(
        "select * from (select distinct on (delivery_id) delivery_id, account, finished_at, lost, unexplained from reconcile_report "
        "where finished_at > %s order by delivery_id, finished_at desc) r where lost > 0 or unexplained > 0 order by 3 desc limit %s",
        (now - DIFFERENCES_OF, SHOWN),
    ).fetchall()
    for number, account, at, gone, unexplained in rows:
        yield Seen(
            Severity.CRITICAL if gone else Severity.ERROR,
            evidence=f"Delivery {number} compared with {account} at {at:%Y-%m-%d %H:%MZ}: {gone} people without a row, {unexplained} rows that the mid does not know.",
            cause="Rows were deleted or changed by hand, or the mid was restored to before they were handed over.",
            remedy=f"`midsource delivery show {number}` and the report of `reconcile` name examples; nothing is sent again by itself.",
            subject=str(number),
        )


def cleaning(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Steps of `cleanup` that failed twice in a row, or did not come to their end for three days."""
    rows = conn.execute(
        "select name, failures, error, coalesce(last_success_at, began_at), outcome from cleanup_step "
        "where failures >= %s or coalesce(last_success_at, began_at) < %s order by 4 limit %s",
        (FAILED_TIMES, now - NOT_DONE_FOR, SHOWN),
    ).fetchall()
    for name, failures, error, success, outcome in rows:
        yield Seen(
            Severity.WARNING,
            evidence=f"The step {name} of cleanup was last done {age(now - success)} ago, {failures} failures in a row; it ended {outcome or 'not yet'}.",
            cause=error
            or "It has more to remove than its time allows, or cleanup does not run. The other steps go on.",
            remedy="`midsource cleanup --help` runs a step at once; `midsource workflow journal cleanup` says how far it came.",
            subject=name,
        )


CHECKS = (
    Check("results.gap", gaps, MARKETING, Severity.WARNING, ("F30", "F42", "F48"), "Let `reconcile` fill it."),
    Check("results.lost", lost, MARKETING, Severity.ERROR, ("F33", "F48"), "Let `reconcile` ask the mid's ledger."),
    Check("results.differ", differences, MARKETING, Severity.CRITICAL, ("F13", "F35", "F92"), "Read the report, and who changed the rows."),
    Check("cleanup.step", cleaning, BOTH, Severity.WARNING, ("F105", "F108", "F109"), "Read the error of the step; the others go on."),
)  # fmt: skip
