"""``/metrics``: closed to strangers, complete, cheap, and there when the database is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.web.console_scene import Scene
from tests.web.console_served import Console, serving

from midsource.config import Config, InstanceConfig
from midsource.model.metrics import METRICS, of_role
from midsource.net.clock import SystemClock
from midsource.security import access, api_keys
from midsource.security.roles import Permission, at_command_line
from midsource.store import migrate
from midsource.store.database import Database
from midsource.web import metrics

Values = dict[tuple[str, ...], float]


@pytest.fixture
def scraper(console: Console) -> Iterator[httpx2.Client]:
    with scraping(console.address, console.home) as client:
        yield client


def scraping(address: str, home: Path) -> httpx2.Client:
    key = {"authorization": f"Bearer {access.token(home)}"}
    return httpx2.Client(base_url=address, headers=key, trust_env=False)


def scraped(client: httpx2.Client) -> dict[str, Values]:
    """Return every figure by its declared name: its values by their labels in alphabetical order of the labels' names."""
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found: dict[str, Values] = {}
    for family in text_string_to_metric_families(answer.text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        values = found.setdefault(name, {})
        for sample in family.samples:
            if sample.name.endswith(("_bucket", "_sum")):
                continue
            values[tuple(text for _, text in sorted(sample.labels.items()))] = sample.value
    return found


def test_a_stranger_gets_nothing_also_from_this_machine(console: Console) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}, {"x-forwarded-for": "127.0.0.1"}):
        answer = httpx2.get(f"{console.address}/metrics", headers=headers, trust_env=False)
        assert answer.status_code == 401
        assert "midsource_" not in answer.text


