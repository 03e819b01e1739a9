"""What machines ask without signing in: alive, ready, and the test page of load balancers."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import httpx2
import pytest
from tests.web.console_served import Console

from midsource.web.health import LATEST_LOOK_SECONDS

JSON = {"accept": "application/json"}


@pytest.fixture
def stranger(console: Console) -> httpx2.Client:
    return httpx2.Client(base_url=console.address, trust_env=False)


def test_a_stranger_hears_that_it_serves_and_is_ready(stranger: httpx2.Client) -> None:
    assert stranger.get("/healthz").text == "ok\n"
    assert stranger.get("/readyz").text == "ready\n"


def test_ready_names_each_need_to_a_program(stranger: httpx2.Client) -> None:
    answer = stranger.get("/readyz", headers=JSON)
    assert answer.status_code == 200
    assert answer.json() == {"ready": True, "needs": {"database": "ok", "schema": "ok"}}


def test_a_schema_of_another_version_is_not_ready(console: Console, stranger: httpx2.Client) -> None:
    with console.database.connection() as conn:
        conn.execute("update alembic_version set version_num = '9999'")
    answer = stranger.get("/readyz", headers=JSON)
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "needs": {"database": "ok", "schema": "MS-500"}}
    assert int(answer.headers["retry-after"]) > 0
    plain = stranger.get("/readyz")
    assert plain.status_code == 503
    assert "schema 9999" in plain.json()["cause"]
    assert stranger.get("/healthz").status_code == 200


def test_the_test_page_of_load_balancers_is_the_fields(stranger: httpx2.Client) -> None:
    answer = stranger.get("/r/test", headers={"host": 'a"<b&c'})
    assert answer.headers["content-type"].startswith("text/xml")
    page = ET.fromstring(answer.text)
    assert (page.tag, page.get("status"), page.get("host")) == ("redir", "OK", 'a"<b&c')
    assert page.get("localHost") == "marketing"


def test_the_database_is_looked_at_once_a_second_however_many_ask(console: Console, stranger: httpx2.Client) -> None:
    assert LATEST_LOOK_SECONDS >= 1.0
    stranger.get("/readyz")
    before = console.database.pool_figures()["asked"]
    for _ in range(20):
        assert stranger.get("/readyz").status_code == 200
    assert console.database.pool_figures()["asked"] - before <= 4
