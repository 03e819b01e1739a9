"""The pages of the console over a real database and socket: empty, full, in three languages, with what is broken shown."""

from __future__ import annotations

import html
import re
import time

import httpx2
import pytest
from tests.web.console_scene import PROBLEM, Scene
from tests.web.console_served import Console

from midsource.web.console.catalogue import LANGUAGES, texts

PAGES = ("/", "/deliveries", "/sandbox")


def seen(answer: httpx2.Response) -> str:
    """Return the words of a page, as somebody reads them."""
    assert answer.status_code == 200, answer.text
    text = re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", answer.text, flags=re.DOTALL)
    return " ".join(html.unescape(text).split())


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_an_empty_instance_says_what_to_do(browser: httpx2.Client, path: str, language: str) -> None:
    answer = browser.get(path, params={"lang": language})
    assert f'<html lang="{language}">' in answer.text
    words = seen(answer)
    expected = {"/": "workflow.none", "/deliveries": "delivery.none", "/sandbox": "sandbox.absent"}[path]
    assert re.sub(r"[`\s]", "", texts(language)[expected]) in re.sub(r"\s", "", words)
    assert "None" not in words


def test_the_status_names_everything_that_needs_attention(browser: httpx2.Client, scene: Scene) -> None:
    words = seen(browser.get("/?lang=en"))
    assert "3 things need attention" in words
    assert "worker@marketing.2 gave its last sign of life 3 min ago" in words
    assert f"defaultMidSourcingLog failed – {PROBLEM}" in words
    assert f"Mid 1 has a problem – {PROBLEM}" in words
    assert "second line of the cause" not in words
    assert re.search(r"\(delivery logs\) defaultMidSourcingLog failed started 26 h ago in [56] min", words)
    assert "Season’s greetings being edited" in words


def test_a_healthy_instance_says_so(console: Console, browser: httpx2.Client, scene: Scene) -> None:
    with console.database.transaction() as conn:
        conn.execute("delete from process where name = 'worker@marketing.2'")
        conn.execute("update workflow set failed = false, last_success_at = now()")
        conn.execute("update external_account set last_problem = ''")
    assert "Everything runs." in seen(browser.get("/"))


def test_without_a_living_worker_the_status_says_what_that_means(
    console: Console, browser: httpx2.Client, scene: Scene
) -> None:
    with console.database.transaction() as conn:
        conn.execute("delete from process where kind = 'worker'")
    assert "no worker is alive" in seen(browser.get("/"))


@pytest.mark.parametrize(
    "path",
    [
        "/deliveries/x",
        "/deliveries/-1",
        "/deliveries/9999999999999999999999",
        "/deliveries?before=1.5",
        "/deliveries/%C2%B2",
    ],
)
def test_a_number_that_is_none_is_refused_with_a_sentence(browser: httpx2.Client, path: str) -> None:
    answer = browser.get(path)
    assert answer.status_code == 422
    assert "a whole number is expected" in answer.text


def test_a_delivery_that_is_not_there(browser: httpx2.Client) -> None:
    answer = browser.get("/deliveries/7?lang=fr")
    assert answer.status_code == 404
    assert "Il n’y a rien ici" in answer.text
    assert "there is no delivery 7" in answer.text


def test_pages_refresh_while_what_they_show_can_change(browser: httpx2.Client, scene: Scene) -> None:
    assert 'hx-trigger="every 5s"' in browser.get(f"/deliveries/{scene.running}").text
    finished = browser.get(f"/deliveries/{scene.finished}").text
    assert "hx-trigger" not in finished
    assert "htmx" not in finished.partition("</head>")[2]


def test_pages_never_wait_for_rows_that_somebody_changes(
    console: Console, browser: httpx2.Client, scene: Scene
) -> None:
    with console.database.transaction() as conn:
        conn.execute("update delivery set label = 'held'")
        conn.execute("update broad_log_total set n = n + 1")
        began = time.monotonic()
        assert "Newsletter of November" in seen(browser.get(f"/deliveries/{scene.running}"))
        assert time.monotonic() - began < 5
