"""Looks for work and takes it: one transaction a look, planned by `policy.paths`. Runs in one thread of the process."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import structlog

from midsource.mid import dispatch
from midsource.mid.dispatch import DeliveryKey, Lease, Look, Message
from midsource.mid.render import Deliveries, Prepared
from midsource.model.clock import Clock
from midsource.model.delivery import DeliveryState
from midsource.model.errors import first_line
from midsource.policy.paths import Limits, Queue, plan_leases, settle_credit
from midsource.store.database import Connection, Database

UNUSABLE_SECONDS = 60.0
"""How long a delivery whose row cannot be understood is left alone before it is looked at again."""

_log = structlog.get_logger("midsource.mta")


@dataclass(frozen=True, slots=True)
class Taken:
    """A leased batch with what it takes to send it."""

    lease: Lease
    prepared: Prepared
    messages: list[Message]


@dataclass(frozen=True, slots=True)
class Found:
    """What one look brought. ``ends``: boot time at which the new leases are over; ``stopped``: deliveries to cancel."""

    sending: frozenset[DeliveryKey]
    stopped: frozenset[DeliveryKey]
    taken: tuple[Taken, ...]
    ends: float


class Leasing:
    """Remembers whose turn it is."""

    def __init__(
        self,
        database: Database,
        executor: str,
        deliveries: Deliveries,
        limits: Limits,
        clock: Clock,
        *,
        lease_seconds: float,
    ) -> None:
        self._database = database
        self._executor = executor
        self._deliveries = deliveries
        self._limits = limits
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._look = Look()
        self._credit: dict[int, float] = {}
        self._unusable: dict[DeliveryKey, float] = {}

    def take(self, queues: Mapping[str, Queue], held: int, mine: Collection[DeliveryKey]) -> Found:
        """Lease what there is room for. ``held``: messages in hand; ``mine``: the deliveries they are of."""
        ends = self._clock.boot_seconds() + self._lease_seconds  # from before the claim: ours is the earlier end
        with self._database.transaction() as conn:
            sending, heads = self._look(conn)
            heads = [head for head in heads if (head.account_id, head.delivery_id) not in self._unusable]
            wants = plan_leases(heads, queues, self._credit, held, self._limits)
            prepared = self._prepared(conn, {(want.head.account_id, want.head.delivery_id) for want in wants})
            wants = [want for want in wants if (want.head.account_id, want.head.delivery_id) in prepared]
            leases = dispatch.lease(conn, self._executor, wants, self._lease_seconds) if wants else []
            loaded = dispatch.load(conn, leases)
            others = set(mine) - sending
            states = dispatch.states(conn, others) if others else {}
        leased: dict[int, int] = {}
        for lease in leases:
            leased[lease.account_id] = leased.get(lease.account_id, 0) + len(lease.ids)
        self._credit = settle_credit(self._credit, leased, {head.account_id for head in heads})
        return Found(
            sending=sending,
            stopped=frozenset(key for key, state in states.items() if state == DeliveryState.STOPPED),
            taken=tuple(Taken(lease, prepared[lease.delivery], loaded[lease.batch_id]) for lease in leases),
            ends=ends,
        )

    def release_strays(self, tokens: Mapping[int, int]) -> int:
        """Give back what is leased in our name and not among ``tokens``; return how many batches.

        A lease whose COMMIT was cut off, or a batch that could not be given back while PostgreSQL was away: nothing of it
        was begun, nobody renews it, and recovery leaves it to us because we live.
        """
        with self._database.transaction() as conn:
            return dispatch.release_strays(conn, self._executor, tokens)

    def release(self, tokens: Mapping[int, int]) -> None:
        """Give batches back."""
        with self._database.transaction() as conn:
            dispatch.release(conn, self._executor, tokens)

    def renew(self, tokens: Mapping[int, int]) -> tuple[set[int], float]:
        """Extend leases; return the batches that are still ours and the boot time at which they end."""
        ends = self._clock.boot_seconds() + self._lease_seconds
        with self._database.transaction() as conn:
            return dispatch.renew(conn, self._executor, tokens, self._lease_seconds), ends

    def _prepared(self, conn: Connection, keys: Collection[DeliveryKey]) -> dict[DeliveryKey, Prepared]:
        """Return what is needed to send these deliveries. One that cannot be read waits by itself; no other notices."""
        now = self._clock.boot_seconds()
        self._unusable = {key: until for key, until in self._unusable.items() if until > now}
        found: dict[DeliveryKey, Prepared] = {}
        for key in keys:
            try:
                made = self._deliveries.get(conn, key)
            except (ValueError, TypeError) as error:  # msgspec's errors are ValueErrors
                _log.error("delivery.unusable", action="lease", delivery=key[1], why=first_line(error))
                self._unusable[key] = now + UNUSABLE_SECONDS
            else:
                if made is not None:
                    found[key] = made
        return found
