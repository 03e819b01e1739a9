"""Keys of programs: shown once, scoped, ended, revoked; one statement a request at most."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from midsource.model.errors import Conflict, NotFound, UserError
from midsource.security import api_keys
from midsource.security.api_keys import CACHE_SECONDS, CACHED_KEYS, Keys
from midsource.security.roles import SYSTEM, Permission, Visitor
from midsource.store import migrate
from midsource.store.database import Connection, Database
from midsource.testing.clock import ManualClock


@pytest.fixture(scope="module")
def database(make_database: Callable[..., str]) -> Iterator[Database]:
    with Database("mid", make_database(), application="tests", max_connections=2) as opened:
        migrate.upgrade(opened, "mid")
        yield opened


@pytest.fixture
def conn(database: Database) -> Iterator[Connection]:
    with database.connection() as connection:
        connection.execute("truncate api_key, audit")
        yield connection


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def issue(conn: Connection, clock: ManualClock, *scopes: Permission, days: int = 0) -> str:
    end = clock.now() + timedelta(days=days) if days else None
    return api_keys.issue(conn, SYSTEM, "monitoring", scopes or [Permission.SEE], clock.now(), end)


def find(keys: Keys, conn: Connection, clock: ManualClock, text: str) -> Visitor | None:
    return keys.find(conn, text, clock.now(), clock.boot_seconds())


def test_a_key_is_its_scopes_and_its_secret_is_nowhere(conn: Connection, clock: ManualClock) -> None:
    text = issue(conn, clock, Permission.SEE, Permission.METRICS)
    key_id, _, secret = text.partition(".")
    visitor = find(Keys(), conn, clock, text)
    assert visitor == Visitor(f"key:{key_id}", frozenset({Permission.SEE, Permission.METRICS}), "api")
    assert secret not in str(conn.execute("select api_key, audit from api_key, audit").fetchall())


def test_what_is_no_key_is_nobody(conn: Connection, clock: ManualClock) -> None:
    text = issue(conn, clock)
    for wrong in (
        "",
        ".",
        "x",
        text[:-1],
        text + "x",
        text.upper(),
        "é" * 9 + ".x",
        "\udcff.x",
        "a" * 999,
        text.replace(".", ".."),
    ):
        assert find(Keys(), conn, clock, wrong) is None, wrong


def test_a_key_ends_when_it_was_said_to(conn: Connection, clock: ManualClock) -> None:
    text, keys = issue(conn, clock, days=1), Keys()
    clock.advance(timedelta(days=1) - timedelta(seconds=1))
    assert find(keys, conn, clock, text)
    assert keys.cached(text, clock.now(), clock.boot_seconds())
    clock.advance(timedelta(seconds=1))
    assert keys.cached(text, clock.now(), clock.boot_seconds()) is None, "not even while it is remembered"
    assert find(keys, conn, clock, text) is None


def test_a_revoked_key_is_refused_here_at_once_and_elsewhere_soon(conn: Connection, clock: ManualClock) -> None:
    text, here, elsewhere = issue(conn, clock), Keys(), Keys()
    for keys in (here, elsewhere):
        assert find(keys, conn, clock, text)
    api_keys.revoke(conn, SYSTEM, text.partition(".")[0], clock.now())
    here.forget()
    assert here.cached(text, clock.now(), clock.boot_seconds()) is None
    assert find(here, conn, clock, text) is None
    assert elsewhere.cached(text, clock.now(), clock.boot_seconds())
    clock.advance(timedelta(seconds=CACHE_SECONDS))
    assert elsewhere.cached(text, clock.now(), clock.boot_seconds()) is None
    assert api_keys.list_keys(conn) == []
    assert len(api_keys.list_keys(conn, revoked=True)) == 1


def test_when_it_was_used_is_written_once_a_minute(conn: Connection, clock: ManualClock) -> None:
    text, keys = issue(conn, clock), Keys()
    seen = []
    for _ in range(5):
        find(keys, conn, clock, text)
        seen.append(api_keys.list_keys(conn)[0].used_at)
        clock.advance(timedelta(seconds=30))
    assert [at == clock.now() - timedelta(seconds=30 * (5 - n)) for n, at in enumerate(seen)] == [
        True,
        False,
        True,
        False,
        True,
    ]


def test_the_memory_of_keys_is_bounded(conn: Connection, clock: ManualClock) -> None:
    keys, texts = Keys(), [issue(conn, clock) for _ in range(3)]
    for number in range(CACHED_KEYS):
        keys._cached[str(number).encode()] = None  # type: ignore[assignment]  # whatever was there before
    for text in texts:
        find(keys, conn, clock, text)
    assert len(keys._cached) == CACHED_KEYS


def test_nobody_gives_away_what_they_have_not(conn: Connection, clock: ManualClock) -> None:
    reader = Visitor("bob", frozenset({Permission.SEE, Permission.ADMINISTER}), "console")
    with pytest.raises(Conflict, match="cannot give away what it has not: deliver"):
        api_keys.issue(conn, reader, "x", [Permission.SEE, Permission.DELIVER], clock.now())


@pytest.mark.parametrize(
    ("label", "scopes", "days"),
    [("", [Permission.SEE], 0), ("x" * 101, [Permission.SEE], 0), ("a\nb", [Permission.SEE], 0), ("x", [], 0), ("x", [Permission.SEE], -1)],
)  # fmt: skip
def test_a_key_that_cannot_be_made(
    conn: Connection, clock: ManualClock, label: str, scopes: list[Permission], days: int
) -> None:
    end = clock.now() + timedelta(days=days) if days else None
    with pytest.raises(UserError):
        api_keys.issue(conn, SYSTEM, label, scopes, clock.now(), end)


def test_a_key_that_is_not_there_is_said_with_those_that_are(conn: Connection, clock: ManualClock) -> None:
    key_id = issue(conn, clock).partition(".")[0]
    with pytest.raises(NotFound, match=f"keys: {key_id}"):
        api_keys.revoke(conn, SYSTEM, "nothing", clock.now())
