"""The link API over real sockets: a delivery's whole way, and every kind of refusal."""

from __future__ import annotations

import gzip
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from midsource.config import Config, InstanceConfig
from midsource.mid import accounts, ledger
from midsource.mid.cursor import Cursor
from midsource.mid.ledger import OutcomeRecord
from midsource.model.ids import delivery_id
from midsource.model.message import MessageEvent
from midsource.store.database import scalar
from midsource.testing.mid import MidDatabase
from midsource.web.app import create_app
from midsource.web.serve import listening, server
from midsource.wire import rows as wire
from midsource.wire.schema import FeedHead, Finalise, Hello, PartRow


@dataclass
class Served:
    mid: MidDatabase
    url: str
    http: httpx2.Client
    number: int

    def put_part(self, part: str, raw: bytes, encoding: str = "zstd", **headers: str) -> httpx2.Response:
        body = {"zstd": wire.compress(raw), "gzip": gzip.compress(raw), "": raw}[encoding]
        told = (
            {"X-Content-Hash": wire.content_hash(raw)} | ({"Content-Encoding": encoding} if encoding else {}) | headers
        )
        return self.http.put(f"deliveries/{self.number}/parts/{part}", content=body, headers=told)

    def spec(self, number: int = 0) -> dict[str, Any]:
        return {
            "id": number or self.number,
            "label": "spring",
            "subject": "Hello",
            "html": "<p>Hello</p>",
            "text": "Hello",
            "from_name": "Shop",
            "from_address": "news@shop.test",
            "brand": "shop",
        }

    def order(self, verb: str) -> httpx2.Response:
        return self.http.post(f"deliveries/{self.number}/commands", json={"verb": verb})

    def problem(self, response: httpx2.Response, status: int) -> str:
        assert response.status_code == status, response.text
        body = response.json()
        assert body["code"].startswith("MS-")
        return f"{body['cause']}: {body['remedy']}"


def lines(*ids: int) -> bytes:
    return b"".join(wire.encode_row(PartRow(id=n, to=f"p{n}@d.test", d={"name": f"P{n}"})) for n in ids)


@pytest.fixture
def served(mid_db: MidDatabase, tmp_path: Path) -> Iterator[Served]:
    instance = InstanceConfig("mid1", "mid", database_url=mid_db.database.dsn, port=0)
    app = create_app(
        Config(tmp_path, instances=(instance,)), instance, mid_db.database, mid_db.clock, process="web@mid1"
    )
    running = server(app)
    with listening(instance) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        with httpx2.Client(
            base_url=f"{url}/mid/v1/", headers={"Authorization": f"Bearer {mid_db.key}"}, timeout=30, trust_env=False
        ) as http:
            yield Served(mid_db, url, http, delivery_id(mid_db.clock.now(), 7))
        running.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive()


def read_feed(response: httpx2.Response) -> tuple[FeedHead, list[Any]]:
    assert response.status_code == 200, response.text
    content = response.content
    if response.headers.get("content-encoding") == "zstd":
        content = wire.decompress(content)
    head, *rows = content.splitlines()
    return msgspec.json.decode(head, type=FeedHead), [msgspec.json.decode(row) for row in rows]


