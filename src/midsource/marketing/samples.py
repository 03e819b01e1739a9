"""Samples of a running delivery's counters, as they come from the mid: what its rate is measured by.

``keep`` is called in the transaction that writes a page of counters. A delivery has a sample every EVERY_SECONDS at most and
none older than KEPT, so 180; once it has ended it has none. Times are the mid's, like ``figures_at``: a clock that
differs from ours changes no rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from midsource.marketing.deliveries import Delivery
from midsource.model.delivery import SENDING, DeliveryState
from midsource.model.message import MessageState
from midsource.policy.pace import WINDOW_SECONDS, Count, Standing
from midsource.store.database import Connection, scalar

EVERY_SECONDS = 5
KEPT = timedelta(minutes=15)
DONE = (MessageState.SENT, MessageState.FAILED, MessageState.CANCELLED)
_SUM = " + ".join(f"coalesce((figures ->> '{state.label}')::bigint, 0)" for state in DONE)


def keep(conn: Connection, account: str, deliveries: Sequence[int]) -> None:
    """Take a sample of those that run, and drop what is too old or belongs to a delivery that has ended."""
    if not deliveries:
        return
    ids = list(deliveries)
    conn.execute(
        f"insert into delivery_sample (delivery_id, at, done) select id, figures_at, {_SUM} from delivery d "  # noqa: S608 - constant
        "where id = any(%s) and account = %s and state = any(%s) and figures_at is not null and not exists ("
        "select from delivery_sample s where s.delivery_id = d.id and s.at > d.figures_at - make_interval(secs => %s)) "
        "on conflict do nothing",
        (ids, account, [int(state) for state in SENDING], EVERY_SECONDS),
    )
    conn.execute(
        "delete from delivery_sample s using delivery d where d.id = s.delivery_id and d.id = any(%s) and d.account = %s "
        "and (s.at < d.figures_at - %s::interval or d.state in (85, 87, 95))",
        (ids, account, KEPT),
    )


def earlier(conn: Connection, deliveries: Sequence[int]) -> dict[int, Count]:
    """Return of each delivery the oldest sample of its last minute, where it has one."""
    rows = conn.execute(
        "select d.id, s.at, s.done from delivery d cross join lateral ("
        "select at, done from delivery_sample where delivery_id = d.id and at >= d.figures_at - make_interval(secs => %s) "
        "order by at limit 1) s where d.id = any(%s)",
        (WINDOW_SECONDS, list(deliveries)),
    ).fetchall()
    return {number: Count(at, done) for number, at, done in rows}


def done_of(figures: Mapping[str, int]) -> int:
    """Return how many messages are over by the mid's figures."""
    return sum(max(0, figures.get(state.label, 0)) for state in DONE)


def standing(conn: Connection, delivery: Delivery) -> Standing:
    """Return what the pace of one delivery is judged by."""
    heard = scalar(conn, "select last_hello_at from external_account where name = %s", (delivery.account,))
    return standing_of(
        state=delivery.state, figures=delivery.figures, figures_at=delivery.figures_at, heard_at=heard,
        retry_seconds=delivery.retry_period_seconds, earlier=earlier(conn, [delivery.id]).get(delivery.id),
    )  # fmt: skip


def standing_of(
    *,
    state: int,
    figures: Mapping[str, int],
    figures_at: datetime | None,
    heard_at: datetime | None,
    retry_seconds: int,
    earlier: Count | None,
) -> Standing:
    """Compose it from the columns of a row."""
    return Standing(
        state=DeliveryState(state),
        untried=max(0, figures.get(MessageState.PENDING.label, 0)),
        deferred=max(0, figures.get(MessageState.DEFERRED.label, 0)),
        latest=None if figures_at is None else Count(figures_at, done_of(figures)),
        earlier=earlier,
        heard_at=heard_at,
        retry_seconds=retry_seconds,
    )
