from __future__ import annotations

import os
import struct
import zlib
from datetime import timedelta
from pathlib import Path

import pytest

from midsource.mid import recovery, replay
from midsource.mid.dispatch import LEASE_SECONDS, Lease, renew
from midsource.mid.journal import Journal
from midsource.mid.records import Sealed, Start
from midsource.mid.recovery import Recovered, Watch
from midsource.mid.settle import settle
from midsource.model.errors import Failed
from midsource.model.message import MessageEvent
from midsource.testing.leases import again, batches, leased, outcome, states
from midsource.testing.mid import MidDatabase

E = MessageEvent


def start(lease: Lease, id_: int) -> Start:
    return Start(lease.account_id, lease.delivery_id, id_, lease.batch_id, lease.token)


def die(written: Journal) -> None:
    """Leave the folder as a killed process does: unlocked, unsettled."""
    written.flush()
    os.close(written._lock)


def recover(mid: MidDatabase, root: Path, **seconds: float) -> Recovered:
    """Recover as a process does that has watched for long and saw nobody renew."""
    watch = Watch(mid.clock, LEASE_SECONDS)
    watch.look(mid.database)
    mid.clock.advance(timedelta(seconds=LEASE_SECONDS + recovery.LOST_SECONDS))
    return recovery.recover(mid.database, root, "me", mid.clock, watch, **seconds)


def end_leases(mid: MidDatabase) -> None:
    with mid.database.connection() as conn:
        conn.execute("update dispatch_batch set expires_at = now() - interval '5 minutes' where owner is not null")


def free(mid: MidDatabase) -> list[list[int]]:
    with mid.database.connection() as conn:
        rows = conn.execute("select ids from dispatch_batch where owner is null order by id").fetchall()
    return [ids for (ids,) in rows]


def test_of_a_dead_process_outcomes_count_starts_are_uncertain_and_the_rest_goes_on(
    mid_db: MidDatabase, tmp_path: Path
) -> None:
    lease, now = leased(mid_db, 5), mid_db.clock.now()
    written = Journal(tmp_path, "one", mid_db.clock.boot_id())
    for id_ in (1, 2, 3):
        written.started(start(lease, id_))
    written.outcome(outcome(lease, 1, E.ACCEPTED, now))
    written.withdrawn(start(lease, 3).key)
    die(written)
    assert recover(mid_db, tmp_path) == Recovered(outcomes=1, uncertain=1, released=1)
    assert states(mid_db) == [1, 62, 6, 6, 6]
    assert free(mid_db) == [[3, 4, 5]]
    assert replay.folders(tmp_path) == []
    assert recover(mid_db, tmp_path) == Recovered()


def test_recovery_killed_before_it_removed_the_folder_is_done_once(mid_db: MidDatabase, tmp_path: Path) -> None:
    lease, now = leased(mid_db, 3), mid_db.clock.now()
    written = Journal(tmp_path, "one", mid_db.clock.boot_id())
    written.started(start(lease, 1))
    written.started(start(lease, 2))
    written.outcome(outcome(lease, 2, E.PUT_OFF, now, now + timedelta(minutes=1)))
    die(written)
    copy = {path.name: path.read_bytes() for path in (tmp_path / "one").glob("*.log")}
    recover(mid_db, tmp_path)
    (tmp_path / "one").mkdir()
    for name, data in copy.items():
        (tmp_path / "one" / name).write_bytes(data)
    recover(mid_db, tmp_path)
    assert states(mid_db) == [62, 61, 6]
    assert batches(mid_db) == [[3], [2]]
    with mid_db.database.connection() as conn:
        assert conn.execute("select count(*) from outcome").fetchone() == (2,)


def test_policy_resend_puts_what_a_dead_process_left_uncertain_back(mid_db: MidDatabase, tmp_path: Path) -> None:
    lease = leased(mid_db, 2)
    with mid_db.database.connection() as conn:
        conn.execute("""update delivery set spec = spec || '{"uncertain_policy": "resend"}'""")
    written = Journal(tmp_path, "one", mid_db.clock.boot_id())
    written.started(start(lease, 1))
    die(written)
    recover(mid_db, tmp_path)
    assert states(mid_db) == [6, 6]
    assert sorted(free(mid_db)) == [[1], [2]]


