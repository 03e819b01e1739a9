"""Checks of a mid's sending: deliveries stuck, leases, batches that wait, journals, outcomes set aside, transport, keys."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType

from midsource.doctor.check import MID, Check
from midsource.doctor.facts import Facts
from midsource.mid import replay
from midsource.mid.aside import FIRST_WAIT_SECONDS
from midsource.model.delivery import DeliveryState as S
from midsource.model.finding import Seen, Severity, age
from midsource.model.ids import first_of_last_month
from midsource.store.database import Connection

SHOWN = 50
SLOW = timedelta(minutes=20)
"""Longer than one message may take at a server that uses up its time: RCPT 5 minutes, DATA 2, body 10 (net/timeouts.py); and longer
than a lost machine's leases are left alone."""
PATIENCE: Mapping[S, timedelta] = MappingProxyType({
    S.MESSAGE_FINALISED: timedelta(hours=6),
    S.START_PENDING: SLOW,
    S.PAUSE_REQUESTED: SLOW,
    S.PAUSING: SLOW,
})  # fmt: skip
"""*Message finalised* on a mid: parts arrive, and finalise does not."""
EXPIRED_FOR = timedelta(minutes=5)
"""A lease past its end is looked at every 10 s; a lost machine's is judged after 120 s and one lease (mid/recovery.py)."""
READY_FOR = timedelta(minutes=30)
"""A batch may wait long for its turn; half an hour without any lease of its delivery or destination, or outcome of its delivery, is not that."""
HELD_FOR = timedelta(hours=3, minutes=30)
"""More than three periods of the marketing side's `reconcile`, which releases what is held, and a run."""
_WAITING = """
with lately as materialized (
    select distinct account_id, unnest(deliveries) as id from feed_batch
    where rows > 0 and id > coalesce((select id from feed_batch where created_at < %(before)s order by id desc limit 1), 0)
), waiting as (
    select b.destination, greatest(b.ready_at, d.state_at) as since from dispatch_batch b
    join delivery d on d.account_id = b.account_id and d.id = b.delivery_id and d.state in (51, 55, 62)
    where b.owner is null and b.ready_at < %(before)s and d.state_at < %(before)s
        and not exists (select from account_hold h where h.account_id = d.account_id)
        and not exists (select from dispatch_batch l where l.owner is not null
            and (l.destination = b.destination or (l.account_id = b.account_id and l.delivery_id = b.delivery_id)))
        and not exists (select from lately y where y.account_id = d.account_id and y.id = d.id)
)
select count(*), min(since), count(distinct destination), (array_agg(distinct destination))[1:3] from waiting
"""
"""A batch counts from the later of the time it was due and the last move of its delivery: a pause moves no batch."""
ORPHAN_FOR = timedelta(minutes=2)
"""The next mta process on the machine replays a journal within 10 s."""
OVER_VALIDITY = timedelta(minutes=30)
_CAUSES: Mapping[S, str] = MappingProxyType({
    S.MESSAGE_FINALISED: "Its parts came, its finalise did not: the marketing side stopped the hand-over.",
    S.START_PENDING: "No mta process takes its messages.",
    S.PAUSE_REQUESTED: "A process has some of its messages in hand and stands still, or is gone and nobody judges what it left.",
    S.PAUSING: "A process has some of its messages in hand and stands still, or is gone and nobody judges what it left.",
})  # fmt: skip