def test_a_delivery_goes_its_whole_way_over_the_link(served: Served) -> None:
    hello = msgspec.json.decode(served.http.get("hello").content, type=Hello)
    assert (hello.product, hello.instance, hello.account, hello.protocols, hello.transport) == (
        *("midsource", "mid1", "default", (1,), "sandbox"),
    )
    assert hello.now == served.mid.clock.now()
    assert served.http.put(f"deliveries/{served.number}", json=served.spec()).status_code == 201
    assert served.http.put(f"deliveries/{served.number}", json=served.spec()).status_code == 200
    for part, encoding in (("1", "zstd"), ("2", "gzip"), ("3", "")):
        assert served.put_part(part, lines(int(part)), encoding).json()["accepted"] == 1
    assert served.put_part("3", lines(3)).json()["repeated"] is True
    assert served.http.get(f"deliveries/{served.number}/parts/2").json()["accepted"] == 1
    hashes = wire.sum_hashes(wire.row_hash(line) for line in wire.lines(lines(1, 2, 3)))
    claim = msgspec.json.encode(Finalise(messages=3, row_hash=str(hashes), parts=3))
    answer = served.http.post(f"deliveries/{served.number}/finalize", content=claim).json()
    assert (answer["agreed"], answer["state"]) == (True, 45)
    assert served.order("start").json()["state"] == 51

    now = served.mid.clock.now()
    with served.mid.database.transaction() as conn:
        records = [OutcomeRecord(served.number, n, MessageEvent.ACCEPTED, now, reply="250 é") for n in (1, 2, 3)]
        ledger.record_outcomes(conn, served.mid.account_id, records, now)
    for encoding in ("zstd", "gzip", "identity", "zstd;q=0, gzip"):
        response = served.http.get("feed/logs?limit=2", headers={"Accept-Encoding": encoding})
        assert response.headers.get("content-encoding", "identity") == encoding.removeprefix("zstd;q=0, ")
        head, rows = read_feed(response)
        assert [row[:3] for row in rows] == [[served.number, 1, 1], [served.number, 2, 1]]
        assert (head.more, head.rows) == (True, 2)
    head, rows = read_feed(served.http.get("feed/logs", params={"after": head.cursor}))
    assert [row[1] for row in rows] == [3]
    assert not head.more
    _, rows = read_feed(served.http.get("feed/deliveries"))
    assert [(row["id"], row["figures"]) for row in rows] == [(served.number, {"1": 3})]
    served.http.get("feed/logs", params={"after": head.cursor})
    with served.mid.database.connection() as conn:
        assert scalar(conn, "select seq from feed_ack where stream = 'logs'") == head.seq


def test_without_a_right_key_nothing_is_told(served: Served) -> None:
    key = served.mid.key
    for given in (
        "",
        "Bearer",
        "Bearer .",
        f"Bearer {key}x",
        f"Bearer {key.split('.')[0]}.",
        f"Basic {key}",
        "Bearer é.é",
        "Bearer " + "x" * 9000,
    ):
        response = httpx2.get(
            f"{served.url}/mid/v1/hello", headers=[(b"Authorization", given.encode())], trust_env=False
        )
        assert "key" in served.problem(response, 401)
    with served.mid.database.transaction() as conn:
        accounts.set_active(conn, "default", active=False)
    served.problem(served.http.get("hello"), 401)
    with served.mid.database.transaction() as conn:
        accounts.set_active(conn, "default", active=True)
        renewed = accounts.renew_key(conn, "default")
    served.problem(served.http.get("hello"), 401)
    assert served.http.get("hello", headers={"Authorization": f"bearer {renewed}"}).status_code == 200


def test_another_account_sees_nothing_of_it(served: Served) -> None:
    served.http.put(f"deliveries/{served.number}", json=served.spec())
    served.put_part("1", lines(1))
    with served.mid.database.transaction() as conn:
        _, key = accounts.create(conn, "other")
    served.http.headers["Authorization"] = f"Bearer {key}"
    served.problem(served.http.get(f"deliveries/{served.number}/parts/1"), 404)
    served.problem(served.put_part("2", lines(2)), 404)
    served.problem(served.order("stop"), 404)
    assert read_feed(served.http.get("feed/deliveries"))[1] == []


@pytest.mark.parametrize(
    ("protocol", "who"), [("2", "upgrade the mid"), ("0", "upgrade the marketing"), ("x", "marketing")]
)
def test_another_protocol_is_told_whom_to_upgrade(served: Served, protocol: str, who: str) -> None:
    assert who in served.problem(served.http.get("hello", headers={"X-Midsource-Protocol": protocol}), 426)
    assert served.http.get("hello", headers={"X-Midsource-Protocol": "1"}).status_code == 200


