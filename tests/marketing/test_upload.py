"""The upload ledger under races: what was prepared anew or stopped while a part was on its way."""

from __future__ import annotations

import msgspec
import psycopg
import pytest

from midsource.marketing import handover, orders, upload
from midsource.marketing.upload import StoredPart
from midsource.model.errors import Conflict, Failed
from midsource.store.database import scalar
from midsource.testing.link import LinkedHalves
from midsource.testing.proxy import Fault, FaultProxy, Pass, Seen
from midsource.wire.schema import PartAnswer


def first_part(halves: LinkedHalves, delivery: int) -> StoredPart:
    with halves.marketing.connection() as conn:
        return upload.ready_parts(conn, delivery, 1)[0]


def prepare_anew(halves: LinkedHalves, delivery: int) -> None:
    """Let part 1 be another part of the same number, as a corrected content makes it."""
    with halves.marketing.connection() as conn:
        conn.execute(
            "update upload_part set content_hash = 'another', row_hash = 1 where delivery_id = %s", (delivery,)
        )


def test_an_answer_about_an_earlier_preparation_acknowledges_nothing(halves: LinkedHalves) -> None:
    delivery = halves.prepared(20)
    part = first_part(halves, delivery)
    begun = upload.begin(halves.marketing, part)
    assert begun is not None
    prepare_anew(halves, delivery)
    answer = PartAnswer(part=part.name, rows=part.rows, accepted=part.rows, row_hash=str(part.row_hash))
    upload.acknowledge(halves.marketing, part, begun[1], answer)
    assert upload.cut(halves.marketing, part, begun[1], 10, 0.0, 1) == 0
    assert upload.begin(halves.marketing, part) is None
    with halves.marketing.connection() as conn:
        assert conn.execute("select state, row_hash, content_hash from upload_part").fetchall() == [
            ("stored", 1, "another")
        ]


def test_no_part_leaves_once_the_delivery_is_stopped(halves: LinkedHalves) -> None:
    delivery = halves.prepared(500, part_rows=50)
    with halves.marketing.connection() as conn:
        conn.execute(
            "insert into option (name, value, modified_by) values ('NmsMidSourcing_PrepareFlow', '1', 'alice')"
        )

    def stop_during_the_third_part(seen: Seen) -> Fault:
        if seen.path.endswith("/parts/3"):
            with halves.marketing.transaction() as conn:
                orders.order(conn, delivery, "stop", "alice", halves.clock.now())
        return Pass()

    with FaultProxy(halves.port, stop_during_the_third_part) as proxy:
        halves.link_to(proxy.url)
        assert handover.hand_over(halves.context(delivery)).note.endswith("is stopped already")
        assert [seen.path for seen in proxy.seen if "/parts/" in seen.path][-1].endswith("/parts/3")
        halves.run(orders.carry_order, delivery)
    with halves.marketing.connection() as conn:
        assert scalar(conn, "select count(*) from upload_part where state = 'acknowledged'") == 3
    with pytest.raises(Conflict, match="no longer handed over"):
        upload.begin(halves.marketing, first_part(halves, delivery))


def cut_in_two(halves: LinkedHalves, delivery: int) -> tuple[StoredPart, PartAnswer]:
    """Cut part 1, though the mid holds it; return it and what the mid says of it."""
    part = first_part(halves, delivery)
    begun = upload.begin(halves.marketing, part)
    assert begun is not None
    assert upload.cut(halves.marketing, part, begun[1], 10, 0.0, 1) == 2
    return part, PartAnswer(part=part.name, rows=part.rows, accepted=part.rows, row_hash=str(part.row_hash))


def parts_of(halves: LinkedHalves) -> list[tuple[str, str]]:
    with halves.marketing.connection() as conn:
        return conn.execute("select part, state from upload_part order by part").fetchall()


CUT = [("1", "split"), ("1.1", "stored"), ("1.2", "stored")]


def test_a_cut_is_taken_back_as_a_whole_or_not_at_all(halves: LinkedHalves) -> None:
    delivery = halves.prepared(20)
    part, answer = cut_in_two(halves, delivery)
    with halves.marketing.connection() as conn:
        conn.execute(
            "create function die() returns trigger language plpgsql as $$ begin raise 'killed here'; end $$; "
            "create trigger die before update on upload_part for each row when (new.state = 'acknowledged') execute function die()"
        )
    with pytest.raises(psycopg.errors.RaiseException, match="killed here"):
        upload.whole_again(halves.marketing, part, answer)
    assert parts_of(halves) == CUT, "its children are still there to be sent"
    with halves.marketing.connection() as conn:
        conn.execute("drop trigger die on upload_part")
    upload.whole_again(halves.marketing, part, answer)
    assert parts_of(halves) == [("1", "acknowledged")]


def test_a_cut_stays_where_the_mid_holds_other_rows(halves: LinkedHalves) -> None:
    part, answer = cut_in_two(halves, halves.prepared(20))
    with pytest.raises(Failed, match="holds other rows"):
        upload.whole_again(halves.marketing, part, msgspec.structs.replace(answer, row_hash="1"))
    assert parts_of(halves) == CUT
