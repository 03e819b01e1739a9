"""Logging in: what is taken, what waits, what ends a session; on a real database, with a clock moved by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from midsource.model.errors import Conflict, NotFound, UserError
from midsource.security import audit, operators, sessions
from midsource.security.log_in import LogIn, WrongPassword
from midsource.security.passwords import AT_ONCE, MEMORY_KIB, WAITING, Hashing, checked
from midsource.security.roles import PERMISSIONS, SYSTEM, Permission, Role, Visitor
from midsource.security.throttle import ADDRESS_SECONDS, FREE_TRIES, NAME_SECONDS, Throttle, TooManyTries, network
from midsource.store import migrate
from midsource.store.database import Connection, Database
from midsource.testing.clock import ManualClock

PASSWORD = "a sentence of mine"
HERE, THERE = "192.0.2.1", "198.51.100.7"


class Watched(Hashing):
    """Says what was verified."""

    def __init__(self) -> None:
        super().__init__(cheap=True)
        self.verified: list[bool] = []

    def verify(self, stored: str | None, password: str) -> bool:
        self.verified.append(stored is not None)
        return super().verify(stored, password)


@dataclass(slots=True)
class House:
    """An instance with Alice, who administers it, and Bob, who reads."""

    database: Database
    clock: ManualClock = field(default_factory=ManualClock)
    hashing: Watched = field(default_factory=Watched)
    log_in: LogIn = field(init=False)

    def __post_init__(self) -> None:
        self.log_in = LogIn(self.database, self.clock, self.hashing)
        with self.database.transaction() as conn:
            conn.execute("truncate operator, operator_session, audit restart identity")
            for name, role in (("alice", Role.ADMIN), ("bob", Role.READER)):
                operators.add(conn, SYSTEM, name, [role], self.hashing.hash(PASSWORD))

    def enter(self, name: str = "alice", password: str = PASSWORD, address: str = HERE, ending: str = "") -> str:
        return self.log_in.log_in(name, password, address, ending=ending).session.cookie

    def who(self, cookie: str, *, active: bool = True) -> Visitor | None:
        with self.database.connection() as conn:
            return sessions.find(conn, cookie, self.clock.now(), active=active)

    def fail(self, times: int, name: str = "alice", address: str = HERE) -> None:
        for _ in range(times):
            with pytest.raises(WrongPassword):
                self.enter(name, "wrong", address)

    def change(self, work: Callable[[Connection], object]) -> None:
        with self.database.transaction() as conn:
            work(conn)


@pytest.fixture(scope="module")
def database(make_database: Callable[..., str]) -> Iterator[Database]:
    with Database("mid", make_database(), application="tests", max_connections=12) as opened:
        migrate.upgrade(opened, "mid")
        yield opened


@pytest.fixture
def house(database: Database) -> House:
    return House(database)


def test_name_and_password_open_a_session_with_the_permissions_of_the_roles(house: House) -> None:
    for name, role in (("alice", Role.ADMIN), ("bob", Role.READER)):
        visitor = house.who(house.enter(name))
        assert visitor is not None
        assert (visitor.name, visitor.permissions, visitor.via) == (name, PERMISSIONS[role], "console")
        assert len(visitor.csrf) > 40


@pytest.mark.parametrize(
    ("name", "password"),
    [("alice", "wrong"), ("alice", ""), ("nobody", PASSWORD), ("", ""), ("Alice", PASSWORD), ("al\0ice", "x"), ("alice", "x" * 9_999)],
)  # fmt: skip
def test_whatever_is_wrong_the_answer_and_the_work_are_the_same(house: House, name: str, password: str) -> None:
    with pytest.raises(WrongPassword, match="name or password is wrong"):
        house.enter(name, password)
    assert len(house.hashing.verified) == 1, "an unknown name takes a hash as well"


def test_a_disabled_operator_gets_the_answer_of_a_stranger(house: House) -> None:
    cookie = house.enter("bob")
    house.change(lambda conn: operators.disable(conn, SYSTEM, "bob", house.clock.now()))
    assert house.who(cookie) is None
    house.fail(1, "bob")
    with pytest.raises(WrongPassword):
        house.enter("bob")
    house.change(lambda conn: operators.enable(conn, SYSTEM, "bob"))
    assert house.who(house.enter("bob"))


def test_each_log_in_has_a_cookie_of_its_own_and_ends_the_one_the_browser_brought(house: House) -> None:
    first = house.enter()
    second = house.enter(ending=first)
    assert first != second
    assert house.who(first) is None
    assert house.who("planted-by-somebody-else") is None
    with pytest.raises(WrongPassword):
        house.enter(password="wrong", ending=second)
    assert house.who(second), "who fails ends nothing"


def test_the_database_holds_no_cookie_and_no_password(house: House) -> None:
    cookie = house.enter()
    with house.database.connection() as conn:
        held = str(conn.execute("select s.*, o.* from operator_session s join operator o on true").fetchall())
    assert cookie not in held
    assert PASSWORD not in held
    assert "$argon2id$" in held


def test_a_session_slides_with_use_and_ends_idle_or_after_a_day(house: House) -> None:
    cookie = house.enter()
    idle = timedelta(seconds=sessions.IDLE_SECONDS)
    for _ in range(sessions.LONGEST_SECONDS // sessions.IDLE_SECONDS):
        assert house.who(cookie)
        house.clock.advance(idle - timedelta(seconds=1))
    house.clock.advance(timedelta(seconds=30))
    assert house.who(cookie) is None, "twelve hours are over, whatever is done"
    cookie = house.enter()
    house.clock.advance(idle)
    assert house.who(cookie) is None


def test_a_page_that_refreshes_itself_keeps_no_session_open(house: House) -> None:
    cookie = house.enter()
    for _ in range(sessions.IDLE_SECONDS // 60 - 1):
        house.clock.advance(timedelta(minutes=1))
        assert house.who(cookie, active=False)
    house.clock.advance(timedelta(minutes=1))
    assert house.who(cookie, active=False) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda conn: operators.set_roles(conn, SYSTEM, "alice", [Role.READER]),
        lambda conn: operators.set_password(conn, SYSTEM, "alice", "$argon2id$x"),
        lambda conn: operators.log_out_everywhere(conn, SYSTEM, "alice"),
    ],
    ids=["roles", "password", "everywhere"],
)
def test_what_changes_an_operator_ends_their_sessions_and_nobody_elses(
    house: House, change: Callable[[Connection], object]
) -> None:
    mine, other = house.enter(), house.enter("bob")
    house.change(change)
    assert house.who(mine) is None
    assert house.who(other)


def test_changing_ones_own_password_asks_for_the_present_one_and_keeps_this_session(house: House) -> None:
    here, there = house.enter(), house.enter()
    alice = house.who(here)
    assert alice is not None
    with pytest.raises(WrongPassword, match="present password"):
        house.log_in.change_password(alice, "wrong", "another sentence", HERE, but=here)
    with pytest.raises(UserError, match="12 are needed"):
        house.log_in.change_password(alice, PASSWORD, "short", HERE, but=here)
    house.log_in.change_password(alice, PASSWORD, "another sentence", HERE, but=here)
    assert house.who(here)
    assert house.who(there) is None
    assert house.who(house.enter(password="another sentence"))


def test_nobody_takes_the_keys_from_themselves(house: House) -> None:
    alice = house.who(house.enter())
    assert alice is not None
    with house.database.connection() as conn:
        with pytest.raises(Conflict):
            operators.disable(conn, alice, "alice", house.clock.now())
        with pytest.raises(Conflict):
            operators.set_roles(conn, alice, "alice", [Role.READER])
        with pytest.raises(NotFound, match="operators: alice, bob"):
            operators.find(conn, "carl")
        with pytest.raises(UserError, match="needs a role"):
            operators.set_roles(conn, alice, "bob", [])


@pytest.mark.parametrize("name", ["", "Alice", "1a", "a b", "a" * 64, "home", "system", "new", "a\n", "é"])
def test_a_name_that_cannot_be_one(name: str) -> None:
    with pytest.raises(UserError):
        operators.check_name(name)


def test_failures_wait_longer_each_time_and_never_for_ever(house: House) -> None:
    house.fail(FREE_TRIES + 1)
    with pytest.raises(TooManyTries, match="try again in 2 s"):
        house.enter()
    house.clock.advance(timedelta(seconds=2))
    for _ in range(20):
        house.fail(1)
        house.clock.advance(timedelta(seconds=ADDRESS_SECONDS))
    house.fail(1, address=THERE)
    with pytest.raises(TooManyTries, match=f"try again in {NAME_SECONDS} s"):
        house.enter(address=THERE)
    house.clock.advance(timedelta(seconds=NAME_SECONDS))
    assert house.who(house.enter(address=THERE)), "the right password from elsewhere, a minute later"
    with house.database.connection() as conn:
        slowed = audit.page(conn, verb="operator.slowed").entries
    assert [(entry.subject, entry.who) for entry in slowed] == [("alice", "system")]


def test_waiting_outlives_the_process_and_does_not_hash(house: House) -> None:
    house.fail(FREE_TRIES + 1)
    again = LogIn(house.database, house.clock, house.hashing)
    house.hashing.verified.clear()
    with pytest.raises(TooManyTries):
        again.log_in("alice", PASSWORD, THERE)
    assert house.hashing.verified == []


def test_an_unknown_name_waits_like_a_known_one(house: House) -> None:
    house.fail(FREE_TRIES + 1, "nobody")
    with pytest.raises(TooManyTries, match="try again in 2 s"):
        house.enter("nobody")


def test_an_address_that_tries_many_names_waits(house: House) -> None:
    for number in range(FREE_TRIES + 1):
        house.fail(1, f"name{number}")
    with pytest.raises(TooManyTries):
        house.enter("bob")
    assert house.who(house.enter("bob", address=THERE))


def test_a_right_log_in_forgives_the_name(house: House) -> None:
    for number in range(4):
        house.fail(FREE_TRIES - 1, address=f"203.0.113.{number}")
        assert house.who(house.enter(address=f"203.0.113.{number}"))


def test_a_right_log_in_does_not_forgive_the_address(house: House) -> None:
    house.fail(FREE_TRIES)
    assert house.who(house.enter("bob"))
    house.fail(1, "nobody")
    with pytest.raises(TooManyTries):
        house.enter("bob")


def test_tries_at_the_same_time_do_not_get_past_the_count(house: House) -> None:
    outcomes: list[type] = []

    def guess(number: int) -> None:
        try:
            house.enter(password=f"wrong {number}", address=f"192.0.2.{number}")
        except UserError as exc:
            outcomes.append(type(exc))
        except TooManyTries as exc:
            outcomes.append(type(exc))

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 30
    assert outcomes.count(WrongPassword) <= FREE_TRIES + 1


def test_the_throttle_keeps_a_bounded_memory_and_knows_machines_by_their_network() -> None:
    throttle = Throttle()
    for number in range(30_000):
        throttle.take(f"n{number}", f"2001:db8:{number:x}::1", 0.0)
    assert len(throttle._counts) <= 20_000
    assert network("2001:db8::1") == network("2001:db8::ffff") == "2001:db8::/64"
    assert network("::ffff:192.0.2.1") == "192.0.2.1"
    assert network("testclient") == "testclient"


def test_a_hash_made_with_other_costs_is_renewed_at_log_in(house: House) -> None:
    costly = Hashing()
    log_in = LogIn(house.database, house.clock, costly)
    log_in.log_in("alice", PASSWORD, HERE)
    with house.database.connection() as conn:
        stored = operators.password_hash(conn, "alice")
    assert stored is not None
    assert f"m={MEMORY_KIB}," in stored
    assert not costly.is_outdated(stored)
    began = time.process_time()
    assert costly.verify(stored, PASSWORD)
    assert time.process_time() - began > 0.02, "a password costs work"


def test_log_ins_at_once_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    hashing = Hashing(cheap=True)
    stored = hashing.hash(PASSWORD)
    go, lock = threading.Event(), threading.Lock()
    working, most, refused = 0, 0, 0

    class Slow:
        def verify(self, _stored: str, _password: str) -> bool:
            nonlocal working, most
            with lock:
                working += 1
                most = max(most, working)
            go.wait(10)
            with lock:
                working -= 1
            return True

    monkeypatch.setattr(hashing, "_argon", Slow())

    def enter() -> None:
        nonlocal refused
        try:
            hashing.verify(stored, PASSWORD)
        except TooManyTries:
            with lock:
                refused += 1

    threads = [threading.Thread(target=enter) for _ in range(40)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while refused < 40 - AT_ONCE - WAITING and time.monotonic() < deadline:
        time.sleep(0.01)
    go.set()
    for thread in threads:
        thread.join()
    assert (most, refused) == (AT_ONCE, 40 - AT_ONCE - WAITING)


@pytest.mark.parametrize(
    "password",
    ["short", "x" * 1_025, "password12345", "Azertyuiop2026!", "aaaaaaaaaaaaaaa", "abcdefghijklmn", "987654321098", "alice-alice-2024"],
)  # fmt: skip
def test_a_password_that_is_not_taken(password: str) -> None:
    with pytest.raises(UserError) as refused:
        checked(password, "alice")
    assert password not in str(refused.value)


@pytest.mark.parametrize("password", ["mot de passe tranquille", "x1" * 128 + "abc", "пароль из слов", "Zwölf Wörter!"])
def test_a_password_that_is_taken(password: str) -> None:
    assert checked(password, "alice")


def test_a_password_is_the_same_however_a_keyboard_writes_it() -> None:
    hashing = Hashing(cheap=True)
    assert hashing.verify(hashing.hash(checked("une phrase e\u0301te\u0301", "")), "une phrase \u00e9t\u00e9")


def test_an_operator_keeps_a_bounded_number_of_sessions(house: House) -> None:
    cookies = []
    for _ in range(sessions.MAX_SESSIONS + 3):
        cookies.append(house.enter())
        house.clock.advance(timedelta(seconds=1))
    assert [house.who(cookie) is not None for cookie in cookies] == [False] * 3 + [True] * sessions.MAX_SESSIONS
    with house.database.connection() as conn:
        found = sessions.of_operator(conn, operators.find(conn, "alice").id, house.clock.now())
        assert sessions.end_one(conn, operators.find(conn, "bob").id, found[0].ref) is False, "not one of Bob's"
        assert sessions.end_one(conn, operators.find(conn, "alice").id, found[0].ref)
        assert sessions.end_one(conn, 1, "zz") is False
    assert len(found) == sessions.MAX_SESSIONS


def test_nobody_has_what_no_role_names() -> None:
    assert set(PERMISSIONS) == set(Role)
    assert not Visitor("x", PERMISSIONS[Role.READER], "console").may(Permission.DELIVER)