def test_a_living_process_within_its_lease_is_left_alone(mid_db: MidDatabase, tmp_path: Path) -> None:
    lease = leased(mid_db, 2)
    written = Journal(tmp_path, "one", mid_db.clock.boot_id())
    written.started(start(lease, 1))
    assert recover(mid_db, tmp_path) == Recovered()
    assert (states(mid_db), free(mid_db)) == ([6, 6], [])


def test_of_a_stalled_process_the_journal_says_what_is_uncertain(mid_db: MidDatabase, tmp_path: Path) -> None:
    lease, now = leased(mid_db, 4), mid_db.clock.now()
    written = Journal(tmp_path, "one", mid_db.clock.boot_id())
    written.started(start(lease, 1))
    written.started(start(lease, 2))
    written.outcome(outcome(lease, 2, E.ACCEPTED, now))
    written.flush()
    end_leases(mid_db)
    assert recover(mid_db, tmp_path) == Recovered(outcomes=1, uncertain=1, released=1)
    assert states(mid_db) == [62, 1, 6, 6]
    assert free(mid_db) == [[3, 4]]
    assert recover(mid_db, tmp_path) == Recovered()


def test_a_stalled_process_that_wakes_tells_late_evidence_and_repeats_nothing(
    mid_db: MidDatabase, tmp_path: Path
) -> None:
    lease, now = leased(mid_db, 3), mid_db.clock.now()
    written = Journal(tmp_path, "one", mid_db.clock.boot_id())
    written.started(start(lease, 1))
    written.started(start(lease, 2))
    known = outcome(lease, 2, E.ACCEPTED, now)
    written.outcome(known)
    written.flush()
    end_leases(mid_db)
    recover(mid_db, tmp_path)
    late = outcome(lease, 1, E.ACCEPTED, now + timedelta(seconds=70))
    with mid_db.database.transaction() as conn:
        assert settle(conn, "one", Sealed(1, 1, (known, late)), now).recorded == 1
    assert states(mid_db) == [1, 1, 6], "the 250 that came late proves the copy"


def test_of_a_lost_machine_everything_leased_and_waiting_is_uncertain(mid_db: MidDatabase, tmp_path: Path) -> None:
    leased(mid_db, 3, owner="elsewhere")
    with mid_db.database.connection() as conn:
        conn.execute("update message set state = 1 where id = 2")
    assert recover(mid_db, tmp_path) == Recovered(), "not before its lease is over for long"
    end_leases(mid_db)
    assert recover(mid_db, tmp_path, lost_seconds=3_600) == Recovered()
    assert recover(mid_db, tmp_path) == Recovered(uncertain=2, released=1)
    assert states(mid_db) == [62, 1, 62]
    assert batches(mid_db) == []


def test_a_journal_that_cannot_be_read_stops_no_other(mid_db: MidDatabase, tmp_path: Path) -> None:
    lease = leased(mid_db, 2)
    (tmp_path / "broken" / "000001.log").mkdir(parents=True)
    written = Journal(tmp_path, "one", mid_db.clock.boot_id())
    written.started(start(lease, 1))
    die(written)
    assert recover(mid_db, tmp_path).uncertain == 1
    assert [path.name for path in replay.folders(tmp_path)] == ["broken"]


def test_a_journal_that_cannot_be_read_does_not_keep_its_leases_for_ever(mid_db: MidDatabase, tmp_path: Path) -> None:
    leased(mid_db, 2, owner="broken")
    (tmp_path / "broken" / "000001.log").mkdir(parents=True)
    assert recover(mid_db, tmp_path) == Recovered(), "not before its lease is over for long"
    end_leases(mid_db)
    assert recover(mid_db, tmp_path) == Recovered(uncertain=2, released=1)
    assert (states(mid_db), batches(mid_db)) == ([62, 62], [])


def test_who_asks_for_the_recovery_of_a_journal_that_cannot_be_read_hears_why(
    mid_db: MidDatabase, tmp_path: Path
) -> None:
    leased(mid_db, 2, owner="broken")
    end_leases(mid_db)
    (tmp_path / "broken" / "000001.log").mkdir(parents=True)
    with pytest.raises(Failed, match=r"cannot be read .* 2 messages are uncertain"):
        recovery.of_dead(mid_db.database, tmp_path, "broken", mid_db.clock)
    assert states(mid_db) == [62, 62]


