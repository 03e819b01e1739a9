"""The audit trail: in the transaction of the change, read backwards in bounded steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from midsource.model.errors import UserError
from midsource.security import audit
from midsource.security.roles import SYSTEM, Permission, Visitor, at_command_line
from midsource.store import migrate
from midsource.store.database import Connection, Database

ALICE = Visitor("alice", frozenset(Permission), "console")


@pytest.fixture(scope="module")
def database(make_database: Callable[..., str]) -> Iterator[Database]:
    with Database("mid", make_database(), application="tests", max_connections=2) as opened:
        migrate.upgrade(opened, "mid")
        yield opened


@pytest.fixture
def conn(database: Database) -> Iterator[Connection]:
    with database.connection() as connection:
        connection.execute("truncate audit restart identity")
        yield connection


def test_a_row_says_who_did_what_to_what_by_which_way(conn: Connection) -> None:
    audit.record(conn, ALICE, "delivery.send", 7, people=12)
    audit.record(conn, at_command_line("root"), "option.set", "x", old="1", new="2")
    audit.record(conn, SYSTEM, "operator.locked")
    shown = [(e.who, e.via, e.verb, e.subject, e.detail) for e in audit.page(conn).entries]
    assert shown == [
        ("system", "system", "operator.locked", "", {}),
        ("cli:root", "cli", "option.set", "x", {"old": "1", "new": "2"}),
        ("alice", "console", "delivery.send", "7", {"people": 12}),
    ]


def test_no_change_no_row(database: Database, conn: Connection) -> None:
    def change_and_fail() -> None:
        with database.transaction() as change:
            audit.record(change, ALICE, "delivery.send", 7)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        change_and_fail()
    assert audit.page(conn).entries == []


def test_pages_continue_where_the_last_ended(conn: Connection) -> None:
    for number in range(7):
        audit.record(conn, ALICE, "delivery.send", number)
    seen, before = [], None
    while True:
        found = audit.page(conn, before=before, limit=3)
        seen += [entry.subject for entry in found.entries]
        if (before := found.before) is None:
            break
    assert seen == ["6", "5", "4", "3", "2", "1", "0"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"who": "alice"}, ["2", "0"]),
        ({"who": "ali"}, []),
        ({"verb": "delivery"}, ["1", "0"]),
        ({"verb": "delivery.send"}, ["0"]),
        ({"verb": "deliver"}, []),
        ({"subject": "2"}, ["2"]),
        ({"subject": "2", "who": "bob"}, []),
        ({}, ["2", "1", "0"]),
    ],
)
def test_rows_are_found_by_who_verb_and_subject(conn: Connection, wanted: dict[str, str], found: list[str]) -> None:
    audit.record(conn, ALICE, "delivery.send", 0)
    audit.record(conn, Visitor("bob", frozenset(), "api"), "delivery.pause", 1)
    audit.record(conn, ALICE, "deliverysomething", 2)
    assert [entry.subject for entry in audit.page(conn, **wanted).entries] == found  # type: ignore[arg-type]  # str filters


def test_a_rare_name_is_searched_in_steps(conn: Connection) -> None:
    audit.record(conn, ALICE, "delivery.send", "old")
    conn.execute(
        "insert into audit (who, via, verb) select 'bob', 'api', 'x' from generate_series(1, %s)", (audit.SCAN_ROWS,)
    )
    first = audit.page(conn, who="alice")
    assert (first.entries, first.before) == ([], 2)
    rest = audit.page(conn, who="alice", before=first.before)
    assert [entry.subject for entry in rest.entries] == ["old"]
    assert rest.before is None


def test_a_detail_is_bounded(conn: Connection) -> None:
    audit.record(conn, ALICE, "option.set", "s" * 1_000, new="x" * 100_000, many=list(range(10_000)))
    audit.record(conn, ALICE, "option.set", "", new="é" * 100_000)
    cut, long = audit.page(conn).entries
    assert cut.detail == {"new": "é" * audit.MAX_TEXT}
    assert len(long.subject) == audit.MAX_SUBJECT
    assert set(long.detail) == {"cut"}


@pytest.mark.parametrize("limit", [0, audit.MAX_LIMIT + 1])
def test_a_page_has_a_limit(conn: Connection, limit: int) -> None:
    with pytest.raises(UserError, match="ask for 1 to"):
        audit.page(conn, limit=limit)
