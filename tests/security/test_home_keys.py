"""The home key: made once, closed to others, one derived key a purpose."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from midsource.model.errors import Failed, Unhealthy
from midsource.security import access, keys
from midsource.security.roles import Permission

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_a_secret_comes_back_also_after_a_restart(tmp_path: Path) -> None:
    token = keys.load(tmp_path).encrypt(keys.ACCOUNT_SECRET, b"k.secret")
    assert b"secret" not in token
    assert keys.load(tmp_path).decrypt(keys.ACCOUNT_SECRET, token) == b"k.secret"


def test_another_purpose_another_home_or_a_changed_byte_is_refused(tmp_path: Path) -> None:
    key = keys.load(tmp_path / "a")
    token = key.encrypt(keys.DKIM_KEY, b"pem")
    for other, purpose, given in (
        (key, keys.ACCOUNT_SECRET, token),
        (keys.load(tmp_path / "b"), keys.DKIM_KEY, token),
        (key, keys.DKIM_KEY, token[:-2] + b"AA"),
    ):
        with pytest.raises(Failed, match="not encrypted with the key"):
            other.decrypt(purpose, given)


def test_macs_differ_by_purpose_and_message(tmp_path: Path) -> None:
    key = keys.load(tmp_path)
    macs = {key.mac(purpose, message) for purpose in ("unsubscribe", "mirror") for message in (b"1", b"2")}
    assert len(macs) == 4
    assert keys.load(tmp_path).mac("mirror", b"1") in macs


def test_the_file_is_private_and_an_open_one_is_refused(tmp_path: Path) -> None:
    keys.load(tmp_path)
    file = tmp_path / "keys" / "home.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in file.parent.iterdir()] == ["home.key"]
    file.chmod(0o640)
    with pytest.raises(Unhealthy, match=r"mode 640.*chmod 600"):
        keys.load(tmp_path)


@pytest.mark.parametrize("text", ["", "short", "é" * 30])
def test_a_broken_file_is_said_and_never_replaced(tmp_path: Path, text: str) -> None:
    keys.load(tmp_path)
    file = tmp_path / "keys" / "home.key"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(Unhealthy, match=r"home\.key"):
        keys.load(tmp_path)
    assert file.read_text(encoding="utf-8") == text


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    ready = threading.Barrier(8)
    found: list[bytes] = []

    def start() -> None:
        ready.wait()
        found.append(keys.load(tmp_path).derive("x"))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_the_console_admits_its_token_and_its_own_sessions_only(tmp_path: Path) -> None:
    marketing = access.ConsoleAccess.load(tmp_path, "marketing")
    mid = access.ConsoleAccess.load(tmp_path, "mid1")
    token = access.token(tmp_path)
    assert marketing.admits_token(token)
    assert not marketing.admits_token("")
    assert not marketing.admits_token(token[:-1])
    assert not marketing.admits_token("é")
    assert not marketing.admits_token("\udcff")
    cookie = marketing.start(NOW)
    home = marketing.visitor(cookie, NOW)
    assert home is not None
    assert (home.name, home.permissions, len(home.csrf)) == ("home", frozenset(Permission), 64)
    for wrong in (
        mid.start(NOW),
        token,
        "",
        "home.",
        "home.9999999999.x.y",
        cookie[:-1],
        cookie.replace("home.", "home.9"),
    ):
        assert marketing.visitor(wrong, NOW) is None, wrong
    (tmp_path / "keys" / "console.token").unlink()
    assert access.ConsoleAccess.load(tmp_path, "marketing").visitor(cookie, NOW) is None


def test_a_session_of_the_home_ends_after_a_day_or_when_it_is_ended(tmp_path: Path) -> None:
    console = access.ConsoleAccess.load(tmp_path, "marketing")
    cookie, other = console.start(NOW), console.start(NOW)
    assert cookie != other
    a_day = timedelta(seconds=access.SESSION_SECONDS)
    assert console.visitor(cookie, NOW + a_day - timedelta(seconds=1)) is not None
    assert console.visitor(cookie, NOW + a_day) is None
    console.end(cookie)
    assert console.visitor(cookie, NOW) is None
    assert console.visitor(other, NOW) is not None


def test_a_cookie_says_what_browsers_need_to_keep_it_safe(tmp_path: Path) -> None:
    console = access.ConsoleAccess.load(tmp_path, "marketing")
    kept = {"httponly": True, "samesite": "strict", "path": "/"}
    assert console.cookie_over(https=False) == ("midsource_console_marketing", {**kept, "secure": False})
    assert console.cookie_over(https=True) == ("__Host-midsource_console_marketing", {**kept, "secure": True})


@pytest.mark.parametrize("path", ["/", "/deliveries/7?state=1#log", "/é"])
def test_a_path_of_ours_is_kept(path: str) -> None:
    assert access.own_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "x",
        "//evil.test",
        "/\\evil.test",
        "/a\\b",
        "https://evil.test/",
        "/\n/evil.test",
        "/\t//evil.test",
        "/" + "x" * 500,
    ],
)
def test_nobody_is_led_elsewhere(path: str) -> None:
    assert access.own_path(path) == "/"


@pytest.mark.parametrize(
    ("method", "headers", "admitted"),
    [
        ("GET", {"sec-fetch-site": "cross-site"}, True),
        ("POST", {}, True),
        ("POST", {"sec-fetch-site": "same-origin"}, True),
        ("POST", {"sec-fetch-site": "cross-site"}, False),
        ("POST", {"sec-fetch-site": "same-site"}, False),
        ("POST", {"origin": "http://localhost:8000", "host": "localhost:8000"}, True),
        ("POST", {"origin": "http://evil.test", "host": "localhost:8000"}, False),
        ("POST", {"origin": "null", "host": "localhost:8000"}, False),
    ],
)
def test_a_change_must_come_from_our_own_pages(method: str, headers: dict[str, str], admitted: bool) -> None:
    assert access.same_origin(method, headers) is admitted
