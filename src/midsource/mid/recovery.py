"""What dead and stalled mta processes left behind: outcomes recorded, uncertain messages named, the rest goes on at once.

Three cases, looked at when a process starts and every 10 s, each in transactions of its own:

*dead* (its journal folder on this machine is held by nobody): its unapplied outcomes are settled, each batch once
(``journal_applied``); started without outcome is uncertain, exactly; its leases are given back; the folder goes.
*stalled* (the folder is held, but leases of it ended STALLED_SECONDS ago): the same from its journal, for those leases only.
It cannot begin a body under an ended lease, so what the journal says after the batch rows are locked stays true. When
it wakes its outcomes are late evidence; those taken from its journal are recognised.
*lost* (no folder here, or one that cannot be recovered; lease ended LOST_SECONDS ago): nobody can say what left, so every
message of the batch that waits is uncertain. Likewise, and at once, where the journal of a dead process does not tell all starts: it
was written under another boot (a start survives the machine only after the next sync), or nobody knows under which, or it is damaged.
Its outcomes are settled first, as far as they can be read.

Living and lost owners are told apart by the database's clock, and it may step: an hour forward ends every lease at once,
while the processes that have them send on. So nobody is judged before `Watch` has seen, by this machine's boot clock, that
none of the owner's leases was renewed for a whole lease and the same wait again.

A delivery whose policy is *resend* has its uncertain messages planned again by its ladder; *hold* leaves them for a
bounce, an open or a click. Everything is durable when `recover` returns; killed in between, the next call does the rest.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import structlog

from midsource.mid import dispatch, losses, replay
from midsource.mid.records import Start
from midsource.mid.replay import Replay
from midsource.mid.settle import REFUSALS, settle, settle_outcomes
from midsource.model.clock import Clock
from midsource.model.errors import Conflict, Failed, said
from midsource.store.database import Connection, Database

STALLED_SECONDS = 10.0
"""After the end of a lease: a process that lives and only missed PostgreSQL for a while renews within a second."""
LOST_SECONDS = 120.0
"""After the end of a lease: a machine that starts anew runs its own recovery by then, which knows better."""
MAX_BATCHES = 200
"""Batches of lost owners judged in one call: 100 000 messages."""
_UNCERTAIN = 0
"""Segment under which the uncertain ones of a dead process are noted as recorded; real segments count from 1."""

_log = structlog.get_logger("midsource.mta")


@dataclass(frozen=True, slots=True)
class Recovered:
    """What one call did."""

    outcomes: int = 0
    uncertain: int = 0
    released: int = 0

    def __add__(self, other: Recovered) -> Recovered:
        """Sum up."""
        return Recovered(
            self.outcomes + other.outcomes, self.uncertain + other.uncertain, self.released + other.released
        )


class Watch:
    """How long the leases of each owner have stood still, by this machine's boot clock: it never steps."""

    def __init__(self, clock: Clock, lease_seconds: float) -> None:
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._seen: dict[str, tuple[datetime, float]] = {}

    def look(self, database: Database) -> None:
        """See which leases were renewed since the last look; forget owners that have none."""
        now = self._clock.boot_seconds()
        with database.connection() as conn:
            rows = conn.execute(
                "select owner, max(expires_at) from dispatch_batch where owner is not null group by owner"
            ).fetchall()
        before, self._seen = self._seen, {}
        for owner, expires_at in rows:
            known = before.get(owner)
            self._seen[owner] = known if known is not None and known[0] == expires_at else (expires_at, now)

    def over(self, seconds: float) -> set[str]:
        """Return the owners whose leases were not renewed for one lease and ``seconds``."""
        since = self._clock.boot_seconds() - self._lease_seconds - seconds
        return {owner for owner, (_, at) in self._seen.items() if at <= since}