def test_bad_input_is_refused_with_a_sentence_and_changes_nothing(served: Served) -> None:
    at = f"deliveries/{served.number}"
    put = served.http.put
    assert "not what this call takes" in served.problem(put(at, content=b"{"), 422)
    assert "subject" in served.problem(put(at, json={"id": served.number, "label": "x"}), 422)
    assert "address another" in served.problem(put(at, json=served.spec(served.number + 1)), 422)
    assert "month" in served.problem(put("deliveries/5", json=served.spec(5)), 422)
    served.problem(put("deliveries/99999999999999999999", json=served.spec()), 404)
    put(at, json=served.spec())
    assert "X-Content-Hash" in served.problem(put(f"{at}/parts/1", content=lines(1)), 422)
    assert "content hash" in served.problem(served.put_part("1", lines(1), **{"X-Content-Hash": "0" * 64}), 422)
    assert "not zstd" in served.problem(served.put_part("1", lines(1), "", **{"Content-Encoding": "zstd"}), 422)
    assert "not gzip" in served.problem(served.put_part("1", lines(1), "", **{"Content-Encoding": "gzip"}), 422)
    served.problem(served.put_part("1", lines(1), "", **{"Content-Encoding": "br"}), 415)
    assert "no number of a part" in served.problem(served.put_part("1.x", lines(1)), 422)
    served.problem(served.put_part("1", b"\n" * 5_001), 413)
    for encoding in ("zstd", "gzip"):
        assert "inflates" in served.problem(served.put_part("1", b"\0" * 65_000_000, encoding), 413)
    served.problem(served.http.post(f"{at}/commands", json={"verb": "explode"}), 422)
    served.problem(served.order("start"), 409)
    for query in ("limit=x", "limit=0", "wait=x", "since=yesterday", "since=2026-01-01T00:00:00", "after=x"):
        served.problem(served.http.get(f"feed/logs?{query}"), 422)
    served.problem(served.http.get("feed/everything"), 404)
    served.problem(served.http.get("tracking"), 404)
    served.problem(served.http.delete(at), 405)
    with served.mid.database.connection() as conn:
        assert scalar(conn, "select count(*) from message") == 0


def test_a_body_that_is_told_too_large_is_refused_before_it_is_sent(served: Served) -> None:
    address = served.url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), timeout=10) as raw:
        raw.sendall(
            f"PUT /mid/v1/deliveries/{served.number}/parts/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.mid.key}\r\n"
            f"X-Content-Hash: {'0' * 64}\r\nContent-Length: 4000001\r\n\r\n".encode()
        )
        assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_is_cut_at_the_limit(served: Served) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(50):
            yield b"x" * 100_000

    try:
        response = served.http.put(f"deliveries/{served.number}", content=pieces())
    except (httpx2.WriteError, httpx2.ReadError):  # the server closed while we were still sending: refused as well
        return
    served.problem(response, 413)


def test_a_body_cut_on_the_way_changes_nothing(served: Served) -> None:
    served.http.put(f"deliveries/{served.number}", json=served.spec())
    address = served.url.removeprefix("http://").split(":")
    raw = lines(*range(1, 100))
    with socket.create_connection((address[0], int(address[1])), timeout=10) as connection:
        connection.sendall(
            f"PUT /mid/v1/deliveries/{served.number}/parts/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.mid.key}\r\n"
            f"X-Content-Hash: {wire.content_hash(raw)}\r\nContent-Length: {len(raw)}\r\n\r\n".encode()
            + raw[: len(raw) // 2]
        )
    served.problem(served.http.get(f"deliveries/{served.number}/parts/1"), 404)
    assert served.put_part("1", raw).json()["accepted"] == 99


def test_a_cursor_of_another_database_is_answered_409_with_where_it_stands(served: Served) -> None:
    head, _ = read_feed(served.http.get("feed/logs"))
    with served.mid.database.connection() as conn:
        conn.execute("update instance set generation = gen_random_uuid()")
    response = served.http.get("feed/logs", params={"after": head.cursor})
    assert response.status_code == 409, response.text
    body = response.json()
    assert body["generation"] != head.generation
    assert {"head_seq", "oldest_seq"} <= body.keys()


def test_a_cursor_of_before_the_restore_acknowledges_nothing_that_came_after(served: Served) -> None:
    """A reader that begins anew by time still holds the cursor of its other lane, whose numbers are given again."""
    delivery = served.mid.delivery(messages=1)
    now = served.mid.clock.now()
    with served.mid.database.transaction() as conn:
        record = OutcomeRecord(delivery, 1, MessageEvent.ACCEPTED, now)
        ledger.record_outcomes(conn, served.mid.account_id, [record], now)
    head, _ = read_feed(served.http.get("feed/logs"))
    beyond = str(Cursor(uuid.UUID(head.generation), head.seq + 100))
    for held, told in (
        (str(Cursor(uuid.uuid4(), head.seq)), None),
        (beyond, None),
        ("", None),
        (head.cursor, head.seq),
    ):
        read_feed(served.http.get("feed/logs", params={"since": "2020-01-01T00:00:00Z", "held": held}))
        with served.mid.database.connection() as conn:
            assert scalar(conn, "select max(seq) from feed_ack where stream = 'logs'") == told


def test_who_waits_is_woken_by_news_and_otherwise_sent_home_in_time(served: Served) -> None:
    delivery = served.mid.delivery(messages=1)
    head, _ = read_feed(served.http.get("feed/logs"))
    started = time.monotonic()
    same, rows = read_feed(served.http.get("feed/logs", params={"after": head.cursor, "wait": "1"}))
    assert (same.cursor, rows) == (head.cursor, [])
    assert 0.9 < time.monotonic() - started < 5

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(served.http.get, "feed/logs", params={"after": head.cursor, "wait": "20"})
        time.sleep(0.5)
        started = time.monotonic()
        now = served.mid.clock.now()
        with served.mid.database.transaction() as conn:
            record = OutcomeRecord(delivery, 1, MessageEvent.ACCEPTED, now)
            ledger.record_outcomes(conn, served.mid.account_id, [record], now)
        _, rows = read_feed(waiting.result())
    assert [row[1] for row in rows] == [1]
    assert time.monotonic() - started < 5


def test_an_account_waits_twice_at_most(served: Served) -> None:
    head, _ = read_feed(served.http.get("feed/logs"))
    query = {"after": head.cursor, "wait": "3"}
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(served.http.get, "feed/logs", params=query) for _ in range(2)]
        time.sleep(1)
        third = served.http.get("feed/logs", params=query)
        assert "waits" in served.problem(third, 429)
        assert int(third.headers["retry-after"]) > 0
        assert [answer.result().status_code for answer in waiting] == [200, 200]


