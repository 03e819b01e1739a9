"""Checks of deliveries on a marketing instance: stuck in a state, parts not taken, orders unconfirmed, figures that do not move, sums."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from midsource.doctor.check import MARKETING, Check
from midsource.doctor.facts import Facts
from midsource.model.delivery import DeliveryState as S
from midsource.model.finding import Seen, Severity, age
from midsource.model.ids import first_of_last_month
from midsource.store.database import Connection

SHOWN = 50
UNTAKEN = timedelta(minutes=10)
"""Parts leave three at a time, a second or so each; one that waits this long fails, or nobody sends it."""
MANY_TRIES = 4
UNCONFIRMED = timedelta(minutes=10)
SILENT = timedelta(minutes=20)
"""Two periods of the counters' workflow."""
BEHIND = timedelta(minutes=90)
"""One hourly run of the logs' workflow, and half of another."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a delivery may stay in a state without anything about it changing, and what it is then."""

    most: timedelta
    cause: str
    remedy: str
    severity: Severity = Severity.ERROR


PATIENCE: Mapping[S, Patience] = MappingProxyType({
    S.TARGET_READY: Patience(timedelta(minutes=15), "Its preparation stopped after targeting.", "`midsource delivery prepare {id}` goes on."),
    S.PERSONALISATION: Patience(timedelta(minutes=30), "Its preparation does not go on: no worker, or a page of people that takes too long.", "`midsource ps`, then `midsource delivery prepare {id}`."),
    S.MESSAGE_FINALISED: Patience(timedelta(minutes=30), "Its parts are not taken by the mid, or the hand-over was not asked for again after a failure.", "`midsource delivery explain {id}`; the doctor asks for the hand-over again."),
    S.START_PENDING: Patience(timedelta(minutes=15), "The mid has taken the order and sends nothing of it: no mta process, or no turn at its destinations.", "On the mid: `midsource status`; `midsource delivery explain {id}`."),
    S.IN_PROGRESS: Patience(timedelta(hours=2), "Nothing of it was sent or answered: destinations rest, or the mid stands still.", "`midsource delivery explain {id}` says where its messages wait.", Severity.WARNING),
    S.RETRY: Patience(timedelta(hours=12), "Only retries are left and none came to an end.", "`midsource delivery explain {id}`; stop it where nothing more is expected.", Severity.WARNING),
    S.PAUSE_REQUESTED: Patience(timedelta(minutes=15), "The mid did not confirm that it pauses.", "`midsource account test` for its account."),
    S.PAUSING: Patience(timedelta(minutes=15), "What was under way when it was paused has no end.", "On the mid: `midsource ps`."),
    S.PAUSED: Patience(timedelta(days=3), "An operator paused it; its validity runs on.", "`midsource delivery resume {id}` or `stop {id}`.", Severity.WARNING),
})  # fmt: skip
"""Edited, ready and preparation failed wait for a person, as long as it takes; stopped, failed and finished are ends."""


