"""Which destination gets how much: what an mta process leases next, and where it opens connections. Pure decisions.

Leases. A destination (recipient domain) is fed when less waits for it in memory than its connections send in about
AHEAD_SECONDS, so a slow one never holds much and a fast one never runs dry. Within a destination accounts take turns by
deficit round robin: who got more than its share of the last leases waits, so one account's million does not starve
another's hundred. Batches differ in size (1 to 500 messages), so the deficit is settled by what a lease really brought.

Connections. One more for every MESSAGES_A_CONNECTION waiting, up to the destination's limit; when the process's limit
is near, destinations take turns, so that each has one before any has its last. A destination that rests (nobody
answered there) gets neither.

Each decision is a value: print the plan to see why nothing goes to a domain.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

BATCH_MESSAGES = 500
"""The largest dispatch batch."""
AHEAD_SECONDS = 1.0
"""A lease takes some 10 ms, or some 100 ms when PostgreSQL is busy writing outcomes."""
LEAST_AHEAD = 100
"""Messages: below this a destination is fed whatever its rate is; a new one has none yet."""
BATCHES_A_TURN = 4
"""Of one destination: 2 000 messages, half a second at the speed of a whole process."""
MESSAGES_A_CONNECTION = 10
"""Fewer are not worth another connection (two round trips and the provider's patience)."""
MAX_CREDIT = 10_000
"""Messages an account may be ahead or behind: older unfairness is forgotten."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one mta process may use."""

    connections_per_destination: int
    connections: int = 500
    messages_held: int = 20_000


@dataclass(frozen=True, slots=True)
class Queue:
    """One destination as the process sees it: messages leased and not tried yet, connections, messages a second."""

    waiting: int = 0
    connections: int = 0
    rate: float = 0.0
    rests: bool = False
    crowded: bool = False
    """It refused one more connection a moment ago: it keeps those it has."""

    @property
    def ahead(self) -> int:
        """How much should wait here."""
        return max(LEAST_AHEAD, math.ceil(self.rate * AHEAD_SECONDS))


IDLE = Queue()


@dataclass(frozen=True, slots=True)
class Head:
    """Some batch of this delivery is ready for this destination."""

    account_id: int
    delivery_id: int
    destination: str


@dataclass(frozen=True, slots=True)
class Want:
    """Lease up to ``batches`` of what `head` names."""

    head: Head
    batches: int


def plan_leases(
    heads: Sequence[Head], queues: Mapping[str, Queue], credit: Mapping[int, float], held: int, limits: Limits
) -> list[Want]:
    """Return what to lease now, in the order of ``heads`` (who passes them rotates them); at most the room there is."""
    room = limits.messages_held - held
    destinations: dict[str, list[Head]] = {}
    for head in heads:
        destinations.setdefault(head.destination, []).append(head)
    wants: list[Want] = []
    for destination, claims in destinations.items():
        queue = queues.get(destination, IDLE)
        if queue.rests:
            continue
        missing = queue.ahead - queue.waiting
        batches = min(BATCHES_A_TURN, math.ceil(missing / BATCH_MESSAGES), room // BATCH_MESSAGES)
        if batches > 0:
            wants += _turns(claims, credit, batches)
            room -= batches * BATCH_MESSAGES
    return wants


def settle_credit(
    credit: Mapping[int, float], leased: Mapping[int, int], claiming: Collection[int]
) -> dict[int, float]:
    """Return each claiming account's credit after a turn that gave it ``leased`` messages: its share minus what it got.

    An account that claims nothing keeps no credit: idle time earns nothing.
    """
    if not claiming:
        return {}
    share = sum(leased.values()) / len(claiming)
    return {
        account: max(-MAX_CREDIT, min(MAX_CREDIT, credit.get(account, 0.0) + share - leased.get(account, 0)))
        for account in claiming
    }


def plan_connections(queues: Mapping[str, Queue], limits: Limits) -> dict[str, int]:
    """Return how many connections to open to each destination now; destinations take turns when not all can be had."""
    free = limits.connections - sum(queue.connections for queue in queues.values())
    missing = {
        destination: min(limits.connections_per_destination, math.ceil(queue.waiting / MESSAGES_A_CONNECTION))
        - queue.connections
        for destination, queue in queues.items()
        if queue.waiting and not queue.rests and not (queue.crowded and queue.connections)
    }
    # Those with the fewest connections first: a destination's first is worth more than another's fourth.
    order = sorted((d for d, n in missing.items() if n > 0), key=lambda d: queues[d].connections)
    opens = dict.fromkeys(order, 0)
    while free > 0 and order:
        for destination in order[:free]:
            opens[destination] += 1
            free -= 1
        order = [destination for destination in order if opens[destination] < missing[destination]]
    return {destination: n for destination, n in opens.items() if n}


def _turns(claims: Iterable[Head], credit: Mapping[int, float], batches: int) -> list[Want]:
    """Share ``batches`` of one destination over its accounts, richest in credit first, and over each one's deliveries."""
    by_account: dict[int, list[Head]] = {}
    for head in claims:
        by_account.setdefault(head.account_id, []).append(head)
    purse = {account: credit.get(account, 0.0) for account in by_account}
    got: dict[Head, int] = {}
    for _ in range(batches):
        account = max(purse, key=lambda a: (purse[a], -a))
        purse[account] -= BATCH_MESSAGES
        head = min(by_account[account], key=lambda h: got.get(h, 0))
        got[head] = got.get(head, 0) + 1
    return [Want(head, count) for head, count in got.items()]
