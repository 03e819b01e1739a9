"""Tell a mid that was restored what the delivery log knows, so that it may send again (mid/hold.py says what it does).

Of each delivery under way there: every log row that the mid once reported, in pages; then the release. Repeating it after
a crash is harmless: a message takes what is newer than what it has, and deliveries told to the end are not asked for again.
Bounds: KNOWN_ROWS a call; what is left when the time is over is the next slice's, which goes on where the mid says it was told to.
"""

from __future__ import annotations

from midsource.engine.work import Context
from midsource.marketing import deliveries
from midsource.model.errors import NotFound
from midsource.store.database import Connection, in_key_order
from midsource.wire.client import MidClient
from midsource.wire.hold import KNOWN_ROWS, Known, KnownRow

RELEASES = 1_000
"""Calls of one release: 100 000 messages each."""
_ROWS = """
select id, state, reason, attempts, revision, event_at, message_id from broad_log
where delivery_id = %s and id > %s and revision > 1 and state <> 0 order by id limit %s
"""


def tell(context: Context, client: MidClient, account: str, deadline: float) -> bool:
    """Tell a held mid what is known and release it; True where nothing is held (any more). Raises what the link raises."""
    told = client.hold()
    if not told.held:
        _settle(context, account)
        return True
    deliveries_told = 0
    while told.deliveries:  # a bounded number at a time; those told are not named again
        for delivery_id in told.deliveries:
            after = told.told_to if delivery_id == told.telling else 0
            if not _tell_delivery(context, client, delivery_id, after, deadline):
                return False
        deliveries_told += len(told.deliveries)
        told = client.hold()
    uncertain = 0
    for _ in range(RELEASES):
        context.beat()
        answer = client.release()
        uncertain += answer.uncertain
        if answer.released:
            break
        if context.clock.boot_seconds() > deadline:
            return False
    _settle(context, account)
    context.say(
        "warning",
        f"{account} was restored and is told what is known of {deliveries_told} deliveries under way; {uncertain} messages "
        "may have been sent since its backup: they are uncertain, or due again where their delivery's policy is resend; it sends again",
    )
    return True


def _tell_delivery(context: Context, client: MidClient, delivery_id: int, after: int, deadline: float) -> bool:
    """Tell what is known of the messages behind ``after``; False when the time is over, True when all is told."""
    while True:
        context.beat()
        if context.clock.boot_seconds() > deadline:
            return False
        with context.database.transaction() as conn:
            rows = _page(conn, delivery_id, after)
        is_last = len(rows) < KNOWN_ROWS
        client.tell_known(delivery_id, Known(rows=rows, last=is_last))
        if is_last:
            return True
        after = rows[-1].id


def _page(conn: Connection, delivery_id: int, after: int) -> tuple[KnownRow, ...]:
    try:
        deliveries.get(conn, delivery_id)
    except NotFound:  # this side was put back as well: it knows nothing of it
        return ()
    names = KnownRow.__struct_fields__
    with in_key_order(conn):
        found = conn.execute(_ROWS, (delivery_id, after, KNOWN_ROWS), prepare=False).fetchall()
    return tuple(KnownRow(**dict(zip(names, row, strict=True))) for row in found)


def _settle(context: Context, account: str) -> None:
    with context.database.transaction() as conn:
        conn.execute(
            "update pull_gap set told_at = clock_timestamp() where account = %s and cause = 'rewound' and told_at is null",
            (account,),
        )
