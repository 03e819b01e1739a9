"""Leases on dispatch batches: who may send which messages, until when.

A batch (`dispatch_batch`) is up to 500 messages of one delivery to one destination. Order of events: `look` finds which
(delivery, destination) have a batch that is ready; the caller decides (`policy.paths`); `lease` takes batches with
SKIP LOCKED and gives each a new token; `load` reads those of its messages that still wait; the owner renews at a third
of the time, and `mid.settle` takes each message out of its batch in the transaction that records its outcome. `release`
gives back what is left.

Invariant: a message that waits (pending or deferred) is in exactly one batch. So a batch can be handed to the next owner
at any moment, and a deferred message cannot be found by two.

A lease ends on the database's clock; its owner counts LEASE_SECONDS on its own boot clock from *before* it asked, so it
always believes the earlier end. A lease that ended but was not taken by anybody may still be renewed: the row lock
decides. Nothing is leased of a delivery that does not send (paused, stopped), nor of an account that is held
(mid/hold.py). Every statement is bounded by its limits.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

import msgspec

from midsource.model.delivery import SENDING
from midsource.policy.paths import BATCH_MESSAGES, Head, Want
from midsource.store.database import Connection

LEASE_SECONDS = 60.0
"""Long enough that one slow renewal costs nothing, short enough that a lost machine's messages do not wait for long."""
MAX_DELIVERIES = 2_000
"""Deliveries seen as sending at one time; `look` takes turns within them."""
DELIVERIES_A_LOOK = 50
HEADS_A_LOOK = 1_000
"""Index probes of one look: about 10 ms."""

DeliveryKey: TypeAlias = tuple[int, int]
_SENDING = [int(state) for state in sorted(SENDING)]
_HEADS = """
select d.account_id, d.id, walk.destination, walk.ready_at <= now()
  from unnest(%(accounts)s::int[], %(deliveries)s::bigint[], %(after)s::text[]) as d (account_id, id, after)
 cross join lateral (
   with recursive w as (
     (select b.destination, b.ready_at, 1 as n from dispatch_batch b
       where b.account_id = d.account_id and b.delivery_id = d.id and b.owner is null and b.destination > d.after
       order by b.destination, b.ready_at limit 1)
     union all
     select s.destination, s.ready_at, w.n + 1 from w cross join lateral (
       select b.destination, b.ready_at from dispatch_batch b
        where b.account_id = d.account_id and b.delivery_id = d.id and b.owner is null and b.destination > w.destination
        order by b.destination, b.ready_at limit 1) s
      where w.n < %(each)s)
   select destination, ready_at from w) walk
"""
_LEASE = """
with picked as (
  select b.id from unnest(%(accounts)s::int[], %(deliveries)s::bigint[], %(destinations)s::text[], %(batches)s::int[])
         as w (account_id, delivery_id, destination, batches)
    join delivery d on d.account_id = w.account_id and d.id = w.delivery_id and d.state = any(%(sending)s)
     and not exists (select from account_hold h where h.account_id = d.account_id)
   cross join lateral (
     select c.id from dispatch_batch c
      where c.account_id = w.account_id and c.delivery_id = w.delivery_id and c.destination = w.destination
        and c.owner is null and c.ready_at <= now()
      order by c.ready_at limit w.batches for update skip locked) b)
update dispatch_batch b
   set owner = %(owner)s, token = b.token + 1, expires_at = clock_timestamp() + make_interval(secs => %(seconds)s)
  from picked where b.id = picked.id
returning b.id, b.account_id, b.delivery_id, b.destination, b.token, b.ids
"""


@dataclass(frozen=True, slots=True)
class Lease:
    """A batch of ours. ``token`` is this lease's and no other's."""

    batch_id: int
    account_id: int
    delivery_id: int
    destination: str
    token: int
    ids: tuple[int, ...]

    @property
    def delivery(self) -> DeliveryKey:
        """Account and delivery."""
        return (self.account_id, self.delivery_id)


class Message(msgspec.Struct, frozen=True):
    """A ledger row that waits to be sent. ``data`` is JSON as received; ``attempts`` counts the earlier tries."""

    id: int
    email: str
    data: str
    attempts: int
    reason: int = 0


@dataclass(frozen=True, slots=True)
class Delivery:
    """What sending needs to know of a delivery. ``spec`` is JSON of `wire.schema.DeliverySpec`."""

    state: int
    spec: str
    valid_until: datetime | None