def stuck(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Deliveries of a mid that stay longer than they may: 6 hours without finalise, 20 minutes pausing or start pending while nothing is leased, half an hour past their validity."""
    for number, account, state, since, valid_until, batches, leased in conn.execute(
        "select d.id, a.name, d.state, d.state_at, d.valid_until, (select count(*) from (select 1 from dispatch_batch b "
        "where b.account_id = d.account_id and b.delivery_id = d.id limit 100) x), exists (select from dispatch_batch b "
        "where b.account_id = d.account_id and b.delivery_id = d.id and b.owner is not null) "
        "from delivery d join account a on a.id = d.account_id where d.finished_at is null and d.state = any(%s) and (d.state not in (51, 55, 62) "
        "or not exists (select from account_hold h where h.account_id = d.account_id)) order by 1 limit %s",
        ([*map(int, PATIENCE), int(S.IN_PROGRESS), int(S.RETRY)], 20 * SHOWN),
    ).fetchall():
        about = f"Delivery {number} of {account}"
        late = S(state) in PATIENCE and now - since > PATIENCE[S(state)]
        if late and not (S(state) is S.START_PENDING and leased):
            finalise = S(state) is S.MESSAGE_FINALISED
            yield Seen(
                Severity.INFO if finalise else Severity.ERROR,
                evidence=f"{about} has been {S(state).label} for {age(now - since)}; {batches} dispatch batches wait.",
                cause=_CAUSES[S(state)],
                remedy=f"On the marketing side: `midsource delivery show {number}`." if finalise else "`midsource ps`: an mta process must live.",
                subject=f"{account} {number}",
            )  # fmt: skip
        elif valid_until is not None and now - valid_until > OVER_VALIDITY:
            yield Seen(
                Severity.WARNING,
                evidence=f"{about} is past its validity since {age(now - valid_until)} and is still {S(state).label}; {batches} batches wait.",
                cause="Messages past their validity are cancelled when their turn comes; nobody gives them one, or some are uncertain and held.",
                remedy="`midsource ps`: an mta process must live. Uncertain messages are named by `midsource delivery explain` on the marketing side.",
                subject=f"{account} {number}",
            )


def leases(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Leases of dispatch batches that ended five minutes ago and were taken back by nobody."""
    rows = conn.execute(
        "select owner, count(*), min(expires_at), sum(cardinality(ids)) from dispatch_batch where expires_at < clock_timestamp() - %s "
        "group by 1 order by 3 limit %s",
        (EXPIRED_FOR, SHOWN),
    ).fetchall()
    for owner, count, oldest, messages in rows:
        yield Seen(
            Severity.ERROR,
            evidence=f"{count} leases of {owner} ended {age(now - oldest)} ago; {messages} messages are in them.",
            cause="Its process or machine is gone, and no other mta process lives to judge what it had begun.",
            remedy="Start one: `midsource start mta@NAME`. On the machine that was lost its own journal knows best what was sent.",
            subject=str(owner),
            healable=True,
        )


def waiting(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Dispatch batches that could be sent for half an hour while nothing of their delivery is taken; accounts held for longer than reconcile takes."""
    row = conn.execute(_WAITING, {"before": now - READY_FOR}).fetchone()
    if row is not None and row[0]:
        yield Seen(
            Severity.ERROR,
            evidence=f"Batches that are due since {age(now - row[1])}: {row[0]}, at {row[2]} destinations ({', '.join(row[3])} …); nothing of their deliveries was taken since.",
            cause="No mta process lives, or those destinations take no connections and rest.",
            remedy="`midsource ps`; `midsource logs mta@NAME --grep` the destination says what it answers.",
        )  # fmt: skip
    for account, since in conn.execute(
        "select a.name, h.since from account_hold h join account a on a.id = h.account_id where h.since < %s order by 1 limit %s",
        (now - HELD_FOR, SHOWN),
    ).fetchall():
        yield Seen(
            Severity.WARNING,
            evidence=f"Nothing of {account} is sent for {age(now - since)}: this mid was restored, and waits to be told what it sent since its backup.",
            cause="The workflow `reconcile` of its marketing instance tells it and lets it go on; it does not run, or does not reach this mid.",
            remedy=f"On the marketing side: `midsource workflow run-now reconcile`. Without it: `midsource account release {account} --role mid`.",
            subject=account,
        )


def journals(conn: Connection, facts: Facts, now: datetime) -> Iterator[Seen]:  # noqa: ARG001 - files, and the age of files
    """Journals of mta processes on this machine that no living process holds, two minutes after their last write."""
    found = []
    for folder in replay.folders(facts.journals):
        try:
            still = time.time() - max(
                (file.stat().st_mtime for file in folder.glob("*.log")), default=folder.stat().st_mtime
            )
            size = sum(file.stat().st_size for file in folder.glob("*.log"))
        except OSError:  # settled and removed meanwhile
            continue
        if still > ORPHAN_FOR.total_seconds() and not replay.held_by_the_living(folder):
            found.append((folder.name, still, size))
    for name, still, size in found[:SHOWN]:
        yield Seen(
            Severity.ERROR,
            evidence=f"The journal of {name} ({size} bytes) was last written {age(timedelta(seconds=still))} ago and nobody holds it.",
            cause="Its process is gone and no mta process of this machine has replayed it: what it sent is not recorded yet.",
            remedy=f"`midsource start mta@{facts.instance.name}` replays it within 10 s, or `midsource doctor --heal --only journal.pending`.",
            subject=name,
            healable=True,
        )  # fmt: skip


def aside(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Outcomes that the database refused and that are kept apart, tried again and again."""
    row = conn.execute(
        "select count(*), max(tries), (array_agg(why order by number desc))[1], min(delivery_id), min(try_at) from outcome_aside"
    ).fetchone()
    if row is None or not row[0]:
        return
    overdue = now - row[4] > timedelta(seconds=10 * FIRST_WAIT_SECONDS)
    yield Seen(
        Severity.ERROR if overdue else Severity.WARNING,
        evidence=f"{row[0]} outcomes are set aside, tried up to {row[1]} times; the first is of delivery {row[3]}.",
        cause=f"The database refuses them ({row[2]}).",
        remedy="What was sent is known and kept. Mend what it names (a missing partition, a full disk); they are tried again by themselves.",
    )


def transport(conn: Connection, facts: Facts, now: datetime) -> Iterator[Seen]:
    """A mid whose transport is the sandbox while it is given mail to domains of the real world."""
    if facts.instance.transport != "sandbox":
        return
    row = conn.execute(
        "select count(distinct domain), (array_agg(distinct domain))[1:3] from message_total where delivery_id >= %s "
        "and domain !~ '(^|\\.)(test|example|invalid|localhost)$' and domain !~ '(^|\\.)example\\.(com|net|org)$'",
        (first_of_last_month(now),),
    ).fetchone()
    if row is not None and row[0]:
        yield Seen(
            Severity.INFO,
            evidence=f"This mid sends into the sandbox, and has mail for {row[0]} real domains ({', '.join(row[1])} …).",
            cause="instances.NAME.transport is sandbox, as it is until somebody says otherwise. Nobody outside gets anything.",
            remedy=f"When it is meant to send: set transport to smarthost or mx in midsource.toml, and restart mta@{facts.instance.name}.",
        )


def dkim(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Sender domains of the last two months' deliveries without a DKIM key."""
    rows = conn.execute(
        "select split_part(d.spec ->> 'from_address', '@', 2) as domain, count(*) from delivery d where d.id >= %s group by 1 "
        "having not exists (select from dkim_key k where k.domain = lower(split_part(min(d.spec ->> 'from_address'), '@', 2))) order by 2 desc limit %s",
        (first_of_last_month(now), SHOWN),
    ).fetchall()
    for domain, count in rows:
        yield Seen(
            Severity.INFO,
            evidence=f"{count} deliveries are from {domain}, which has no DKIM key here.",
            cause="Their mail goes out without a signature; large providers reject or file it as spam.",
            remedy="See *Going live* in the operator guide: make a key, publish its record, store it on the mid.",
            subject=str(domain),
        )


CHECKS = (
    Check("sending.stuck", stuck, MID, Severity.ERROR, ("F13", "F78", "F91"), "See that mta processes live."),
    Check("lease.expired", leases, MID, Severity.ERROR, ("F91", "F104"), "Start an mta process; it takes them back."),
    Check("sending.waiting", waiting, MID, Severity.ERROR, ("F78", "F79", "F80"), "See that mta processes live; read what the destination answers."),
    Check("journal.pending", journals, MID, Severity.ERROR, ("F91", "F104"), "Start an mta process on this machine; it replays them."),
    Check("outcome.aside", aside, MID, Severity.ERROR, ("F17", "F52", "F105"), "Mend what the database names."),
    Check("sending.sandbox", transport, MID, Severity.INFO, ("F78",), "Change the transport when it is meant to send."),
    Check("sending.unsigned", dkim, MID, Severity.INFO, ("F74", "F96"), "Store a DKIM key for the domain."),
)  # fmt: skip
