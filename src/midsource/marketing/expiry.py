"""The step of `cleanup` that closes expired deliveries: their validity is over and log rows are still open here.

Whether is decided by values (policy/retention.py): by how far the logs were pulled, what the mid's counters say, and how long ago
validity ended. What the mid never took is cancelled. What it took is cancelled only where its counters say that no
result of it is missing here, so nothing that was sent is ever called cancelled (F39); where nobody can tell any more it
is *uncertain*. A delivery that has results at the mid which are not here waits for `reconcile`, and the journal names it.

A page is some ranges of CANCEL_ROWS log rows of one delivery (marketing/cancelling.py), a transaction each; when none is
open any more the delivery is *finished*, as of the end of its validity. Where its totals say "open" and no row is, they are
recounted in that transaction: the rows win, and the delivery is not found again. Deliveries never started, of accounts that are off or from which
nothing was ever pulled are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from midsource.marketing import cancelling, totals
from midsource.model.message import MessageState
from midsource.policy.retention import Closing, Expired, closing
from midsource.store.cleanup import Removable, Removed, Scene
from midsource.store.database import Connection, scalar

RANGES_A_PAGE = 10
LOOKED_AT = 1_000
"""Deliveries with open rows looked at in one run: more than that expired at once is not an ordinary day."""
NAMED = 20
"""Deliveries named in the journal in one run."""
_FOUND = """
select d.id, d.state, d.started_at + make_interval(secs => d.validity_seconds) as valid_until,
    case when d.state in (85, 87, 95) then d.finished_at end, d.figures_at, d.figures, d.targeted, t.counts,
    (select case when p.generation is not null then p.reached_at end from pointer p
     where p.account = d.account and p.stream = 'logs' and p.lane = 'backlog')
from delivery d join external_account a on a.name = d.account and a.active
cross join lateral (
    select jsonb_object_agg(state, n) as counts, coalesce(sum(n) filter (where state in (6, 61)), 0) as open from (
        select state, sum(n) as n from broad_log_total where delivery_id = d.id group by state) s) t
where d.started_at is not null and d.log_dropped_at is null and t.open > 0
    and d.started_at + make_interval(secs => d.validity_seconds) < %(now)s
order by d.id limit %(limit)s
"""
_OPEN = [int(MessageState.PENDING), int(MessageState.DEFERRED)]
_FIRST_OPEN = "select min(id) from broad_log where delivery_id = %(id)s and state = any(%(open)s)"


@dataclass(frozen=True, slots=True)
class _Found:
    """An expired delivery, what is decided about it, and how many of its rows are open."""

    id: int
    state: int
    valid_until: datetime
    targeted: int
    open: int
    verdict: Closing


def count(scene: Scene) -> Removable:
    """Return how many rows would be closed, and how many deliveries wait for results that the mid has."""
    with scene.database.connection() as conn:
        found = list(_expired(conn, scene))
    closable = [one for one in found if one.verdict in (Closing.CANCEL, Closing.UNCERTAIN)]
    missing = sum(one.verdict is Closing.MISSING for one in found)
    note = f"{missing} expired deliveries miss results that the mid has: reconcile them" if missing else ""
    return Removable(sum(one.open for one in closable), note=note)


def page(scene: Scene) -> Removed:
    """Close some ranges of one expired delivery, and end it when none of its rows is open any more."""
    with scene.database.connection() as conn:
        found = list(_expired(conn, scene))
    for one in found:
        if one.verdict in (Closing.CANCEL, Closing.UNCERTAIN):
            return _close(scene, one)
    missing = [one.id for one in found if one.verdict is Closing.MISSING]
    said = [f"expired delivery {id_} misses results that the mid has: reconcile it" for id_ in missing[:NAMED]]
    return Removed(said=tuple(said))


def _expired(conn: Connection, scene: Scene) -> Iterator[_Found]:
    for row in conn.execute(_FOUND, {"now": scene.now, "limit": LOOKED_AT}).fetchall():
        id_, state, valid_until, ended_at, figures_at, figures, targeted, counts, reached_at = row
        ours = {MessageState(int(number)).label: int(n) for number, n in counts.items()}
        known = Expired(valid_until, ended_at, reached_at, figures_at, figures, ours)
        still_open = ours.get("pending", 0) + ours.get("deferred", 0)
        yield _Found(id_, state, valid_until, targeted or 0, still_open, closing(known, scene.now))


def _close(scene: Scene, found: _Found) -> Removed:
    taken = MessageState.CANCELLED if found.verdict is Closing.CANCEL else MessageState.UNCERTAIN
    closed = 0
    for _ in range(RANGES_A_PAGE):
        rows = _close_range(scene, found, taken)
        closed += rows
        if not rows:
            return Removed(closed, more=True, said=_end(scene, found))
    return Removed(closed, more=True)


def _close_range(scene: Scene, found: _Found, taken: MessageState) -> int:
    """Close the first range with open rows; 0: there is none."""
    with scene.database.transaction() as conn:
        first = scalar(conn, _FIRST_OPEN, {"id": found.id, "open": _OPEN})
        return 0 if first is None else cancelling.cancel_range(conn, found.id, first, _OPEN, taken)


def _end(scene: Scene, found: _Found) -> tuple[str, ...]:
    """End a delivery of which no row is open any more; return what is said about totals that were wrong."""
    with scene.database.transaction(statement_seconds=totals.RECOUNT_SECONDS) as conn:
        if scalar(conn, _FIRST_OPEN, {"id": found.id, "open": _OPEN}) is not None:
            return ()  # opened meanwhile: the next page closes it
        by_state = totals.by_state(conn, found.id)
        is_wrong = any(by_state.get(state) for state in (MessageState.PENDING, MessageState.DEFERRED))
        wrong = totals.recount(conn, found.id) if is_wrong else 0
        conn.execute(
            "update delivery set state = case when state in (85, 87, 95) then state else 95 end, recounted_at = null, "
            "finished_at = coalesce(finished_at, %s), modified_at = clock_timestamp(), version = version + 1 where id = %s",
            (found.valid_until, found.id),
        )
    return (
        (f"totals of delivery {found.id} differed from its log in {wrong} places and are corrected",) if wrong else ()
    )
