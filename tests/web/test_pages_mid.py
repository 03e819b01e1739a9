"""The console of a mid over a real database: ledger totals, what waits and why, who has read what."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import httpx2
import msgspec
import pytest
from tests.web.console_scene import HOSTILE
from tests.web.console_served import Console, serving

from midsource.config import Config, InstanceConfig
from midsource.mid import accounts, counters
from midsource.model.ids import delivery_id
from midsource.net.clock import SystemClock
from midsource.store.database import Connection, Database
from midsource.web.console.catalogue import LANGUAGES, texts
from midsource.wire.schema import DeliverySpec

PATHS = ("/", "/deliveries", "/accounts", "/workflows", "/options", "/processes")


@pytest.fixture
def mid(serve_console: Callable[..., Console]) -> Console:
    return serve_console("mid1", "mid")


@pytest.fixture
def browser(mid: Console) -> Iterator[httpx2.Client]:
    with mid.browser() as client:
        client.get("/?lang=en")
        yield client


def seen(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    text = re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", answer.text, flags=re.DOTALL)
    return " ".join(html.unescape(text).split())


def deliver(conn: Connection, account: int, serial: int, state: int, messages: int, *, label: str = "Spring") -> int:
    """Hand a delivery over: its messages pending, its counters in a feed batch."""
    now = SystemClock().now()
    number = delivery_id(now, serial)
    spec = DeliverySpec(
        id=number, label=label, subject="x", html="x", text="x", from_name="x", from_address="a@b.example", brand="x"
    )
    conn.execute("select ensure_month('message', %s)", (int(f"{now:%Y%m}"),))
    conn.execute(
        "insert into delivery (account_id, id, label, state, spec, spec_hash, expected, started_at) "
        "values (%s, %s, %s, %s, %s, '', %s, %s)",
        (account, number, label, state, msgspec.json.encode(spec).decode(), messages, now),
    )
    conn.execute(
        "insert into message (account_id, delivery_id, id, email, domain, data) "
        "select %s, %s, n, 'p' || n || '@gmail.example', 'gmail.example', '{}' from generate_series(1, %s) n",
        (account, number, messages),
    )
    counters.write_batch(conn, account, [number], now, [(number, "gmail.example", None, 6, messages)])
    return number


def batch(
    conn: Connection, account: int, number: int, destination: str, ids: range, *, wait: int, owner: str = ""
) -> None:
    conn.execute(
        "insert into dispatch_batch (account_id, delivery_id, destination, ready_at, ids, owner, expires_at) values "
        "(%s, %s, %s, now() + make_interval(secs => %s), %s, nullif(%s, ''), case when %s <> '' then now() end)",
        (account, number, destination, wait, list(ids), owner, owner),
    )


def test_a_mid_without_anything_says_so_in_each_language(browser: httpx2.Client) -> None:
    for language in LANGUAGES:
        for path in PATHS:
            answer = browser.get(path, params={"lang": language})
            assert "None" not in seen(answer), path
            assert f'<html lang="{language}"' in answer.text
        assert texts(language)["mid.none"] in seen(browser.get("/deliveries"))
        assert texts(language)["nav.submitters"] in seen(browser.get("/accounts"))


def test_where_messages_wait_and_why(mid: Console, browser: httpx2.Client) -> None:
    with mid.database.transaction() as conn:
        account, _ = accounts.create(conn, "brand")
        number = deliver(conn, account, 1, 55, 1_500, label=f"Spring {HOSTILE}")
        batch(conn, account, number, "gmail.example", range(1, 501), wait=-300)
        batch(conn, account, number, "gmail.example", range(501, 1_001), wait=0, owner="mta@mid1")
        batch(conn, account, number, "greylist.example", range(1_001, 1_501), wait=600)
        conn.execute(
            "update message set reply = %s, attempts = 2, state = 61 where id = 1001",
            (f"451 4.7.1 <someone.private@greylist.example> greylisted {HOSTILE}",),
        )
    path = f"/deliveries/brand/{number}"
    answer = browser.get(path)
    assert HOSTILE not in answer.text
    assert "someone.private" not in answer.text
    words = seen(answer)
    assert "500 wait because no mta is alive. since 5 min ago" in words
    assert "500 are held by an mta" in words
    assert re.search(r"500 were refused for now and wait for their next try. Next try in (9|10) min", words)
    assert re.search(r"gmail.example 500 500 0 .*? greylist.example 0 0 500", words)
    assert "greylist.example 451 4.7.1 <…@greylist.example> greylisted" in words
    assert "pending 1,500 100% messages 1,500" in words
    with mid.database.transaction() as conn:
        conn.execute("insert into process (name, kind, host, pid, executor) values ('mta@mid1', 'mta', 'h', 1, 'x')")
    assert "an mta opens at most 4 connections" in seen(browser.get(path))
    with mid.database.transaction() as conn:
        conn.execute("update delivery set state = 75")
    assert "1,000 wait because the delivery does not send: paused, or stopped." in seen(browser.get(path))
    assert browser.get(f"/deliveries/nobody/{number}").status_code == 404
    assert browser.get("/deliveries/brand/x").status_code == 422


def test_deliveries_of_all_accounts_by_pages(mid: Console, browser: httpx2.Client) -> None:
    with mid.database.transaction() as conn:
        found = [accounts.create(conn, name)[0] for name in ("brand", "shop")]
        for serial in range(1, 61):
            deliver(conn, found[serial % 2], serial, 95, 1)
        conn.execute("update delivery set finished_at = now()")
    numbers, path = [], "/deliveries"
    while path:
        answer = browser.get(path)
        assert "hx-trigger" not in answer.text, "nothing changes any more"
        numbers += [int(number) for number in re.findall(r'href="/deliveries/(?:brand|shop)/(\d+)"', answer.text)]
        following = re.search(r'rel="next" href="([^"]+)"', answer.text)
        path = following[1] if following else ""
    assert numbers == sorted(set(numbers), reverse=True)
    assert len(numbers) == 60


def test_an_account_that_does_not_read_its_results_is_named(mid: Console, browser: httpx2.Client) -> None:
    now = SystemClock().now()
    with mid.database.transaction() as conn:
        account, key = accounts.create(conn, "brand")
        conn.execute(
            "insert into feed_batch (account_id, day, rows, deliveries, seq, sequenced_at, created_at, folded) "
            "select %s, current_date, 1, '{}', n, now(), %s, true from generate_series(1, 12) n",
            (account, now - timedelta(hours=5)),
        )
        conn.execute(
            "insert into feed_ack values (%s, 'deliveries', 12, %s), (%s, 'logs', 7, %s)", (account, now, account, now)
        )
        conn.execute("insert into process (name, kind, host, pid, executor) values ('mta@mid1', 'mta', 'h', 1, 'x')")
        conn.execute(
            "insert into process (name, kind, host, pid, executor) values ('worker@mid1', 'worker', 'h', 1, 'y')"
        )
    words = seen(browser.get("/accounts"))
    assert f"key {key.partition('.')[0]}" in words
    assert key.partition(".")[2] not in browser.get("/accounts").text
    assert "everything acknowledged 5 batches of results not acknowledged since 5 h ago" in words
    assert "1 thing needs attention brand has not read its results for hours" in seen(browser.get("/"))
    with mid.database.transaction() as conn:
        conn.execute("update feed_ack set seq = 12")
    assert "Everything runs." in seen(browser.get("/"))


def test_a_mid_whose_mta_is_gone_says_so(browser: httpx2.Client) -> None:
    words = seen(browser.get("/"))
    assert "no mta is alive: nothing is sent" in words
    assert "no worker is alive" in words


def test_the_pages_of_a_marketing_instance_are_not_here(browser: httpx2.Client) -> None:
    for path in ("/options/NmsEmail_RetryCount", "/accounts/x", "/sandbox", "/add-account"):
        assert browser.get(path).status_code == 404


def test_pages_with_the_database_away(tmp_path: Path, free_port: int) -> None:
    instance = InstanceConfig("mid1", "mid", port=free_port)
    away = "postgresql://nobody@127.0.0.1:1/nothing"
    with (
        Database("mid1", away, application="tests", wait_seconds=1) as database,
        serving(Config(tmp_path, instances=(instance,)), instance, database) as address,
        Console(tmp_path, database, address).browser() as browser,
    ):
        for path in (*PATHS, "/deliveries/brand/1"):
            answer = browser.get(path)
            assert answer.status_code == 503, path
            assert "the database of mid1 cannot be reached" in answer.text
