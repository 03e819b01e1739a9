"""Parts become ledger rows exactly once; a bad row is refused alone; finalise proves what is here."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable
from datetime import timedelta

import msgspec
import pytest

from midsource.mid import counters, deliveries, disk_budget, orders, reception
from midsource.mid.options import TABLE
from midsource.model.errors import Conflict, MidsourceError, NotFound, UserError
from midsource.model.ids import delivery_id
from midsource.model.options import DISK_BUDGET
from midsource.store.database import scalar
from midsource.testing.mid import MidDatabase
from midsource.wire import rows as wire
from midsource.wire.schema import DeliveryAnswer, DeliverySpec, Finalise, FinaliseAnswer, PartAnswer, PartRow


def lines(ids: Iterable[int], domain: str = "d.test") -> bytes:
    return b"".join(wire.encode_row(PartRow(id=n, to=f"p{n}@{domain}", d={"name": f"Zoë {n}\t\\"})) for n in ids)


@dataclasses.dataclass
class Sender:
    mid: MidDatabase
    number: int

    def spec(self, **changes: str) -> DeliverySpec:
        first = DeliverySpec(
            id=self.number,
            label="spring",
            subject="Hello {{ name }}",
            html="<p>é</p>",
            text="é",
            from_name="Shop",
            from_address="news@shop.test",
            brand="shop",
        )
        return msgspec.structs.replace(first, **changes)

    def announce(self, **changes: str) -> DeliveryAnswer:
        return deliveries.put_delivery(
            self.mid.database, self.mid.account_id, self.spec(**changes), self.mid.clock.now()
        )

    def put(self, part: str, raw: bytes, content_hash: str = "") -> PartAnswer:
        hash_ = content_hash or wire.content_hash(raw)
        return reception.put_part(
            self.mid.database, self.mid.account_id, self.number, part, raw, hash_, self.mid.clock.now()
        )

    def finalise(self, raw: bytes, parts: int) -> FinaliseAnswer:
        found = list(wire.lines(raw))
        claim = Finalise(messages=len(found), row_hash=str(wire.sum_hashes(map(wire.row_hash, found))), parts=parts)
        return reception.finalise(self.mid.database, self.mid.account_id, self.number, claim, self.mid.clock.now())

    def held(self) -> list[int]:
        with self.mid.database.connection() as conn:
            return [
                n for (n,) in conn.execute("select id from message where delivery_id = %s order by id", (self.number,))
            ]


@pytest.fixture
def sender(mid_db: MidDatabase) -> Sender:
    made = Sender(mid_db, delivery_id(mid_db.clock.now(), 7))
    made.announce()
    return made


def test_a_part_is_stored_as_sent_and_counted(sender: Sender) -> None:
    answer = sender.put("1", lines(range(1, 4)))
    assert (answer.rows, answer.accepted, answer.refused, answer.repeated) == (3, 3, (), False)
    with sender.mid.database.connection() as conn:
        row = conn.execute("select email, domain, state, data from message where id = 2").fetchone()
        assert row is not None
        assert row[:3] == ("p2@d.test", "d.test", 6)
        assert msgspec.json.decode(row[3]) == {"name": "Zoë 2\t\\"}
        assert counters.totals(conn, sender.mid.account_id, sender.number) == {6: 3}


def test_a_repeat_gets_the_first_answer_whatever_happened_since(sender: Sender) -> None:
    raw = lines([1, 2]) + b"rubbish\n"
    first = sender.put("1", raw)
    assert sender.put("1", raw) == msgspec.structs.replace(first, repeated=True)
    sender.finalise(lines([1, 2]), 1)
    assert sender.put("1", raw) == msgspec.structs.replace(first, repeated=True)
    assert sender.held() == [1, 2]
    assert reception.get_part(sender.mid.database, sender.mid.account_id, sender.number, "1") == first


def test_other_content_under_a_number_is_a_conflict(sender: Sender) -> None:
    sender.put("1", lines([1]))
    with pytest.raises(Conflict, match="other content"):
        sender.put("1", lines([2]))
    assert sender.held() == [1]


@pytest.mark.parametrize(
    ("first", "second"), [("3", "3.1"), ("3.1", "3"), ("3.2.1", "3.2"), ("3", "3.2.1"), ("3.2.1", "3")]
)
def test_a_whole_and_its_pieces_exclude_each_other(sender: Sender, first: str, second: str) -> None:
    sender.put(first, lines([1]))
    with pytest.raises(Conflict, match=f"part {first}"):
        sender.put(second, lines([2]))
    sender.put("3.9" if "." in first else "31", lines([3]))  # a sibling, and another number that begins alike
    assert sender.held() == [1, 3]


def test_a_whole_and_a_piece_at_the_same_moment_never_both_stay(sender: Sender) -> None:
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def put(part: str, raw: bytes) -> None:
        start.wait()
        try:
            sender.put(part, raw)
            outcomes.append(part)
        except Conflict:
            outcomes.append("refused")

    parts = [("5", lines([1])), *((f"5.{n}", lines([n])) for n in range(1, 8))]
    threads = [threading.Thread(target=put, args=part) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = set(outcomes) - {"refused"}
    assert taken == {"5"} or taken == {f"5.{n}" for n in range(1, 8)}


def test_a_bad_row_is_refused_alone_with_its_reason(sender: Sender) -> None:
    big = wire.encode_row(PartRow(id=6, to="p6@d.test", d={"x": "y" * 70_000}))
    raw = (
        lines([1])
        + b"{not json\n"
        + b'{"id":3,"to":"no address","d":{}}\n'
        + b'{"id":4,"d":{}}\n'
        + b'{"id":-5,"to":"a@b.test","d":{}}\n'
        + big
        + lines([1])
        + b'{"id":8,"to":"evil\\r\\nBcc: x@d.test","d":{}}\n'
        + b'{"id":9,"to":"caf\xff@d.test","d":{}}\n'
        + b'{"id":10,"to":"a@b.test","d":{"x":'
        + b"[" * 30_000
        + b"\n"
        + b"\n"
        + b'{"id":99999999999999999999,"to":"a@b.test","d":{}}\n'
        + b'{"id":12,"to":"nul@d.test","d":{"x":"a\\u0000b"}}\n'
        + lines([13], "bücher.test")
    )
    answer = sender.put("1", raw)
    assert sender.held() == [1, 12, 13]
    assert (answer.rows, answer.accepted) == (14, 3)
    why = [(row.id, row.why) for row in answer.refused]
    assert [id_ for id_, _ in why] == [0, 3, 4, 0, 6, 1, 8, 9, 0, 0, 0]
    assert "line 2" in why[0][1]
    assert why[1][1] == "bad address: it has no @"
    assert "65536" in why[4][1]
    assert "twice" in why[5][1]
    with sender.mid.database.connection() as conn:
        assert scalar(conn, "select domain from message where id = 13") == "xn--bcher-kva.test"
    assert sender.finalise(
        lines([1]) + wire.encode_row(PartRow(id=12, to="nul@d.test", d={"x": "a\0b"})) + lines([13], "bücher.test"), 1
    ).agreed


def test_an_id_that_came_in_another_part_is_refused_alone(sender: Sender) -> None:
    sender.put("1", lines([1, 2, 3]))
    answer = sender.put("2", lines([3, 4]))
    assert answer.accepted == 1
    assert [(row.id, row.why) for row in answer.refused] == [(3, "its id came in another part")]
    assert sender.held() == [1, 2, 3, 4]
    with sender.mid.database.connection() as conn:
        assert counters.totals(conn, sender.mid.account_id, sender.number) == {6: 4}


def test_parts_with_the_same_ids_at_the_same_moment_take_each_id_once(sender: Sender) -> None:
    answers: list[PartAnswer] = []
    start = threading.Barrier(4)

    def put(number: int) -> None:
        start.wait()
        answers.append(sender.put(str(number), lines(range(number * 100, number * 100 + 400))))

    threads = [threading.Thread(target=put, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sender.held() == list(range(100, 800))
    assert sum(answer.accepted for answer in answers) == 700
    assert sum(len(answer.refused) for answer in answers) == 4 * 400 - 700


def test_a_cut_body_or_too_many_rows_change_nothing(sender: Sender) -> None:
    raw = lines([1, 2])
    with pytest.raises(UserError, match="content hash"):
        sender.put("1", raw[:-5], wire.content_hash(raw))
    with pytest.raises(reception.PartTooLarge):
        sender.put("1", b"\n" * 5_001)
    assert sender.held() == []
    with pytest.raises(NotFound):
        reception.get_part(sender.mid.database, sender.mid.account_id, sender.number, "1")


def test_finalise_says_what_is_here_and_what_is_missing(sender: Sender) -> None:
    whole = lines(range(1, 7))
    sender.put("1", lines([1, 2]))
    sender.put("3.1", lines([5]))
    sender.put("3.2", lines([6]))
    answer = sender.finalise(whole, 3)
    assert (answer.agreed, answer.messages, answer.parts, answer.state, answer.missing) == (False, 4, 2, 25, ("2",))
    sender.put("2", lines([3, 4]))
    assert not sender.finalise(lines(range(1, 6)) + lines([6], "other.test"), 3).agreed  # the count alone is no proof
    answer = sender.finalise(whole, 3)
    assert (answer.agreed, answer.state, answer.missing) == (True, 45, ())
    assert sender.finalise(whole, 3) == answer
    with pytest.raises(Conflict, match="takes no more parts"):
        sender.put("4", lines([9]))


def test_what_was_stopped_before_it_was_complete_is_never_ready(sender: Sender) -> None:
    sender.put("1", lines([1]))
    orders.command(sender.mid.database, sender.mid.account_id, sender.number, "stop", sender.mid.clock.now())
    assert (sender.finalise(lines([1, 2]), 2).agreed, sender.finalise(lines([1, 2]), 2).state) == (False, 85)
    with pytest.raises(Conflict, match="stopped before it was complete"):
        sender.finalise(lines([1]), 1)
    with pytest.raises(Conflict, match="stopped"):
        sender.put("2", lines([2]))


def test_the_same_announcement_is_answered_alike_and_another_only_before_parts(sender: Sender) -> None:
    assert sender.announce() == DeliveryAnswer(state=25, revision=1, created=False)
    assert sender.announce(subject="Better") == DeliveryAnswer(state=25, revision=2, created=False)
    sender.put("1", lines([1]))
    assert sender.announce(subject="Better").revision == 2
    with pytest.raises(Conflict, match="other content"):
        sender.announce(subject="Third")


@pytest.mark.parametrize("serial", [5, (201412 << 32) | 1, (209912 << 32) | 1, (202613 << 32) | 1])
def test_a_number_of_no_plausible_month_makes_no_partition(mid_db: MidDatabase, serial: int) -> None:
    with pytest.raises(UserError, match="no delivery number of a month"):
        Sender(mid_db, serial).announce()


def test_a_delivery_of_another_account_is_not_found(sender: Sender) -> None:
    other = dataclasses.replace(sender.mid, account_id=sender.mid.account_id + 1)
    with pytest.raises(NotFound):
        Sender(other, sender.number).put("1", lines([1]))


def test_a_full_disk_keeps_nothing_and_says_507(sender: Sender) -> None:
    with sender.mid.database.connection() as conn:
        conn.execute(
            "create function full_disk() returns trigger language plpgsql as "
            "$$ begin raise exception using errcode = 'disk_full', message = 'No space left on device'; end $$"
        )
        conn.execute(
            "create trigger full_disk before insert on delivery_part for each row execute function full_disk()"
        )
    with pytest.raises(MidsourceError, match="disk") as caught:
        sender.put("1", lines([1]))
    assert caught.value.http_status == 507
    assert sender.held() == []


def test_reception_shows_in_the_counters_at_the_time_given(sender: Sender) -> None:
    sender.mid.clock.advance(timedelta(hours=1))
    sender.put("1", lines([1]))
    with sender.mid.database.connection() as conn:
        assert scalar(conn, "select event_at from message") == sender.mid.clock.now()


def test_values_and_addresses_come_to_the_ledger_as_they_were_sent(sender: Sender) -> None:
    """Whatever looks like COPY's own signs, or like a key of the row, is data."""
    hostile = {"a": "x\\\ty\nz\r\\N", "b": ',"id":7,"to":"', "c": {"d": [1, None, 2.5, "\\."]}, "é": "\u2028\x7f"}
    wanted = {1: ("p1@d.test", hostile), 2: ('"odd \\" local"@d.test', {})}
    rows = [PartRow(id=n, to=to, d=data) for n, (to, data) in wanted.items()]
    sender.put("1", b"".join(map(wire.encode_row, rows)))
    with sender.mid.database.connection() as conn:
        found = conn.execute("select id, email, data from message order by id").fetchall()
    assert {id_: (email, msgspec.json.decode(data)) for id_, email, data in found} == wanted


def test_a_spent_disk_budget_refuses_new_parts_and_answers_for_those_that_are_here(sender: Sender) -> None:
    first = sender.put("1", lines([1]))
    with sender.mid.database.transaction() as conn:
        TABLE.set_value(conn, DISK_BUDGET, "1", by="alice", now=sender.mid.clock.now())
    sender.put("2", lines([2]))  # a database of a few megabytes is within a gigabyte
    with sender.mid.database.transaction() as conn:
        size = scalar(conn, "select pg_database_size(current_database())")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk_budget, "GB", size // 2)  # the unit shrinks: a real gigabyte takes a minute to write
        with pytest.raises(disk_budget.DiskBudgetSpent, match="its budget is"):
            sender.put("3", lines([3]))
        assert sender.put("1", lines([1])) == msgspec.structs.replace(first, repeated=True)
        assert sender.finalise(lines([1, 2]), 2).agreed
    assert sender.held() == [1, 2]
