"""Sums of blocks: order-free, and different where rows differ."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import psycopg

from midsource.wire.blocks import BLOCK_OF, BLOCK_ROWS, ROW_HASH, BlockSum, block_of, differing, ids_of, sums

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def total(block: int, counts: dict[str, int], hash_: str) -> BlockSum:
    return BlockSum(block=block, counts=counts, hash=hash_, latest=NOW)


def test_blocks_are_ranges_of_a_thousand_ids_from_one_on() -> None:
    assert [block_of(n) for n in (1, 1000, 1001, 2000, 2001)] == [0, 0, 1, 1, 2]
    assert ids_of([0, 2]) == [(1, 1000), (2001, 3000)]


def test_rows_of_several_states_become_one_sum_modulo_two_to_the_64th() -> None:
    rows = [(3, 1, 5, 2**64 - 1, NOW), (3, 6, 2, 3, NOW.replace(day=2)), (4, 1, 1, -1, NOW)]
    found = sums(rows)
    assert found[3].counts == {"1": 5, "6": 2}
    assert found[3].hash == "2"
    assert found[3].latest.day == 2
    assert found[4].hash == str(2**64 - 1)


def test_blocks_differ_by_count_by_hash_and_by_being_there_at_all() -> None:
    ours = {0: total(0, {"1": 2}, "9"), 1: total(1, {"1": 2}, "9"), 2: total(2, {"1": 2}, "9"), 3: total(3, {}, "0")}
    theirs = {0: total(0, {"1": 2}, "9"), 1: total(1, {"1": 2}, "8"), 2: total(2, {"2": 2}, "9"), 4: total(4, {}, "0")}
    assert differing(ours, theirs) == [1, 2, 3, 4]


def test_the_hash_of_the_database_sees_every_column_and_no_order(database: Callable[[], str]) -> None:
    """Swapped states, a changed reason, a revision, an id: each gives another sum; the order of rows none."""
    statement = (
        f"select sum({ROW_HASH}), min({BLOCK_OF}) from unnest(%s::bigint[], %s::smallint[], %s::smallint[], %s::int[]) "
        "as m (id, state, reason, revision)"
    )
    base = [(1, 1, 0, 2), (2, 61, 20, 3), (1000, 6, 0, 1)]
    variants = [
        [(1, 61, 0, 2), (2, 1, 20, 3), (1000, 6, 0, 1)],
        [(1, 1, 20, 2), (2, 61, 0, 3), (1000, 6, 0, 1)],
        [(1, 1, 0, 3), (2, 61, 20, 2), (1000, 6, 0, 1)],
        [(1, 1, 0, 2), (2, 61, 20, 3), (999, 6, 0, 1)],
        [(1, 1, 0, 2), (2, 61, 20, 3)],
    ]
    with psycopg.connect(database()) as conn:

        def summed(rows: list[tuple[int, int, int, int]]) -> object:
            row = conn.execute(statement, [list(column) for column in zip(*rows, strict=True)]).fetchone()
            assert row is not None
            assert row[1] == 0
            return row[0]

        assert summed(base) == summed(base[::-1])
        assert summed([(1000, 6, 0, 0), *base[:2]]) == summed(base)  # nothing reported yet: revision 0 here, 1 there
        assert len({summed(rows) for rows in (base, *variants)}) == len(variants) + 1
        # Known values: another version of PostgreSQL must give the same, for two sides of different versions.
        assert summed([(1, 1, 0, 2)]) == 6803085695457229871
    assert BLOCK_ROWS == 1000