def stuck(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Deliveries that stay in a state longer than that state may take, with nothing about them changing: 15 minutes for *target ready*, *start pending* and the pauses under way, 30 for *personalisation* and *message finalised*, 2 hours *in progress*, 12 hours *retry*, 3 days *paused*."""
    rows = conn.execute(
        "select d.id, d.label, d.state, greatest(d.modified_at, d.figures_at, (select max(j.beat_at) from job j where j.subject = d.id "
        "and j.finished_at is null), (select max(s.at) from delivery_sample s where s.delivery_id = d.id)) as moved "
        "from delivery d where d.state = any(%s) and d.modified_at < %s and (d.contact_at is null or d.contact_at < %s) "
        "and not (d.state = 55 and d.wave_period_seconds > 0) "
        "order by 4 limit %s",
        ([int(state) for state in PATIENCE], now - min(p.most for p in PATIENCE.values()), now, 10 * SHOWN),
    ).fetchall()
    for number, label, state, moved in rows:
        patience = PATIENCE[S(state)]
        if now - moved > patience.most:
            yield Seen(
                patience.severity,
                evidence=f"Delivery {number} ({label[:60]}) has been {S(state).label} for {age(now - moved)} without a change; {age(patience.most)} is the most.",
                cause=patience.cause,
                remedy=patience.remedy.format(id=number),
                subject=str(number),
                healable=S(state) in (S.TARGET_READY, S.PERSONALISATION, S.MESSAGE_FINALISED),
            )


def parts(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Stored parts that the mid has not acknowledged for ten minutes or after four tries, with what the link answered."""
    rows = conn.execute(
        "select p.delivery_id, count(*), max(p.attempts), min(p.stored_at), d.account, "
        "(select e.line from link_event e where e.delivery_id = p.delivery_id order by e.id desc limit 1) "
        "from upload_part p join delivery d on d.id = p.delivery_id and d.state = 25 where p.state = 'stored' and p.delivery_id >= %s "
        "group by p.delivery_id, d.account having max(p.attempts) >= %s or min(p.stored_at) < %s order by 4 limit %s",
        (first_of_last_month(now), MANY_TRIES, now - UNTAKEN, SHOWN),
    ).fetchall()
    for number, count, tries, oldest, account, line in rows:
        yield Seen(
            Severity.ERROR,
            evidence=f"Parts of delivery {number} that {account} has not taken: {count}; the oldest waits {age(now - oldest)}, tried up to {tries} times.",
            cause=line or "No call has failed: nobody is sending them.",
            remedy=f"`midsource account test {account}`; HTTP 408: `midsource maintenance status --role mid`. Parts stay stored and are sent again.",
            subject=str(number),
            healable=True,
        )


def orders(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Orders (start, pause, resume, stop) that the mid has not confirmed for ten minutes, of deliveries whose date has come."""
    rows = conn.execute(
        "select id, ordered, ordered_at, account, error from delivery where ordered is not null and order_confirmed_at is null "
        "and ordered_at < %(since)s and state not in (85, 87, 95) and (ordered <> 'start' or contact_at is null or contact_at < %(since)s) "
        "order by ordered_at limit %(limit)s",
        {"since": now - UNCONFIRMED, "limit": SHOWN},
    ).fetchall()
    for number, verb, at, account, error in rows:
        yield Seen(
            Severity.ERROR,
            evidence=f"The order to {verb} delivery {number} was given {age(now - at)} ago and is not confirmed by {account}.",
            cause=error or "The link to that mid does not work, or no worker carries the order.",
            remedy=f"`midsource account test {account}`; the order is carried on by itself once it answers.",
            subject=str(number),
            healable=True,
        )


def zero(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Indicators at zero while mail flows: deliveries started 20 minutes ago whose figures never came, are older than that, or say that nothing was processed while log rows have results."""
    rows = conn.execute(
        "select d.id, d.account, d.started_at, d.figures_at, coalesce((select sum(value::bigint) from jsonb_each_text(d.figures) "
        "where key in ('sent', 'failed', 'deferred', 'cancelled', 'uncertain')), 0), coalesce((select sum(n) from broad_log_total t "
        "where t.delivery_id = d.id and t.state in (1, 2, 7, 61, 62)), 0) from delivery d where d.state in (51, 55, 62) "
        "and coalesce(d.started_at, d.order_confirmed_at) < %s order by 1 limit %s",
        (now - SILENT, 10 * SHOWN),
    ).fetchall()
    for number, account, started, figures_at, counted, logged in rows:
        old = figures_at is None or (now - figures_at > SILENT and logged > counted)
        if old or (counted == 0 and logged > 0):
            yield Seen(
                Severity.ERROR,
                evidence=f"Delivery {number} started {age(now - (started or now))} ago; its figures say {counted} processed, its log {logged}.",
                cause=f"No figures of it came from {account}: defaultMidSourcingDlv does not run, fails, or reads another mid.",
                remedy="`midsource workflow restart defaultMidSourcingDlv`; then `midsource delivery recompute`.",
                subject=str(number),
            )


def logs(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Deliveries whose mid counts more results than their log has, 90 minutes after the mid said so."""
    rows = conn.execute(
        "select d.id, d.account, d.finished_at, c.n, coalesce(t.n, 0) from delivery d cross join lateral (select coalesce(sum(value::bigint), 0) as n "
        "from jsonb_each_text(d.figures) where key in ('sent', 'failed', 'cancelled')) c cross join lateral (select sum(n) as n from "
        "broad_log_total t where t.delivery_id = d.id and t.state in (1, 2, 7)) t where d.id >= %s and d.finished_at is not null "
        "and d.finished_at < %s and d.finished_at > %s and c.n > coalesce(t.n, 0) order by d.finished_at desc limit %s",
        (first_of_last_month(now), now - BEHIND, now - timedelta(days=14), SHOWN),
    ).fetchall()
    for number, account, finished, counted, logged in rows:
        yield Seen(
            Severity.ERROR,
            evidence=f"Delivery {number} ended {age(now - finished)} ago: {account} counts {counted} results, the log has {logged}.",
            cause="Its delivery logs were not read: defaultMidSourcingLog is behind, or its pointer was set forward past them.",
            remedy=f"`midsource option get NmsMidSourcing_LastBroadLog_{account}`; set it back before this delivery's start, and run defaultMidSourcingLog.",
            subject=str(number),
        )  # fmt: skip


def sums(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Deliveries of two months whose sums do not come out: targeted = excluded + to deliver, and handed over + refused = to deliver."""
    rows = conn.execute(
        "select id, targeted, excluded, to_deliver, handed_over, refused from delivery where id >= %s and targeted is not null and ("
        "targeted <> excluded + to_deliver or state in (45, 51, 55, 62, 95) and handed_over + coalesce(refused, 0) <> to_deliver) "
        "order by id limit %s",
        (first_of_last_month(now), SHOWN),
    ).fetchall()
    for number, targeted, excluded, to_deliver, handed_over, refused in rows:
        yield Seen(
            Severity.CRITICAL,
            evidence=f"Delivery {number}: targeted {targeted}, excluded {excluded}, to deliver {to_deliver}, handed over {handed_over}, refused {refused}.",
            cause="Somebody is not accounted for. That cannot happen; it is a fault of ours, or the tables were changed by hand.",
            remedy=f"Do not send it again. `midsource delivery logs {number} --json` has a row for everybody; report it with the journal.",
            subject=str(number),
        )


CHECKS = (
    Check("delivery.stuck", stuck, MARKETING, Severity.ERROR, ("F72", "F78", "F90", "F91", "F102", "F120"), "Ask for the step again; see `delivery explain`."),
    Check("delivery.parts", parts, MARKETING, Severity.ERROR, ("F01", "F03", "F04", "F13", "F15", "F25"), "Test the account; maintain the mid's database."),
    Check("delivery.orders", orders, MARKETING, Severity.ERROR, ("F91", "F102", "F103"), "Mend the link: the order follows by itself."),
    Check("delivery.zero", zero, MARKETING, Severity.ERROR, ("F12", "F34", "F35"), "Restart the counters' workflow."),
    Check("delivery.logs", logs, MARKETING, Severity.ERROR, ("F33", "F35", "F39"), "Read the logs again from before its start."),
    Check("delivery.sums", sums, MARKETING, Severity.CRITICAL, ("F13", "F15", "F16", "F70", "F92"), "Report it: a person is not accounted for."),
)  # fmt: skip
