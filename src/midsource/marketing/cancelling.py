"""Cancel the log rows of a stopped delivery that no outcome will ever come back for.

What the mid took comes back through the logs feed as it ends there. What it never took is cancelled here. A mid that does
not know the delivery (any more: it was restored) will report nothing: of a delivery that was never started everything is
cancelled, and of a started one what the mid had taken is *uncertain*, because it may have been sent before.

Rows are changed CANCEL_ROWS at a time, each time one transaction, totals in the statement that changes them. Repeating it
changes nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence

from midsource.engine.work import Context
from midsource.marketing.deliveries import Delivery
from midsource.model.message import MessageState
from midsource.store.database import Connection, scalar

CANCEL_ROWS = 20_000
"""Log rows cancelled in one transaction: a fraction of a second."""

_CANCEL = """
with waiting as (
    select b.id, b.state, exists (
        select from upload_part p where p.delivery_id = b.delivery_id and p.state = 'acknowledged'
            and b.id between p.first_id and p.last_id) as taken
    from broad_log b where b.delivery_id = %(id)s and b.id between %(first)s and %(last)s and b.state = any(%(open)s)
), changed as (
    update broad_log b set event_at = clock_timestamp(),
        state = case when w.taken then %(taken)s::smallint else %(cancelled)s end
    from waiting w
    where b.delivery_id = %(id)s and b.id = w.id and b.state = w.state and (not w.taken or %(taken)s::smallint is not null)
    returning b.domain, b.reason, w.state as old_state, b.state
), moves as (
    select domain, reason, old_state as state, -count(*) as n from changed group by 1, 2, 3
    union all
    select domain, reason, state, count(*) from changed group by 1, 2, 3
), totals as (
    insert into broad_log_total as t (delivery_id, domain, state, reason, n)
    select %(id)s, domain, state, reason, sum(n) from moves group by 2, 3, 4
    on conflict (delivery_id, domain, state, reason) do update set n = t.n + excluded.n
)
select count(*) from changed
"""


def cancel_unsent(context: Context, delivery: Delivery, *, is_known: bool) -> None:
    """Cancel what will have no outcome; ``is_known``: the mid knows the delivery, and tells of what it took."""
    taken = None
    if not is_known:
        taken = MessageState.CANCELLED if delivery.started_at is None else MessageState.UNCERTAIN
    waiting = [MessageState.PENDING] if is_known else [MessageState.PENDING, MessageState.DEFERRED]
    for first in range(1, (delivery.targeted or 0) + 1, CANCEL_ROWS):
        context.beat()
        with context.database.transaction() as conn:
            cancel_range(conn, delivery.id, first, [int(state) for state in waiting], taken)


def cancel_range(
    conn: Connection, delivery_id: int, first: int, waiting: Sequence[int], taken: MessageState | None
) -> int:
    """Cancel what waits among CANCEL_ROWS log rows from ``first`` on; what the mid took becomes ``taken``, None: stays.

    Returns how many rows changed. Durable with the caller's transaction.
    """
    return int(
        scalar(
            conn,
            _CANCEL,
            {
                "id": delivery_id,
                "first": first,
                "last": first + CANCEL_ROWS - 1,
                "open": list(waiting),
                "taken": None if taken is None else int(taken),
                "cancelled": int(MessageState.CANCELLED),
            },
        )
    )