@pytest.mark.parametrize(
    "tail", [bytes(4096), struct.pack("<II", 3, zlib.crc32(b"abc")) + b"abc"], ids=["zeros", "unknown"]
)
def test_of_a_damaged_journal_outcomes_count_and_everything_else_is_uncertain(
    mid_db: MidDatabase, tmp_path: Path, tail: bytes
) -> None:
    """What it says is true; what it does not say of starts behind the damage nobody knows."""
    lease, now = leased(mid_db, 4), mid_db.clock.now()
    written = Journal(tmp_path, "one", mid_db.clock.boot_id())
    for id_ in (1, 2):
        written.started(start(lease, id_))
    written.outcome(outcome(lease, 1, E.ACCEPTED, now))
    die(written)
    with (tmp_path / "one" / "000001.log").open("ab") as file:
        file.write(tail)
    assert recover(mid_db, tmp_path) == Recovered(outcomes=1, uncertain=3, released=1)
    assert (states(mid_db), batches(mid_db)) == ([1, 62, 62, 62], [])
    assert replay.folders(tmp_path) == []


def test_the_leases_of_a_stalled_process_whose_journal_is_damaged_are_lost(mid_db: MidDatabase, tmp_path: Path) -> None:
    lease = leased(mid_db, 2)
    written = Journal(tmp_path, "one", mid_db.clock.boot_id())
    written.started(start(lease, 1))
    (tmp_path / "one" / "000001.log").write_bytes(bytes(4096))
    end_leases(mid_db)
    assert recover(mid_db, tmp_path, lost_seconds=3_600) == Recovered()
    assert recover(mid_db, tmp_path) == Recovered(uncertain=2, released=1)
    assert replay.folders(tmp_path) == [tmp_path / "one"], "its process lives"


def test_what_a_machine_that_lost_power_forgot_but_had_settled_stays_settled(
    mid_db: MidDatabase, tmp_path: Path
) -> None:
    """Its start came back from the disk, its outcome did not: PostgreSQL has it, and it is in no doubt."""
    lease, now = leased(mid_db, 2), mid_db.clock.now()
    put_off = outcome(lease, 1, E.PUT_OFF, now, now + timedelta(minutes=5))
    with mid_db.database.transaction() as conn:
        settle(conn, "one", Sealed(1, 1, (put_off,)), now)
    written = Journal(tmp_path, "one", mid_db.clock.boot_id())
    written.started(start(lease, 1))
    die(written)
    mid_db.clock.boot()
    assert recover(mid_db, tmp_path) == Recovered(uncertain=1, released=1)
    assert states(mid_db) == [61, 62]
    assert batches(mid_db) == [[1]]


def test_a_machine_that_lost_power_forgot_starts_so_whoever_was_leased_is_uncertain(
    mid_db: MidDatabase, tmp_path: Path
) -> None:
    """Bodies 2 and 3 left and had their 250; the power went before the next sync, and the journal ends before them."""
    lease, now = leased(mid_db, 5), mid_db.clock.now()
    written = Journal(tmp_path, "one", mid_db.clock.boot_id())
    written.started(start(lease, 1))
    written.outcome(outcome(lease, 1, E.ACCEPTED, now))
    written.flush()
    written.sync()
    path = tmp_path / "one" / "000001.log"
    durable = path.stat().st_size
    written.started(start(lease, 2), start(lease, 3))
    die(written)
    os.truncate(path, durable)
    mid_db.clock.boot()
    assert recover(mid_db, tmp_path) == Recovered(outcomes=1, uncertain=4, released=1), "though its lease is not over"
    assert (states(mid_db), batches(mid_db)) == ([1, 62, 62, 62, 62], [])
    assert replay.folders(tmp_path) == []
    with mid_db.database.connection() as conn:
        replies = conn.execute("select distinct reply from outcome where id > 1").fetchall()
    assert replies == [("the body was under way when its machine was lost",)]