def recover(
    database: Database,
    root: Path,
    executor: str,
    clock: Clock,
    watch: Watch,
    *,
    stalled_seconds: float = STALLED_SECONDS,
    lost_seconds: float = LOST_SECONDS,
) -> Recovered:
    """Recover what others than ``executor`` left under ``root`` and in the database. Raises Unhealthy without a database.

    One journal that cannot be recovered stops no other; it is logged and tried again. It does not keep its leases for ever:
    they are lost when no try succeeded until then.
    """
    total = Recovered()
    failed: set[str] = set()
    watch.look(database)
    stalled = watch.over(stalled_seconds)
    for directory in replay.folders(root):
        if directory.name == executor:
            continue
        fd = None
        try:
            fd = replay.hold(directory)
            if fd is not None:
                total += _dead(database, directory, clock)
            elif directory.name in stalled:
                total += _stalled(database, directory, clock.now(), stalled_seconds)
        except Exception as error:  # noqa: BLE001 - whatever one journal holds, the others and sending go on
            failed.add(directory.name)
            _log.error("recovery.failed", action="recover", executor=directory.name, why=said(error))
        finally:
            if fd is not None:
                os.close(fd)
    known = {directory.name for directory in replay.folders(root)} - failed | {executor}
    total += _lost(database, watch.over(lost_seconds) - known, clock.now(), lost_seconds)
    if total != Recovered():
        _log.warning(
            "recovered", action="recover", outcomes=total.outcomes, uncertain=total.uncertain, released=total.released
        )
    return total


def of_dead(database: Database, root: Path, owner: str, clock: Clock) -> Recovered:
    """Recover what one life left behind that the caller knows to be dead; called where no mta process lives to do it.

    From its journal, exactly, where this machine has it and did not boot since; else nobody can say what left, and every message of its ended leases that
    waits is uncertain. Raises Conflict where its journal is held: somebody lives or recovers it; Failed where it cannot be read:
    its ended leases are judged all the same.
    """
    directory = root / owner
    if not directory.is_dir():
        return _lost(database, {owner}, clock.now(), LOST_SECONDS)
    fd = None
    try:
        fd = replay.hold(directory)
        if fd is None:
            raise Conflict(f"the journal of {owner} is held", "its process lives, or another recovers it just now")
        return _dead(database, directory, clock)
    except OSError as error:
        found = _lost(database, {owner}, clock.now(), LOST_SECONDS)
        raise Failed(
            f"the journal of {owner} cannot be read ({error}); of its ended leases {found.uncertain} messages are uncertain",
            "mend the disk or give the folder back to its owner, and it is read again",
        ) from error
    finally:
        if fd is not None:
            os.close(fd)


def _dead(database: Database, directory: Path, clock: Clock) -> Recovered:
    executor, now = directory.name, clock.now()
    told = replay.read(directory)
    doubt = _doubt(told, clock.boot_id())
    outcomes = 0
    for sealed in told.unapplied:
        with database.transaction() as conn:
            outcomes += settle(conn, executor, sealed, now).recorded
    if told.torn_bytes:
        tell = _log.error if told.damage else _log.warning
        tell("journal.torn", action="recover", executor=executor, bytes=told.torn_bytes, damage=told.damage)
    if doubt:
        found = _lost(database, {executor}, now, None, doubt)
        replay.remove(directory)  # a batch that could not be judged is one of a lost owner when its lease is over
        return replace(found, outcomes=outcomes)
    with database.transaction() as conn:
        held = _lock(conn, executor)
        uncertain = _open(held, told.uncertain)
        first = conn.execute(
            "insert into journal_applied (process, segment, number) values (%s, %s, 0) on conflict do nothing returning 1",
            (executor, _UNCERTAIN),
        ).fetchone()
        if first is not None:
            settle_outcomes(conn, executor, losses.of(conn, uncertain, "its process was killed", now), now)
        released = dispatch.release(conn, executor, _tokens(held))
    replay.remove(directory)
    return Recovered(outcomes, len(uncertain), released)


def _doubt(told: Replay, boot_id: str) -> str:
    """Return why a journal may lack starts, "" where it tells all. ``boot_id``: the machine's now. Pure.

    An unknown boot counts as another one: too many uncertain messages are named then, and none is sent twice unnamed.
    """
    if not told.boot_id or not boot_id:
        return "its machine may have been lost"
    if told.boot_id != boot_id:
        return "its machine was lost"
    return "its process was killed and its journal damaged" if told.damage else ""


