"""Checks of the pointers of a marketing instance: late, standing still, not readable, missing, left over."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from midsource.doctor.check import MARKETING, Check
from midsource.doctor.facts import Facts
from midsource.marketing import standing
from midsource.marketing.standing import OPTION_OF, WORKFLOW_OF
from midsource.model.finding import Seen, Severity, age
from midsource.policy.position import read_by_hand
from midsource.store.database import Connection

PERIOD = {"deliveries": timedelta(minutes=10), "logs": timedelta(hours=1)}
"""How often each pointer moves at least where nothing is sent: the default schedules of its workflow."""
PERIODS = 3
"""So many without a move are not a long run or a restart."""
FAR_BEHIND = timedelta(days=1)
MOVING = timedelta(minutes=5)
"""A pointer that moved within this is at work, however far behind."""
DRIFT = timedelta(minutes=5)
"""A mid's clock may be ahead by seconds; a pointer further in the future was written by hand."""


def late(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """How far each pointer is behind: more than three periods of its workflow (30 min for counters, 3 h for logs); a day is an error. One that is being caught up, with the last 48 hours current, is for information."""
    made: dict[str, datetime] = dict(conn.execute("select name, created_at from external_account").fetchall())
    for found in _active(conn):
        lag = now - max(found.reached_at, made[found.account])  # a new account's pointer begins before its first result
        if lag <= PERIODS * PERIOD[found.stream] or now - found.moved_at > PERIODS * PERIOD[found.stream]:
            continue  # current, or standing still: the other check says that
        catching_up = found.recent_at is not None and now - found.recent_at < PERIODS * PERIOD[found.stream]
        severity = Severity.ERROR if lag > FAR_BEHIND else Severity.WARNING
        yield Seen(
            Severity.INFO if catching_up else severity,
            evidence=f"{found.option} stands {age(lag)} behind, at {found.reached_at:%Y-%m-%d %H:%M:%SZ}; it moved {age(now - found.moved_at)} ago.",
            cause="The backlog is worked off in small pages; the last 48 hours are read first and are current."
            if catching_up
            else "The mid has more results than are read, or it answers slowly; the workflow's journal says how many are to go.",
            remedy=f"Wait: `midsource workflow journal {WORKFLOW_OF[found.stream]}` shows the estimate. Setting the option forward leaves results out.",
            subject=found.option,
        )


def stuck(conn: Connection, facts: Facts, now: datetime) -> Iterator[Seen]:
    """Pointers of active accounts that have not moved for three periods of their workflow; even a look that finds nothing moves them."""
    for found in _active(conn):
        still = now - found.moved_at
        if still <= PERIODS * PERIOD[found.stream]:
            continue
        said = facts.mids.get(found.account)
        error = said.error if said is not None else None
        yield Seen(
            Severity.ERROR,
            evidence=f"{found.option} has not moved for {age(still)}; it stands at {found.reached_at:%Y-%m-%d %H:%M:%SZ}.",
            cause=f"The mid cannot be read: {error.cause}." if error is not None else f"{WORKFLOW_OF[found.stream]} does not run, or fails.",
            remedy=f"Mend the link: `midsource account test {found.account}`." if error is not None else f"`midsource workflow restart {WORKFLOW_OF[found.stream]}`.",
            subject=found.option,
            healable=error is None,
        )  # fmt: skip


def option(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """What the options of pointers say: deleted, unreadable, without a zone, or in the future."""
    rows = conn.execute(
        "select p.account, p.stream, p.shown, o.value, p.reached_at from pointer p join external_account a on a.name = p.account "
        "and a.active left join option o on o.name = case p.stream when 'deliveries' then %s else %s end || p.account "
        "where p.lane = 'backlog' order by 1, 2 limit %s",
        (OPTION_OF["deliveries"], OPTION_OF["logs"], standing.MAX_POSITIONS),
    ).fetchall()
    for account, stream, shown, value, reached_at in rows:
        name = OPTION_OF[stream] + account
        if value is None:
            problem = "it was deleted"
        elif value != shown:
            moment, remark = read_by_hand(value, now)
            problem = remark if moment is None or remark else ""
        else:
            problem = f"it lies {age(reached_at - now)} in the future" if reached_at > now + DRIFT else ""
        if problem:
            yield Seen(
                Severity.WARNING,
                evidence=f"{name} is {value!r}: {problem}."[:300],
                cause="Somebody wrote it by hand, behind the command that checks it.",
                remedy=f"`midsource option set {name} TIME`, with a zone as in 2026-03-01T12:00Z. Else the next run goes on from {shown}.",
                subject=name,
                healable=value != shown,
            )


def missing(conn: Connection, _facts: Facts, _now: datetime) -> Iterator[Seen]:
    """Active external accounts without a pointer, and options of pointers whose account does not exist."""
    rows = conn.execute(
        "select a.name, s.stream from external_account a cross join unnest(array['deliveries', 'logs']) s (stream) "
        "where a.active and not exists (select from pointer p where p.account = a.name and p.stream = s.stream and p.lane = 'backlog') "
        "order by 1, 2 limit 100"
    ).fetchall()
    for account, stream in rows:
        name = OPTION_OF[stream] + account
        yield Seen(
            Severity.ERROR,
            evidence=f"The account {account} has no pointer of its {stream}.",
            cause=f"Its row was deleted; {WORKFLOW_OF[stream]} makes it again when it next runs, before the oldest result not pulled.",
            remedy=f"`midsource doctor --heal --only pointer.missing`, or `midsource workflow run-now {WORKFLOW_OF[stream]}`.",
            subject=name,
            healable=True,
        )
    orphans = conn.execute(
        "select o.name, o.value from option o cross join unnest(%s::text[]) p (prefix) where starts_with(o.name, p.prefix) "
        "and not exists (select from external_account a where a.name = substr(o.name, length(p.prefix) + 1)) order by 1 limit 100",
        (list(OPTION_OF.values()),),
    ).fetchall()
    for name, value in orphans:
        yield Seen(
            Severity.INFO,
            evidence=f"{name} ({value}) belongs to no external account.",
            cause="The account was removed, or its internal name was changed in the table: pointers are named after it.",
            remedy="Nothing reads it. Delete the row, or add the account again under that name.",
            subject=name,
        )


def _active(conn: Connection) -> list[standing.Position]:
    active = {name for (name,) in conn.execute("select name from external_account where active").fetchall()}
    return [found for found in standing.positions(conn) if found.account in active]


CHECKS = (
    Check("pointer.late", late, MARKETING, Severity.ERROR, ("F30", "F33", "F42"), "Wait for the catch-up; look at the mid's speed."),
    Check("pointer.stuck", stuck, MARKETING, Severity.ERROR, ("F30", "F32", "F33"), "Mend the link or restart the workflow."),
    Check("pointer.option", option, MARKETING, Severity.WARNING, ("F30", "F31", "F48"), "Set the option to a time with its zone."),
    Check("pointer.missing", missing, MARKETING, Severity.ERROR, ("F11", "F31"), "Let the doctor make it again."),
)  # fmt: skip