def test_an_ending_server_does_not_wait_for_those_who_wait(served: Served) -> None:
    head, _ = read_feed(served.http.get("feed/logs"))
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(served.http.get, "feed/logs", params={"after": head.cursor, "wait": "25"})
        time.sleep(0.5)
        started = time.monotonic()
        for thread in threading.enumerate():
            run = getattr(thread, "_target", None)
            if run is not None and hasattr(getattr(run, "__self__", None), "should_exit"):
                run.__self__.should_exit = True
        assert waiting.result().status_code == 200
    assert time.monotonic() - started < 8


def test_a_database_that_is_away_is_503_with_retry_after(served: Served) -> None:
    with served.mid.database.connection() as conn:
        name = scalar(conn, "select current_database()")
    served.mid.database.close()
    served.mid.database.dsn = ""
    broken = served.mid.database
    broken._pool = type(broken)(
        "mid1", f"postgresql:///{name}?host=/nonexistent", application="x", wait_seconds=1
    )._pool
    response = served.http.get("hello")
    assert "database" in served.problem(response, 503)
    assert int(response.headers["retry-after"]) > 0
    ready = httpx2.get(f"{served.url}/readyz", trust_env=False)
    served.problem(ready, 503)
    assert httpx2.get(f"{served.url}/healthz", trust_env=False).status_code == 200


@pytest.mark.slow
def test_rows_held_by_another_writer_are_503_not_409(served: Served, mid_db: MidDatabase) -> None:
    served.http.put(f"deliveries/{served.number}", json=served.spec())
    with mid_db.database.transaction() as conn:
        conn.execute("select from delivery where id = %s for update", (served.number,))
        response = served.put_part("1", lines(1))  # waits for LOCK_SECONDS, then says come again
    assert "held" in served.problem(response, 503)


def test_the_process_reports_itself_and_the_sweep_moves_deliveries(served: Served) -> None:
    with served.mid.database.connection() as conn:
        assert scalar(conn, "select kind from process where name = 'web@mid1'") == "web"
    delivery = served.mid.delivery(messages=1)
    now = served.mid.clock.now() + timedelta(seconds=1)
    with served.mid.database.transaction() as conn:  # and the process dies before it says advance
        record = OutcomeRecord(delivery, 1, MessageEvent.ACCEPTED, now)
        ledger.record_outcomes(conn, served.mid.account_id, [record], now)
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        with served.mid.database.connection() as conn:
            state = scalar(conn, "select state from delivery where id = %s", (delivery,))
        if state == 95:
            return
        time.sleep(0.2)
    raise AssertionError("the sweep did not finish the delivery")
