"""How many database connections each kind of process may hold: the one table behind pools, `ps` and the check of `up`.

A process never goes above its budget: pools are bounded, and what is opened beside them is bounded where it is opened.
The budgets of a home's processes and of commands together must fit into what its server allows; `up` checks that, because a server
without a free connection fails far from its cause: a beat is missed, a worker counts as dead, a page waits.
"""

from __future__ import annotations

from collections.abc import Iterable

WEB_POOL = 10
"""Eight requests at once, and two for the turns beside them (beat, sweep, feeds)."""
WEB_PAGES = 4
"""Console pages read at the same time, on connections of their own."""
WEB_ACCESS = 1
"""Sessions and keys are looked up on a connection of their own."""
WORKER_POOL = 12
"""Six slices at once with up to two connections each: a body in its transaction, and the journal or beat beside it."""
ENGINE_POOL = 5
"""The engine's own pool: polling the queue, recording slices."""
LEADER = 1
"""The session that holds the leader's lock."""
MAINTENANCE = 1
"""The session of databaseMaintenance: its statements run outside any transaction, for longer than a pool's may."""
MTA_POOL = 4
"""Leasing, settling, rendering ahead, beat."""

BUDGET = {
    "web": WEB_POOL + WEB_PAGES + WEB_ACCESS,
    "worker": WORKER_POOL + ENGINE_POOL + LEADER + MAINTENANCE,
    "mta": MTA_POOL,
    "sandbox": 0,
}
"""Connections of one process, by kind."""
COMMANDS = 12
"""Three commands at once, with a pool of four each: `status` in a loop beside an operator's own."""


def of(process: str) -> int:
    """Return the budget of a process, by its name: ``worker@marketing.2``."""
    return BUDGET.get(process.partition("@")[0], 0)


def needed(processes: Iterable[str]) -> int:
    """Return what these processes, and commands beside them, may hold together."""
    return COMMANDS + sum(of(name) for name in processes)
