"""A proof goes the whole way to the mid, to seed addresses only, and counts nowhere in the delivery it is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from midsource.marketing import brands, deliveries, fields, handover, lists, person, preparation, proofs, seeds
from midsource.marketing.delivery_file import draft_of
from midsource.model.delivery import DeliveryState
from midsource.model.errors import Conflict, MidsourceError, NotFound, UserError
from midsource.model.message import Reason
from midsource.store import migrate
from midsource.store.database import Connection, scalar
from midsource.testing.link import LinkedHalves

SEEDS = ["paula@atelier.example", "seed@agency.example"]


class Stage:
    """Three people on a list, two seed addresses, one delivery to that list."""

    def __init__(self, conn: Connection, halves: LinkedHalves) -> None:
        migrate.ensure_partitions(conn, "marketing", halves.clock.now())
        brands.ensure_defaults(
            conn,
            from_name="Atelier",
            from_address="news@atelier.example",
            unsubscribe_url="https://m.example/u/{token}",
        )
        fields.add_field(conn, "city", "text")
        self.halves = halves
        list_id = lists.ensure_list(conn, "readers")
        self.people = []
        for name in ("Ana", "Bea", "Cléo"):
            given = {"email": f"{name[:1].lower()}@people.example", "first_name": name, "city": f"City of {name}"}
            self.people.append(person.save(conn, given, opted_out=False))
        conn.execute("insert into list_member select %s, id from recipient", (list_id,))
        for address in SEEDS:
            seeds.add_seed(conn, address.upper(), "team")
        draft = draft_of(
            {"label": "Spring", "subject": "Hello {{ recipient.first_name }}", "target": {"list": "readers"}},
            text="Dear {{ recipient.first_name }} of {{ recipient.city }}: {{ links.unsubscribe }}",
        )
        self.delivery = deliveries.create(conn, draft, halves.clock)

    def proof(self, conn: Connection, people: list[int] | None = None, to: list[str] | None = None) -> int:
        return proofs.send_proof(
            conn, self.delivery, people=people or [], to=to or [], by="operator", clock=self.halves.clock
        )


@pytest.fixture
def stage(halves: LinkedHalves) -> Stage:
    with halves.marketing.transaction() as conn:
        return Stage(conn, halves)


def test_the_chosen_persons_message_goes_to_every_seed_address_and_to_nobody_else(
    halves: LinkedHalves, stage: Stage
) -> None:
    ana, _bea, cleo = stage.people
    with halves.marketing.transaction() as conn:
        number = stage.proof(conn, [cleo, ana])
    halves.run(preparation.prepare, number)
    report = halves.run(handover.hand_over, number)
    assert report.then == ("order",)  # confirmed when it was asked for, so it starts by itself
    with halves.mid.connection() as conn:
        rows = conn.execute("select email, data from message where delivery_id = %s order by id", (number,)).fetchall()
        spec = scalar(conn, "select spec from delivery where id = %s", (number,))
    assert [row[0] for row in rows] == [*SEEDS, *SEEDS]
    assert ["Cléo" in row[1] and "City of Cléo" in row[1] for row in rows] == [True, True, False, False]
    assert spec["subject"] == "[proof 1] Hello {{ recipient.first_name }}"
    with halves.marketing.connection() as conn:
        main, made = deliveries.get(conn, stage.delivery), deliveries.get(conn, number)
        assert (main.state, main.targeted) == (DeliveryState.EDITED, None)
        assert (made.targeted, made.to_deliver, made.handed_over, made.proof_of) == (4, 4, 4, stage.delivery)
        assert scalar(conn, "select count(*) from broad_log where delivery_id = %s", (stage.delivery,)) == 0
        assert scalar(conn, "select count(*) from broad_log where email like '%@people.example'") == 0
    assert halves.totals_agree(number)


def test_proofs_are_numbered_and_take_the_content_of_their_moment(halves: LinkedHalves, stage: Stage) -> None:
    with halves.marketing.transaction() as conn:
        first = stage.proof(conn)
        version = deliveries.get(conn, stage.delivery).version
        draft = draft_of({"label": "Spring", "subject": "Better"}, text="{{ links.unsubscribe }}")
        deliveries.change(conn, stage.delivery, draft, version)
        second = stage.proof(conn, to=SEEDS[:1])
        shown = proofs.proofs_of(conn, stage.delivery)
        assert [(proof.id, proof.number, proof.seeds) for proof in shown] == [(second, 2, SEEDS[:1]), (first, 1, SEEDS)]
        assert deliveries.get(conn, first).subject == "[proof 1] Hello {{ recipient.first_name }}"
        assert deliveries.get(conn, second).subject == "[proof 2] Better"
        assert deliveries.get(conn, first).proof_people == stage.people[:1]  # the first of the target


def test_a_seed_address_that_may_not_be_mailed_is_excluded_with_its_reason(halves: LinkedHalves, stage: Stage) -> None:
    with halves.marketing.transaction() as conn:
        conn.execute("insert into denylist (entry) values ('@agency.example')")
        conn.execute("update recipient set opted_out = true")  # nothing goes to the person, so this excludes nothing
        number = stage.proof(conn)
    halves.run(preparation.prepare, number)
    with halves.marketing.connection() as conn:
        log = conn.execute(
            "select email, reason from broad_log where delivery_id = %s order by id", (number,)
        ).fetchall()
    assert log == [(SEEDS[0], 0), (SEEDS[1], Reason.DENYLISTED)]


@pytest.mark.parametrize(
    ("change", "people", "to", "kind", "says"),
    [
        ("delete from seed_address", [], [], UserError, "no seed address yet"),
        ("", [], ["a@people.example"], NotFound, "is no seed address"),
        ("", [10**9], [], NotFound, "no recipient"),
        ("delete from list_member", [], [], UserError, "nobody is in the target"),
        ("insert into seed_address select 'a@people.example'", [], [], Conflict, "person's own"),
        ("insert into seed_address select n || '@s.example' from generate_series(1, 60) n", [1, 2], [], UserError, "at most 100"),
    ],
)  # fmt: skip
def test_refused_proofs_say_why_and_leave_nothing(
    halves: LinkedHalves,
    stage: Stage,
    change: str,
    people: list[int],
    to: list[str],
    kind: type[MidsourceError],
    says: str,
) -> None:
    with halves.marketing.transaction() as conn:
        if change:
            conn.execute(change.encode())
    chosen = [stage.people[n - 1] if n <= len(stage.people) else n for n in people]
    with pytest.raises(kind, match=says), halves.marketing.transaction() as conn:
        stage.proof(conn, chosen, to)
    with halves.marketing.connection() as conn:
        assert scalar(conn, "select count(*) from delivery where proof_of is not null") == 0


def test_a_proof_has_no_proof_and_cannot_be_edited(halves: LinkedHalves, stage: Stage, tmp_path: Path) -> None:
    with halves.marketing.transaction() as conn:
        number = stage.proof(conn)
        with pytest.raises(Conflict, match="a proof itself"):
            proofs.send_proof(conn, number, people=[], to=[], by="operator", clock=halves.clock)
        with pytest.raises(Conflict, match="a proof"):
            deliveries.change(conn, number, draft_of({"label": "x"}), deliveries.get(conn, number).version)


def test_seed_addresses_are_kept_once_and_bounded(halves: LinkedHalves, stage: Stage) -> None:
    with halves.marketing.transaction() as conn:
        assert seeds.add_seed(conn, " Paula@Atelier.example ", "Paula") == SEEDS[0]
        assert [(seed.address, seed.label) for seed in seeds.all_seeds(conn)] == [
            (SEEDS[0], "Paula"),
            (SEEDS[1], "team"),
        ]
        for wrong in ("nobody", "a b@c.example", ""):
            with pytest.raises(UserError, match="not an address"):
                seeds.add_seed(conn, wrong)
        conn.execute("insert into seed_address select n || '@s.example' from generate_series(1, 98) n")
        with pytest.raises(UserError, match="the limit"):
            seeds.add_seed(conn, "one.more@s.example")
        seeds.remove_seed(conn, SEEDS[0])
        with pytest.raises(NotFound):
            seeds.remove_seed(conn, SEEDS[0])
