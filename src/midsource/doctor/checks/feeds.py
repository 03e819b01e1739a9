"""Checks of a mid's feed: what is not numbered, not folded, not asked for, not acknowledged."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from midsource.doctor.check import MID, Check
from midsource.doctor.facts import Facts
from midsource.mid import disk_budget
from midsource.mid.options import TABLE
from midsource.model.finding import Seen, Severity, age
from midsource.model.options import OUTCOME_DELAY, UNPULLED_DELAY
from midsource.store.database import Connection

UNNUMBERED_FOR = timedelta(minutes=10)
UNFOLDED_MANY = 20_000
"""Totals are read with what is not folded; 20 000 tallies make that slow, and a turn folds 500."""
UNASKED = {"deliveries": timedelta(minutes=40), "logs": timedelta(hours=3, minutes=30)}
"""More than three periods of the workflow that asks, and a run."""
UNACKNOWLEDGED_FOR = timedelta(days=3)
NEARLY_GONE = 0.75
"""Of the time that results are kept: two weeks before they go, by default."""
NEARLY_SPENT = 0.9
"""Of the disk budget: a tenth of it are days, where mail is sent at a steady pace."""


def unnumbered(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Feed batches that got no number for ten minutes: nobody asks for any feed."""
    row = conn.execute(
        "select count(*), min(created_at) from (select created_at from feed_batch where seq is null order by id limit 10000) x"
    ).fetchone()
    if row is not None and row[0] and now - row[1] > UNNUMBERED_FOR:
        yield Seen(
            Severity.WARNING,
            evidence=f"{row[0]} batches of results wait for a number, the oldest for {age(now - row[1])}.",
            cause="Whoever serves the feed gives numbers, and no marketing instance asks, or the web process does not live.",
            remedy="On the marketing side: `midsource account test`, `midsource workflow list`. Here: `midsource ps`.",
            healable=True,
        )


def unfolded(conn: Connection, _facts: Facts, _now: datetime) -> Iterator[Seen]:
    """More than 20 000 tallies that are not folded into the totals."""
    row = conn.execute("select count(*) from (select 1 from feed_batch where not folded limit 100000) x").fetchone()
    if row is not None and row[0] > UNFOLDED_MANY:
        yield Seen(
            Severity.WARNING,
            evidence=f"{row[0]} tallies are not folded into the totals.",
            cause="Folding goes with serving the feed, and nobody asks for it; every look at counters adds them up.",
            remedy="`midsource doctor --heal --only feed.unfolded` folds them.",
            healable=True,
        )


def unasked(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Active accounts that have asked before and have not asked for a feed for longer than three periods of its workflow, while results wait."""
    rows = conn.execute(
        "select a.name, k.stream, k.asked_at, (select count(*) from (select 1 from feed_batch b where b.account_id = a.id "
        "and (b.seq is null or b.seq > k.seq) limit 10000) x) from account a join feed_ack k on k.account_id = a.id where a.active order by 1, 2 limit 200"
    ).fetchall()
    for account, stream, asked, waiting in rows:
        silent = now - asked
        if waiting and silent > UNASKED[stream]:
            yield Seen(
                Severity.ERROR,
                evidence=f"{account} last asked for its {stream} {age(silent)} ago; {waiting} batches wait.",
                cause="Its technical workflow does not run, or its link to this mid is cut: its figures and log stand still.",
                remedy="On the marketing side: `midsource workflow list`, then `midsource account test`. Nothing is lost: unpulled results are kept.",
                subject=f"{account} {stream}",
            )


def unacknowledged(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Results that an account has not acknowledged for three days, with their size on disk and the day they go; of an account that is switched off that is all there is to know."""
    rows = conn.execute(
        "select a.name, a.active, (select min(b.created_at) from feed_batch b where b.account_id = a.id and (b.seq is null or b.seq > coalesce(k.seq, 0))) as oldest "
        "from account a left join feed_ack k on k.account_id = a.id and k.stream = 'logs' order by 1 limit 200"
    ).fetchall()
    kept = timedelta(seconds=max(TABLE.seconds(conn, option) for option in (UNPULLED_DELAY, OUTCOME_DELAY)))
    for account, active, oldest in rows:
        if oldest is None or now - oldest <= UNACKNOWLEDGED_FOR:
            continue
        held = _held(conn, oldest)
        goes = (oldest + kept).astimezone(UTC).date() + timedelta(days=1)  # whole days are dropped
        if active:
            yield Seen(
                Severity.ERROR if now - oldest > kept * NEARLY_GONE else Severity.WARNING,
                evidence=f"{account} has not acknowledged results of {age(now - oldest)} ago; the days since then take {held / 1e6:.0f} MB. They go from {goes} on.",
                cause="It does not read, reads slowly, or was removed without being switched off here.",
                remedy="On the marketing side: `midsource option list` shows where its pointer stands. An account that is gone: switch it off.",
                subject=account,
            )  # fmt: skip
        else:
            yield Seen(
                Severity.INFO,
                evidence=f"{account} is switched off and left results of {age(now - oldest)} ago; the days since then take {held / 1e6:.0f} MB.",
                cause="Nobody reads them, and results that nobody reads are kept for a while like any other's.",
                remedy=f"Nothing: `cleanup` drops them from {goes} on.",
                subject=account,
            )


def _held(conn: Connection, oldest: datetime) -> int:
    """Return the bytes of the days of results from ``oldest`` on."""
    row = conn.execute(
        "select coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint from pg_inherits i join pg_class c on c.oid = i.inhrelid "
        "where i.inhparent = 'outcome'::regclass and right(c.relname, 8) >= %s",
        (f"{oldest:%Y%m%d}",),
    ).fetchone()
    return int(row[0]) if row else 0


def budget(conn: Connection, _facts: Facts, _now: datetime) -> Iterator[Seen]:
    """The disk budget of this mid: nine tenths used, an error when it is spent and no new parts are taken."""
    found = disk_budget.read(conn)
    if found is None or found.share < NEARLY_SPENT:
        return
    spent = found.share >= 1
    yield Seen(
        Severity.ERROR if spent else Severity.WARNING,
        evidence=f"The database has {found.used / 1e9:.1f} GB of the {found.allowed / 1e9:.0f} GB it may have ({found.share:.0%}).",
        cause="New parts are refused (HTTP 507) so that results find room; what was taken is sent."
        if spent
        else "When it is spent, new parts are refused (HTTP 507) so that results find room.",
        remedy="`midsource cleanup --dry-run` on this mid says what may go; else raise NmsServer_DiskBudget.",
    )


CHECKS = (
    Check("feed.unnumbered", unnumbered, MID, Severity.WARNING, ("F32", "F33"), "See that the marketing side reads."),
    Check("feed.unfolded", unfolded, MID, Severity.WARNING, ("F131",), "Let the doctor fold them."),
    Check("feed.unasked", unasked, MID, Severity.ERROR, ("F31", "F32", "F33"), "Start the sync workflows on the marketing side."),
    Check("feed.unacknowledged", unacknowledged, MID, Severity.ERROR, ("F30", "F33"), "See that the marketing side reads; switch off what is gone."),
    Check("feed.budget", budget, MID, Severity.ERROR, ("F25", "F26"), "Clean up, or raise the budget."),
)  # fmt: skip
