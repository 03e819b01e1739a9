from __future__ import annotations

from pathlib import Path

import pytest

from midsource.marketing import accounts, link_test
from midsource.model.errors import NotFound, UserError
from midsource.store.database import Database, scalar
from midsource.testing.clock import ManualClock
from midsource.testing.link import LinkedHalves
from midsource.testing.proxy import Answer, FaultProxy

KEY = "abc." + "s" * 43


def test_a_key_is_stored_encrypted_and_found_again(marketing_db: Database, clock: ManualClock, tmp_path: Path) -> None:
    with marketing_db.transaction() as conn:
        accounts.add(conn, tmp_path, url="http://127.0.0.1:1/", key=f" {KEY}\n", now=clock.now())
        secret = bytes(scalar(conn, "select secret from external_account"))
        assert b"sssss" not in secret
        assert accounts.get(conn, accounts.DEFAULT_NAME).url == "http://127.0.0.1:1"
    with accounts.open_client(marketing_db, tmp_path, accounts.DEFAULT_NAME, clock) as client:
        assert client.url == "http://127.0.0.1:1"


def test_the_same_name_again_replaces_url_and_key(marketing_db: Database, clock: ManualClock, tmp_path: Path) -> None:
    with marketing_db.transaction() as conn:
        accounts.add(conn, tmp_path, url="http://127.0.0.1:1", key=KEY, now=clock.now())
        accounts.add(conn, tmp_path, url="http://127.0.0.1:2", key="def." + "t" * 43, now=clock.now())
        (account,) = accounts.list_accounts(conn)
    assert account.url == "http://127.0.0.1:2"


def test_renaming_changes_the_label_only(marketing_db: Database, clock: ManualClock, tmp_path: Path) -> None:
    with marketing_db.transaction() as conn:
        accounts.add(conn, tmp_path, url="http://127.0.0.1:1", key=KEY, now=clock.now())
        accounts.rename(conn, accounts.DEFAULT_NAME, "Mid in Lisbon")
        account = accounts.get(conn, accounts.DEFAULT_NAME)
    assert (account.name, account.label) == (accounts.DEFAULT_NAME, "Mid in Lisbon")


@pytest.mark.parametrize(
    ("url", "key", "name", "words"),
    [
        ("mid.example", KEY, "mid", "is no address of a mid"),
        ("ftp://mid.example", KEY, "mid", "is no address of a mid"),
        ("http://user:pw@mid.example", KEY, "mid", "is no address of a mid"),
        ("http://[::1", KEY, "mid", "is no address of a mid"),
        ("https://mid..example", KEY, "mid", "its host has an empty label.: write it like https://mid.example"),
        (f"https://{'x' * 64}.example", KEY, "mid", "a label of its host is longer than 63 bytes"),
        ("http://mid.example", "secret", "mid", "no key of a mid"),
        ("http://mid.example", KEY, "mid 1", "cannot be an internal name"),
    ],
)
def test_what_cannot_be_an_account_is_refused(
    marketing_db: Database, clock: ManualClock, tmp_path: Path, url: str, key: str, name: str, words: str
) -> None:
    with pytest.raises(UserError, match=words), marketing_db.transaction() as conn:
        accounts.add(conn, tmp_path, url=url, key=key, name=name, now=clock.now())


def test_the_host_is_stored_as_it_is_looked_up(marketing_db: Database, clock: ManualClock, tmp_path: Path) -> None:
    with marketing_db.transaction() as conn:
        accounts.add(conn, tmp_path, url="https://Mid.München.example:8101/", key=KEY, now=clock.now())
        (account,) = accounts.list_accounts(conn)
    assert account.url == "https://mid.xn--mnchen-3ya.example:8101"


def test_an_unknown_account_names_those_that_exist(marketing_db: Database, clock: ManualClock, tmp_path: Path) -> None:
    with marketing_db.transaction() as conn:
        accounts.add(conn, tmp_path, url="http://127.0.0.1:1", key=KEY, now=clock.now())
        with pytest.raises(NotFound, match=accounts.DEFAULT_NAME):
            accounts.get(conn, "other")


def test_a_probe_of_a_mid_that_is_well_finds_nothing(halves: LinkedHalves) -> None:
    found = link_test.run(halves.marketing, halves.home, accounts.DEFAULT_NAME, halves.clock)
    assert [problem[:48] for problem in found.problems] == ["The mid takes deliveries but does not send: disp"]
    with halves.mid.connection() as conn:
        conn.execute("insert into process (name, kind, host, pid, executor) values ('mta@mid', 'mta', 'here', 1, 'x')")
    found = link_test.run(halves.marketing, halves.home, accounts.DEFAULT_NAME, halves.clock)
    assert found.problems == ()
    assert found.hello is not None
    with halves.marketing.connection() as conn:
        account = accounts.get(conn, accounts.DEFAULT_NAME)
    assert str(account.generation) == found.hello.generation
    assert account.last_hello_at is not None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(200, (), b"<html>", "text/html"), "not a mid-sourcing server"),
        (Answer(503), "HTTP 503"),
        (Answer(302, (("Location", "https://login.example/"),)), "redirects to"),
    ],
)
def test_a_probe_says_what_is_wrong_instead_of_failing(halves: LinkedHalves, answer: Answer, words: str) -> None:
    with FaultProxy(1, lambda _seen: answer) as proxy:
        halves.link_to(proxy.url)
        found = link_test.run(halves.marketing, halves.home, accounts.DEFAULT_NAME, halves.clock)
    assert words in found.problems[0]
    with halves.marketing.connection() as conn:
        assert words in accounts.get(conn, accounts.DEFAULT_NAME).last_problem


def test_a_probe_sees_that_clocks_are_apart(halves: LinkedHalves) -> None:
    found = link_test.run(halves.marketing, halves.home, accounts.DEFAULT_NAME, ManualClock())
    assert "clock of the mid is" in found.problems[0]
