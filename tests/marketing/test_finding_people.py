"""People are found by the beginning of address or name, page by page, and changed by hand under the rules of an import."""

from __future__ import annotations

import time

import pytest

from midsource.marketing import fields, finding_people, lists, person, recipients
from midsource.marketing.finding_people import EXACT_ROWS, PAGE_ROWS, By, Place
from midsource.model.errors import ConfigError, Conflict, NotFound
from midsource.store.database import Connection, Database, scalar

_SEARCHES: tuple[tuple[str, By], ...] = (("p", "address"), ("last", "name"), ("first9", "name"), ("", "name"))


def add(conn: Connection, email: str, first: str = "", last: str = "", **more: str) -> int:
    return person.save(conn, {"email": email, "first_name": first, "last_name": last, **more}, opted_out=False)


def found(conn: Connection, beginning: str, by: By) -> list[str | None]:
    """Walk all pages."""
    seen, place = [], Place()
    while True:
        page = finding_people.search(conn, beginning, by, place)
        seen += [row.email for row in page.people]
        if page.following is None:
            return seen
        place = page.following


def test_by_the_beginning_of_an_address_in_order_of_it(ready_db: Database) -> None:
    with ready_db.transaction() as conn:
        for email in ("Zoe@a.example", "anna@a.example", "ANNE@b.example", "bob@a.example", "an%@a.example"):
            add(conn, email)
        assert found(conn, "an", "address") == ["an%@a.example", "anna@a.example", "ANNE@b.example"]
        assert found(conn, "AN%", "address") == ["an%@a.example"]
        assert found(conn, "zoe@a.example", "address") == ["Zoe@a.example"]
        assert found(conn, "nobody", "address") == []


def test_by_first_or_last_name_nobody_twice(ready_db: Database) -> None:
    with ready_db.transaction() as conn:
        add(conn, "1@a.example", "Martin", "Martinez")
        add(conn, "2@a.example", "Élodie", "MARTIN")
        add(conn, "3@a.example", "Martina", "Weiß")
        add(conn, "4@a.example", "Marco", "")
        assert found(conn, "martin", "name") == ["2@a.example", "3@a.example", "1@a.example"]
        assert found(conn, "élo", "name") == ["2@a.example"]


def test_pages_go_on_where_the_one_before_ended_also_among_equal_names(ready_db: Database) -> None:
    with ready_db.transaction() as conn:
        conn.execute(
            "insert into recipient (key, email, email_key, first_name, last_name) "
            "select 'id:' || n, n || '@a.example', n || '@a.example', 'Same', 'Name' from generate_series(1, %s) n",
            (2 * PAGE_ROWS + 7,),
        )
        seen = found(conn, "na", "name")
        assert len(seen) == len(set(seen)) == 2 * PAGE_ROWS + 7
        assert found(conn, "sa", "name") == seen


def test_a_change_by_hand_moves_the_key_and_keeps_what_is_not_named(ready_db: Database) -> None:
    with ready_db.transaction() as conn:
        fields.add_field(conn, "city", "text")
        fields.add_field(conn, "points", "integer")
        number = add(conn, "old@a.example", city="Lyon", points="12")
        person.save(conn, {"email": "New@A.example", "points": ""}, opted_out=True, recipient_id=number)
        now = recipients.by_id(conn, number)
        assert (now.email, now.opted_out, now.fields) == ("New@A.example", True, {"city": "Lyon"})
        assert scalar(conn, "select key from recipient") == "mail:new@a.example"
        assert [row.id for row in recipients.by_email(conn, "new@a.example")] == [number]


def test_every_wrong_field_is_named_and_nothing_changes(ready_db: Database) -> None:
    with ready_db.transaction() as conn:
        fields.add_field(conn, "points", "integer")
        with pytest.raises(ConfigError) as wrong:
            person.save(
                conn,
                {"email": "no at", "first_name": "a\nBcc: x", "points": "many", "language": "x" * 501},
                opted_out=False,
            )
        assert [problem.partition(":")[0] for problem in wrong.value.problems] == [
            "first_name",
            "language",
            "points",
            "email",
        ]
        assert scalar(conn, "select count(*) from recipient") == 0


def test_an_address_somebody_else_is_known_by_is_refused(ready_db: Database) -> None:
    with ready_db.transaction() as conn:
        add(conn, "one@a.example")
        two = add(conn, "two@a.example")
        with pytest.raises(Conflict, match="somebody else"):
            person.save(conn, {"email": "ONE@a.example"}, opted_out=False, recipient_id=two)
        person.save(conn, {"email": "ONE@a.example", "external_id": "C2"}, opted_out=False, recipient_id=two)
        with pytest.raises(NotFound):
            person.save(conn, {"email": "x@a.example"}, opted_out=False, recipient_id=999)


def test_counts_are_exact_while_that_is_cheap_and_about_right_beyond(ready_db: Database) -> None:
    with ready_db.transaction() as conn:
        number = lists.ensure_list(conn, "all")
        conn.execute(
            "insert into recipient (key, email, email_key) select 'id:' || n, n || '@a.example', n || '@a.example' "
            "from generate_series(1, %s) n",
            (EXACT_ROWS,),
        )
        conn.execute("insert into list_member select %s, id from recipient limit 300", (number,))
        assert finding_people.everybody(conn) == finding_people.Count(EXACT_ROWS, about=False)
        assert finding_people.members(conn, number) == finding_people.Count(300, about=False)
        conn.execute(
            "insert into recipient (key) select 'id:more' || n from generate_series(1, %s) n", (EXACT_ROWS * 2,)
        )
        conn.execute("analyze recipient")
        many = finding_people.everybody(conn)
        assert many.about
        assert many.n == pytest.approx(3 * EXACT_ROWS, rel=0.05)


def test_a_page_reads_no_more_than_it_shows_of_a_hundred_thousand(ready_db: Database) -> None:
    with ready_db.transaction() as conn:
        conn.execute(
            "insert into recipient (key, email, email_key, domain, first_name, last_name) select 'id:' || n, "
            "'p' || n || '@a.example', 'p' || n || '@a.example', 'a.example', 'First' || n, 'Last' || n from generate_series(1, 100000) n"
        )
        conn.execute("analyze recipient")
        for beginning, by in _SEARCHES:
            page = finding_people.search(conn, beginning, by)
            for _ in range(3):
                assert len(page.people) == PAGE_ROWS
                assert page.following is not None
                started = time.perf_counter()
                page = finding_people.search(conn, beginning, by, page.following)
                assert time.perf_counter() - started < 0.1, (beginning, by)  # 5 ms; reading them all takes longer