class Look:
    """Where batches are ready; remembers how far it came, so that each delivery and destination has its turn."""

    def __init__(self) -> None:
        self._last: DeliveryKey = (0, 0)
        self._after: dict[DeliveryKey, str] = {}

    def __call__(self, conn: Connection) -> tuple[frozenset[DeliveryKey], list[Head]]:
        """Return every delivery that sends, and heads of ready batches: a bounded number, the next ones each time."""
        found = conn.execute(
            "select account_id, id from delivery d where state = any(%s) and not exists ("
            "  select from account_hold h where h.account_id = d.account_id) order by account_id, id limit %s",
            (_SENDING, MAX_DELIVERIES),
        ).fetchall()
        sending = [(account, delivery) for account, delivery in found]
        later = [key for key in sending if key > self._last]
        turn = (later + [key for key in sending if key <= self._last])[:DELIVERIES_A_LOOK]
        self._after = {key: after for key, after in self._after.items() if key in set(sending)}
        if not turn:
            return frozenset(), []
        self._last = turn[-1]
        return frozenset(sending), self._heads(conn, turn)

    def _heads(self, conn: Connection, turn: Sequence[DeliveryKey]) -> list[Head]:
        each = max(16, HEADS_A_LOOK // len(turn))
        rows = conn.execute(
            _HEADS,
            {
                "accounts": [account for account, _ in turn],
                "deliveries": [delivery for _, delivery in turn],
                "after": [self._after.get(key, "") for key in turn],
                "each": each,
            },
        ).fetchall()
        walked: dict[DeliveryKey, list[str]] = {}
        for account, delivery, destination, _ in rows:
            walked.setdefault((account, delivery), []).append(destination)
        for key in turn:
            destinations = walked.get(key, [])
            self._after[key] = destinations[-1] if len(destinations) >= each else ""
        return [Head(account, delivery, destination) for account, delivery, destination, ready in rows if ready]


def lease(conn: Connection, owner: str, wants: Sequence[Want], seconds: float = LEASE_SECONDS) -> list[Lease]:
    """Take what is wanted, as far as it is there and nobody was faster. Durable when the caller's transaction ends."""
    rows = conn.execute(
        _LEASE,
        {
            "accounts": [want.head.account_id for want in wants],
            "deliveries": [want.head.delivery_id for want in wants],
            "destinations": [want.head.destination for want in wants],
            "batches": [want.batches for want in wants],
            "sending": _SENDING,
            "owner": owner,
            "seconds": seconds,
        },
        binary=True,
    ).fetchall()
    return [
        Lease(batch, account, delivery, dest, token, tuple(ids)) for batch, account, delivery, dest, token, ids in rows
    ]


def load(conn: Connection, leases: Iterable[Lease]) -> dict[int, list[Message]]:
    """Return the waiting messages of each batch, by batch id, in the batch's order.

    Messages that do not wait any more (a crash came between their outcome and their batch) leave their batch here.
    """
    by_delivery: dict[DeliveryKey, list[Lease]] = {}
    for taken in leases:
        by_delivery.setdefault(taken.delivery, []).append(taken)
    loaded: dict[int, list[Message]] = {}
    for (account_id, delivery_id), batches in by_delivery.items():
        ids = [id_ for taken in batches for id_ in taken.ids]
        rows = conn.execute(
            "select id, email, data, attempts, reason from message "
            "where account_id = %s and delivery_id = %s and id = any(%s) and state in (6, 61)",
            (account_id, delivery_id, ids),
            binary=True,
        ).fetchall()
        messages = {row[0]: Message(*row) for row in rows}
        for taken in batches:
            loaded[taken.batch_id] = [messages[id_] for id_ in taken.ids if id_ in messages]
            if len(loaded[taken.batch_id]) < len(taken.ids):
                keep(conn, {taken.batch_id: [message.id for message in loaded[taken.batch_id]]})
    return loaded


def delivery(conn: Connection, key: DeliveryKey) -> Delivery | None:
    """Return what sending needs to know of a delivery, None where there is none."""
    row = conn.execute(
        "select state, spec::text, valid_until from delivery where account_id = %s and id = %s", key
    ).fetchone()
    return Delivery(*row) if row else None


def states(conn: Connection, keys: Collection[DeliveryKey]) -> dict[DeliveryKey, int]:
    """Return the present states of these deliveries."""
    rows = conn.execute(
        "select d.account_id, d.id, d.state from delivery d join unnest(%s::int[], %s::bigint[]) as k (account_id, id) "
        "on d.account_id = k.account_id and d.id = k.id",
        ([account for account, _ in keys], [delivery_id for _, delivery_id in keys]),
    ).fetchall()
    return {(account, delivery_id): state for account, delivery_id, state in rows}


def renew(conn: Connection, owner: str, tokens: Mapping[int, int], seconds: float = LEASE_SECONDS) -> set[int]:
    """Extend the leases (batch id to token) and return the batches that are still ours; the others have a new owner."""
    rows = conn.execute(
        "update dispatch_batch b set expires_at = clock_timestamp() + make_interval(secs => %s) "
        "from (select c.id from dispatch_batch c join unnest(%s::bigint[], %s::bigint[]) as k (id, token) "
        "      on c.id = k.id and c.token = k.token where c.owner = %s order by c.id for update of c) mine "
        "where b.id = mine.id returning b.id",
        (seconds, list(tokens), list(tokens.values()), owner),
    ).fetchall()
    return {batch for (batch,) in rows}


def release(conn: Connection, owner: str, tokens: Mapping[int, int]) -> int:
    """Give batches back with the messages they still hold; return how many were ours."""
    return conn.execute(
        "update dispatch_batch b set owner = null, expires_at = null "
        "from unnest(%s::bigint[], %s::bigint[]) as k (id, token) "
        "where b.id = k.id and b.token = k.token and b.owner = %s",
        (list(tokens), list(tokens.values()), owner),
    ).rowcount


def release_strays(conn: Connection, owner: str, tokens: Mapping[int, int]) -> int:
    """Give back the batches of ``owner`` other than those it knows of (batch id to token); return how many."""
    return conn.execute(
        "update dispatch_batch b set owner = null, expires_at = null where b.owner = %s and not exists ("
        "  select from unnest(%s::bigint[], %s::bigint[]) as k (id, token) where k.id = b.id and k.token = b.token)",
        (owner, list(tokens), list(tokens.values())),
    ).rowcount


def keep(conn: Connection, rest: Mapping[int, Sequence[int]]) -> None:
    """Leave only these messages in each batch; a batch without any goes."""
    empty = [batch for batch, ids in rest.items() if not ids]
    fuller = {batch: "{" + ",".join(map(str, ids)) + "}" for batch, ids in rest.items() if ids}
    if empty:
        conn.execute("delete from dispatch_batch where id = any(%s)", (empty,))
    if fuller:
        conn.execute(
            "update dispatch_batch b set ids = u.ids::bigint[] from unnest(%s::bigint[], %s::text[]) as u (id, ids) "
            "where b.id = u.id",
            (list(fuller), list(fuller.values())),
        )


@dataclass(frozen=True, slots=True)
class Due:
    """A message to be tried again: it joins others of the same delivery, destination and time in a new batch."""

    account_id: int
    delivery_id: int
    destination: str
    ready_at: datetime
    id: int


def schedule(conn: Connection, dues: Iterable[Due], now: datetime) -> int:
    """Write batches for messages due again; return how many batches. Times are rounded up, more coarsely when far away.

    The wait is what counts, and it is measured on the database's clock: a clock of ours that is wrong by an hour must
    not turn five minutes into an hour.
    """
    groups: dict[tuple[int, int, str, int], list[int]] = {}
    for due in dues:
        wait = max(0.0, (due.ready_at - now).total_seconds())
        grain = 1 if wait < 60 else 10 if wait < 3_600 else 60
        rounded = math.ceil(wait / grain) * grain
        groups.setdefault((due.account_id, due.delivery_id, due.destination, rounded), []).append(due.id)
    rows = [
        (*group, "{" + ",".join(map(str, ids[at : at + BATCH_MESSAGES])) + "}")
        for group, ids in groups.items()
        for at in range(0, len(ids), BATCH_MESSAGES)
    ]
    if rows:
        conn.execute(
            "insert into dispatch_batch (account_id, delivery_id, destination, ready_at, ids) "
            "select a, d, dest, now() + make_interval(secs => wait), ids::bigint[] "
            "from unnest(%s::int[], %s::bigint[], %s::text[], %s::int[], %s::text[]) as u (a, d, dest, wait, ids)",
            tuple(list(column) for column in zip(*rows, strict=True)),
        )
    return len(rows)