def test_a_key_with_its_scope_reads_figures_and_nothing_else(console: Console) -> None:
    now = SystemClock().now()
    with console.database.transaction() as conn:
        key = api_keys.issue(conn, at_command_line("tests"), "prometheus", [Permission.METRICS], now, None)
        other = api_keys.issue(conn, at_command_line("tests"), "reader", [Permission.SEE], now, None)
    headers = {"authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=console.address, headers=headers, trust_env=False) as client:
        assert "midsource_build_info" in scraped(client)
        assert client.get("/deliveries").status_code in (401, 403)
    answer = httpx2.get(f"{console.address}/metrics", headers={"authorization": f"Bearer {other}"}, trust_env=False)
    assert answer.status_code == 403


def test_what_is_scraped_is_what_is_declared(scene: Scene, scraper: httpx2.Client) -> None:
    assert scene
    assert set(scraped(scraper)) == {metric.name for metric in of_role("marketing")}


def test_names_labels_and_words_are_declared_as_the_format_wants_them() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.name.startswith("midsource_")
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.meaning.endswith("."), metric.name


def test_figures_are_those_of_the_tables(console: Console, scene: Scene, scraper: httpx2.Client) -> None:
    with console.database.connection() as conn:
        rows = conn.execute("select state, count(*) from broad_log where delivery_id = %s group by 1", (scene.running,))
        expected = {int(state): n for state, n in rows.fetchall()}
        conn.execute("delete from broad_log_total where delivery_id <> %s", (scene.running,))
        conn.execute(
            "insert into pointer (account, stream, lane, reached_at) values "
            "('defaultEmailMid', 'logs', 'backlog', now() - interval '2 hours')"
        )
    found = scraped(scraper)
    assert found["midsource_messages"]["defaultEmailMid", "sent"] == expected[1]
    assert found["midsource_messages"]["defaultEmailMid", "ignored"] == expected[0]
    assert found["midsource_deliveries"]["defaultEmailMid", "in progress"] == 1
    assert found["midsource_deliveries"]["defaultEmailMid", "preparation failed"] == 1
    assert 7_200 <= found["midsource_pointer_lag_seconds"]["defaultEmailMid", "backlog", "logs"] < 7_260
    assert found["midsource_workflow_failed"] == {("defaultMidSourcingDlv",): 0, ("defaultMidSourcingLog",): 1}
    assert found["midsource_workflow_state"]["running", "defaultMidSourcingDlv"] == 1
    assert found["midsource_workflow_success_age_seconds"]["defaultMidSourcingLog",] > 25 * 3_600
    assert found["midsource_orders_unconfirmed"]["defaultEmailMid",] == 1
    assert found["midsource_account_problem"]["defaultEmailMid",] == 1
    assert found["midsource_processes_alive"] == {("web",): 1, ("worker",): 1, ("mta",): 0}
    assert found["midsource_process_alive"]["send1", "worker@marketing.2"] == 0
    assert found["midsource_link_failures"]
    assert set(found["midsource_measured"].values()) == {1.0}


def test_requests_are_counted_by_route_never_by_path(console: Console, scene: Scene, scraper: httpx2.Client) -> None:
    assert scraper.get(f"/deliveries/{scene.running}").status_code == 200
    assert scraper.get("/deliveries/999").status_code == 404
    assert scraper.get("/people/anna@secret.example").status_code == 404
    httpx2.get(f"{console.address}/", trust_env=False)
    found = scraped(scraper)
    answered = found["midsource_http_requests_total"]
    route = next(route for _, route, status in answered if status == "200" and "{" in route)
    assert answered["GET", route, "200"] == 1
    assert answered["GET", route, "404"] == 1
    assert answered["GET", "none", "401"] == 1
    assert found["midsource_http_request_seconds"][route,] == 2
    assert "secret.example" not in scraper.get("/metrics").text


def test_one_figure_that_fails_takes_no_other_away(console: Console, scene: Scene, scraper: httpx2.Client) -> None:
    with console.database.connection() as conn:
        conn.execute("alter table pointer rename to pointer_away")
    found = scraped(scraper)
    assert found["midsource_measured"]["pointers",] == 0
    assert found["midsource_pointer_lag_seconds"] == {}
    assert sum(found["midsource_measured"].values()) == len(found["midsource_measured"]) - 1
    assert scene.running
    assert found["midsource_deliveries"]


def test_a_figure_that_is_slow_to_read_is_left_out_in_time(console: Console, scraper: httpx2.Client) -> None:
    with psycopg.connect(console.database.dsn) as other:
        other.execute("lock table upload_part in access exclusive mode")
        found = scraped(scraper)
    assert found["midsource_measured"]["parts",] == 0
    assert found["midsource_measure_seconds"]["parts",] < metrics.STATEMENT_SECONDS + 1
    assert found["midsource_measured"]["pointers",] == 1


def test_nothing_can_be_written_by_a_measure(console: Console, scraper: httpx2.Client) -> None:
    with console.database.connection() as conn:
        conn.execute("alter table pointer rename to pointer_kept")
        conn.execute(
            "create function written() returns setof pointer_kept language sql as 'delete from pointer_kept returning *'"
        )
        conn.execute("create view pointer as select * from written()")
    found = scraped(scraper)
    assert found["midsource_measured"]["pointers",] == 0, "a read that writes is refused"


def test_a_look_is_kept_for_seconds(console: Console, scraper: httpx2.Client) -> None:
    scraped(scraper)
    before = console.database.pool_figures()["asked"]
    for _ in range(10):
        scraped(scraper)
    assert console.database.pool_figures()["asked"] - before <= 4, "ten scrapes at once are not ten looks"


def test_a_mid_shows_its_own_figures(make_database: Callable[..., str], tmp_path: Path, free_port: int) -> None:
    instance = InstanceConfig("mid1", "mid", port=free_port)
    with Database("mid1", make_database(), application="tests", max_connections=4) as database:
        migrate.upgrade(database, "mid")
        with database.transaction() as conn:
            migrate.describe_instance(conn, "mid1", "mid")
        (tmp_path / "journal" / "mid1" / "gone").mkdir(parents=True)
        (tmp_path / "journal" / "mid1" / "gone" / "000001.log").write_bytes(b"x" * 100)
        with serving(Config(tmp_path, instances=(instance,)), instance, database) as address:
            found = scraped(scraping(address, tmp_path))
    assert set(found) == {metric.name for metric in of_role("mid")}
    assert found["midsource_journals"] == {("living",): 0, ("waiting",): 1}
    assert found["midsource_journal_bytes"] == {(): 100}
    assert set(found["midsource_measured"].values()) == {1.0}
