"""Leases that nobody would give back, and deliveries that nobody can read."""

from __future__ import annotations

from midsource.mid import dispatch
from midsource.mid.leasing import Found, Leasing
from midsource.mid.render import Deliveries
from midsource.policy.paths import Limits
from midsource.security.keys import HomeKey
from midsource.testing.leases import leased
from midsource.testing.mid import MidDatabase


def leasing(mid: MidDatabase) -> Leasing:
    prepared = Deliveries(HomeKey(b"k" * 32), mid.clock)
    return Leasing(mid.database, "one", prepared, Limits(4), mid.clock, lease_seconds=60)


def took(found: Found) -> list[int]:
    return [taken.lease.delivery_id for taken in found.taken]


def owners(mid: MidDatabase) -> list[str | None]:
    with mid.database.connection() as conn:
        return [owner for (owner,) in conn.execute("select owner from dispatch_batch order by id").fetchall()]


def test_a_lease_whose_commit_was_cut_off_is_given_back_by_its_owner(mid_db: MidDatabase) -> None:
    """Its owner lives, so recovery leaves it alone; it knows nothing of it, so it neither renews nor sends it."""
    lost = leased(mid_db, 2)
    mine = leasing(mid_db)
    assert mine.release_strays({lost.batch_id: lost.token}) == 0, "what is held is no stray"
    assert mine.release_strays({lost.batch_id: lost.token - 1}) == 1, "held under an earlier lease is not held"
    assert owners(mid_db) == [None]
    assert took(mine.take({}, 0, ())) == [lost.delivery_id]


def test_strays_are_ones_own(mid_db: MidDatabase) -> None:
    leased(mid_db, 2, owner="another")
    assert leasing(mid_db).release_strays({}) == 0
    assert owners(mid_db) == ["another"]


def test_a_delivery_that_cannot_be_read_holds_up_no_other_at_the_same_destination(mid_db: MidDatabase) -> None:
    poison, good = leased(mid_db, 1), mid_db.delivery(2, messages=1)
    with mid_db.database.transaction() as conn:
        dispatch.release(conn, "one", {poison.batch_id: poison.token})
        conn.execute(
            "insert into dispatch_batch (account_id, delivery_id, destination, ready_at, ids) values (%s, %s, 'd0.test', now(), '{1}')",
            (mid_db.account_id, good),
        )
        conn.execute("update delivery set spec = '{}' where id = %s", (poison.delivery_id,))
    mine = leasing(mid_db)
    taken = took(mine.take({}, 0, ())) + took(mine.take({}, 0, ()))
    assert taken == [good]
    assert owners(mid_db) == [None, "one"], "it waits, leased by nobody"