@pytest.mark.parametrize("then", [None, b"", bytes(36)], ids=["no link", "an empty file", "zeros"])
def test_a_journal_that_does_not_say_under_which_boot_it_was_written_is_of_another(
    mid_db: MidDatabase, tmp_path: Path, then: bytes | None
) -> None:
    lease = leased(mid_db, 2)
    written = Journal(tmp_path, "one", mid_db.clock.boot_id())
    written.started(start(lease, 1))
    die(written)
    path = tmp_path / "one" / replay.BOOT
    path.unlink()
    if then is not None:
        path.write_bytes(then)
    assert recover(mid_db, tmp_path) == Recovered(uncertain=2, released=1)


def test_a_delivery_that_cannot_be_read_is_held_and_the_others_are_recovered_exactly(
    mid_db: MidDatabase, tmp_path: Path
) -> None:
    """Its journal failed as a whole for it, until everything that was leased counted as lost."""
    poison = leased(mid_db, 2)
    other = again(mid_db, second(mid_db), "one")
    with mid_db.database.connection() as conn:
        conn.execute("update delivery set spec = '{}' where id = %s", (poison.delivery_id,))
    written = Journal(tmp_path, "one", mid_db.clock.boot_id())
    written.started(start(poison, 1), start(other, 1))
    die(written)
    assert recover(mid_db, tmp_path) == Recovered(uncertain=2, released=2)
    assert replay.folders(tmp_path) == []
    with mid_db.database.connection() as conn:
        found = conn.execute("select delivery_id, id, state from message order by 1, 2").fetchall()
    assert found == [
        (poison.delivery_id, 1, 62), (poison.delivery_id, 2, 6), (other.delivery_id, 1, 62), (other.delivery_id, 2, 6)
    ]  # fmt: skip
    assert sorted(free(mid_db)) == [[2], [2]]


def test_a_batch_of_a_lost_machine_that_cannot_be_judged_stops_no_other(mid_db: MidDatabase, tmp_path: Path) -> None:
    poison = leased(mid_db, 2, owner="elsewhere")
    end_leases(mid_db)
    with mid_db.database.connection() as conn:
        conn.execute(
            "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'it stays'; end $$"
        )
        conn.execute(
            "create trigger refuse before update or delete on dispatch_batch for each row "
            "when (old.ids = '{1,2}') execute function refuse()"
        )
        conn.execute(
            "insert into dispatch_batch (account_id, delivery_id, destination, ready_at, ids, owner, expires_at) "
            "values (%s, %s, 'd0.test', now(), '{9}', 'elsewhere', now() - interval '5 minutes')",
            poison.delivery,
        )
    assert recover(mid_db, tmp_path) == Recovered(released=1), "the second held nobody who waits"
    assert batches(mid_db) == [[1, 2]]


def test_a_clock_of_the_database_that_steps_takes_nothing_from_who_renews(mid_db: MidDatabase, tmp_path: Path) -> None:
    """All leases are over at once by that clock, while their owners, here and elsewhere, count on their own and send on."""
    here, elsewhere = leased(mid_db, 2), again(mid_db, second(mid_db), "elsewhere")
    written = Journal(tmp_path, "one", mid_db.clock.boot_id())
    written.started(start(here, 1))
    watch = Watch(mid_db.clock, LEASE_SECONDS)

    def turn() -> Recovered:
        mid_db.clock.advance(timedelta(seconds=20))
        return recovery.recover(mid_db.database, tmp_path, "me", mid_db.clock, watch)

    for _ in range(15):  # five minutes, and a step in every one of them
        with mid_db.database.transaction() as conn:
            renew(conn, "one", {here.batch_id: here.token})
            renew(conn, "elsewhere", {elsewhere.batch_id: elsewhere.token})
        end_leases(mid_db)
        assert turn() == Recovered()
    end_leases(mid_db)
    found = [turn() for _ in range(10)]
    assert [at for at, one in enumerate(found) if one != Recovered()] == [4, 9], (
        "80 s, then 180 s after the last renewal"
    )
    assert sorted(states(mid_db)) == [6, 62, 62, 62]


def second(mid: MidDatabase) -> int:
    """Make another delivery with a batch."""
    number = mid.delivery(2, messages=2)
    with mid.database.transaction() as conn:
        conn.execute(
            "insert into dispatch_batch (account_id, delivery_id, destination, ready_at, ids) "
            "values (%s, %s, 'd0.test', now(), '{1,2}')",
            (mid.account_id, number),
        )
    return number
