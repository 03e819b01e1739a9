"""Blocks of a delivery's messages: what both halves count and hash alike, to find where their rows differ.

Message ids of a delivery are dense (1, 2, 3 …), so block n holds ids ``n * BLOCK_ROWS + 1`` to ``(n + 1) * BLOCK_ROWS``. A
block's sum is the number of its rows in each state and the sum of its rows' hashes modulo 2^64, which does not depend on
order. A row's hash is over (id, state, reason, revision), computed by the database: ``hashint8extended`` of the id, seeded
with the rest. PostgreSQL partitions tables by that function, so it gives the same on every machine and version; if it ever
did not, every block would differ and no row would: slow, but right.

A message that the mid only received has revision 1 there and 0 in the delivery log: both count as 1.

The walk: a summary of the delivery, then blocks, MAX_BLOCKS in one answer, then the rows of at most ROW_BLOCKS blocks that
differ. Every answer is of one moment, and says by which number of the feed that moment is covered (``seq``): whoever has
applied the feed up to there knows at least what the answer says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from midsource.wire.rows import HASH_MODULUS
from midsource.wire.schema import DeliveryRow, Struct

BLOCK_ROWS = 1_000
"""Small enough that one wrong row costs one small page, large enough that ten million rows are ten thousand sums."""
MAX_BLOCKS = 100
"""Blocks of one answer: 100 000 rows are read for it, a tenth of a second."""
ROW_BLOCKS = 10
"""Blocks whose rows one answer holds: 10 000 rows, half a page of the feed."""
BLOCK_OF = f"(id - 1) / {BLOCK_ROWS}"
"""SQL: the block of a row."""
ROW_HASH = "hashint8extended(id, (greatest(revision, 1)::bigint << 24) | (reason::bigint << 8) | state::bigint)"
"""SQL: the hash of a row. State takes 8 bits of the seed, reason 16, revision 31."""


class BlockSum(Struct, frozen=True, kw_only=True):
    """One block that has rows: how many in each state (by number), and their hash as a decimal string below 2^64.

    ``latest``: when the youngest of them changed; a block that just changed may differ for that reason alone.
    """

    block: int
    counts: dict[str, int]
    hash: str
    latest: datetime


class BlockPage(Struct, frozen=True, kw_only=True):
    """``GET reconcile?first=&count=``: the sums of blocks that have rows. ``seq`` None: the feed could not be numbered."""

    generation: str
    seq: int | None
    now: datetime
    blocks: tuple[BlockSum, ...]


class LedgerRow(Struct, frozen=True, kw_only=True, array_like=True):
    """One message as the mid's ledger has it."""

    id: int
    state: int
    reason: int
    attempts: int
    revision: int
    event_at: datetime
    reply: str
    message_id: str
    to: str
    domain: str


class LedgerPage(Struct, frozen=True, kw_only=True):
    """``GET reconcile?rows=3,17``: every message of these blocks."""

    generation: str
    seq: int | None
    now: datetime
    rows: tuple[LedgerRow, ...]


class Drift(Struct, frozen=True, kw_only=True):
    """A counter of the mid that was not what its ledger says: ``n`` rows more (less, if negative) than counted."""

    domain: str
    state: int
    n: int


class LedgerSummary(Struct, frozen=True, kw_only=True):
    """``GET reconcile``: the delivery as it is on the mid, its ledger counted anew, and where its counters were wrong.

    ``last_id``: the highest message id, 0 without messages. ``held``: the mid was restored and waits to be told what
    became of its messages; its ledger may be older than the delivery log.
    """

    generation: str
    seq: int | None
    now: datetime
    delivery: DeliveryRow
    ledger: dict[str, int]
    last_id: int
    drift: tuple[Drift, ...] = ()
    mended: bool = False
    held: bool = False


def sums(rows: Iterable[Sequence[object]]) -> dict[int, BlockSum]:
    """Fold rows of (block, state, n, sum of hashes, latest) into the sums of blocks, by number."""
    found: dict[int, tuple[dict[str, int], int, datetime]] = {}
    for block, state, n, hashes, latest in rows:
        assert isinstance(block, int)
        assert isinstance(latest, datetime)
        counts, total, newest = found.setdefault(block, ({}, 0, latest))
        counts[str(state)] = int(str(n))
        found[block] = (counts, (total + int(str(hashes))) % HASH_MODULUS, max(newest, latest))
    return {
        block: BlockSum(block=block, counts=counts, hash=str(total), latest=latest)
        for block, (counts, total, latest) in sorted(found.items())
    }


def differing(ours: Mapping[int, BlockSum], theirs: Mapping[int, BlockSum]) -> list[int]:
    """Return the blocks whose sums are not the same on both sides, in order; one side may have none of it."""

    def told(sums_: Mapping[int, BlockSum], block: int) -> tuple[dict[str, int], str] | None:
        found = sums_.get(block)
        return None if found is None else (found.counts, found.hash)

    return sorted(block for block in ours.keys() | theirs.keys() if told(ours, block) != told(theirs, block))


def ids_of(blocks: Iterable[int]) -> list[tuple[int, int]]:
    """Return the first and the last message id of each block."""
    return [(block * BLOCK_ROWS + 1, (block + 1) * BLOCK_ROWS) for block in blocks]


def block_of(message_id: int) -> int:
    """Return the block of a message."""
    return (message_id - 1) // BLOCK_ROWS