def _stalled(database: Database, directory: Path, now: datetime, seconds: float) -> Recovered:
    executor = directory.name
    with database.connection() as conn:
        if not _lock(conn, executor, seconds):
            return Recovered()
    with database.transaction() as conn:
        held = _lock(conn, executor, seconds)
        told = replay.read(directory)  # after the lock: neither it nor a renewal can change what we read about them
        if told.damage:
            raise Failed(
                f"the journal of {executor}, which stalls, is {told.damage}", "its leases are lost if it stays so"
            )
        applied = set(
            conn.execute("select segment, number from journal_applied where process = %s", (executor,)).fetchall()
        )
        outcomes = [
            outcome
            for sealed in told.unapplied
            if (sealed.segment, sealed.number) not in applied
            for outcome in sealed.outcomes
            if outcome.batch_id in held and held[outcome.batch_id].token == outcome.token
        ]
        settled = settle_outcomes(conn, executor, outcomes, now)
        uncertain = _open(_lock(conn, executor, seconds), told.uncertain)
        settle_outcomes(conn, executor, losses.of(conn, uncertain, "its process stalled", now), now)
        released = dispatch.release(conn, executor, _tokens(held))
    return Recovered(settled.recorded, len(uncertain), released)


def _lost(
    database: Database, owners: Collection[str], now: datetime, seconds: float | None, why: str = "its machine was lost"
) -> Recovered:
    """Judge batches of lost owners, each in a transaction of its own: one that cannot be judged stops no other.

    ``seconds``: since the end of the lease; None: whatever the lease, for the caller knows that they are dead.
    """
    total, last = Recovered(), 0
    for _ in range(MAX_BATCHES):
        try:
            with database.transaction() as conn:
                row = conn.execute(
                    "select id, token, account_id, delivery_id, owner, destination, ids from dispatch_batch "
                    "where owner = any(%s) and (%s::float8 is null "
                    "or expires_at < clock_timestamp() - make_interval(secs => %s::float8)) and id > %s "
                    "order by id limit 1 for update skip locked",
                    (list(owners), seconds, seconds or 0.0, last),
                ).fetchone()
                if row is None:
                    break
                last, token, account, delivery, owner, destination, ids = row
                lease = dispatch.Lease(last, account, delivery, destination, token, tuple(ids))
                waiting = dispatch.load(conn, [lease])[last]
                starts = [Start(account, delivery, message.id, last, token) for message in waiting]
                settle_outcomes(conn, owner, losses.of(conn, starts, why, now), now)
        except REFUSALS as refusal:
            _log.error("recovery.failed", action="recover", batch=last, why=type(refusal).__name__)
        else:
            total += Recovered(uncertain=len(starts), released=1)
    return total


@dataclass(frozen=True, slots=True)
class _Batch:
    token: int
    ids: frozenset[int]


def _lock(conn: Connection, owner: str, ended_seconds: float | None = None) -> Mapping[int, _Batch]:
    """Lock the batches of ``owner``, or those whose lease ended so long ago; return them by id."""
    rows = conn.execute(
        "select id, token, ids from dispatch_batch where owner = %s and (%s::float8 is null "
        "or expires_at < clock_timestamp() - make_interval(secs => %s::float8)) order by id for update",
        (owner, ended_seconds, ended_seconds or 0.0),
        binary=True,
    ).fetchall()
    return {id_: _Batch(token, frozenset(ids)) for id_, token, ids in rows}


def _tokens(held: Mapping[int, _Batch]) -> dict[int, int]:
    return {id_: batch.token for id_, batch in held.items()}


def _open(held: Mapping[int, _Batch], starts: Iterable[Start]) -> list[Start]:
    """Return the starts in doubt. A message that left its batch has its outcome, whatever the journal lost of it."""
    return [s for s in starts if (own := held.get(s.batch_id)) and own.token == s.token and s.id in own.ids]
