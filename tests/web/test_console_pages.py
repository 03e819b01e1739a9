"""The pages of the console over a real database and socket: empty, full, in three languages, with what is broken shown."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterator

import httpx2
import pytest
from tests.web.console_scene import ACCOUNT, HOSTILE, PROBLEM, Scene
from tests.web.console_served import Console

from midsource.store.database import scalar
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


def test_a_running_delivery_in_figures(console: Console, browser: httpx2.Client, scene: Scene) -> None:
    with console.database.connection() as conn:
        sent = scalar(conn, "select (figures->>'sent')::int from delivery where id = %s", (scene.running,))
        logged = scalar(conn, "select count(*) from broad_log where delivery_id = %s and state = 1", (scene.running,))
        denied = scalar(
            conn, "select count(*) from broad_log where delivery_id = %s and state = 0 and reason = 8", (scene.running,)
        )
    assert sent == logged + 7
    words = seen(browser.get(f"/deliveries/{scene.running}?lang=en"))
    assert "Newsletter of November in progress" in words
    assert re.search(rf"sent {sent} [\d.]+% {logged} failed", words)
    assert "Figures as of" in words
    assert "The results of 7 messages are known by counter and not yet in the delivery log." in words
    assert f"denylisted {denied}" in words
    assert "3 of 3 taken by the mid" in words
    assert "hand-over" in words


def test_the_words_of_a_delivery_are_the_fields_in_each_language(browser: httpx2.Client, scene: Scene) -> None:
    paused = {"en": "paused", "fr": "en pause", "pt": "em pausa"}
    log = {"en": "Delivery log", "fr": "Journaux de diffusion", "pt": "Logs de delivery"}
    for language in LANGUAGES:
        words = seen(browser.get(f"/deliveries/{scene.cut}", params={"lang": language}))
        assert f"Invitation to the autumn evening {paused[language]}" in words
        assert log[language] in words
        kept = seen(browser.get("/deliveries"))
        assert texts(language)["nav.deliveries"] in kept, "the language is kept without asking again"


def test_an_order_that_the_mid_has_not_confirmed_is_shown(browser: httpx2.Client, scene: Scene) -> None:
    words = seen(browser.get(f"/deliveries/{scene.cut}?lang=en"))
    assert re.search(rf"The order “pause” of .* is not confirmed by {ACCOUNT} yet", words)
    assert f"The link to {ACCOUNT} has a problem. {PROBLEM}" in words
    assert "attempt 12, next in 60 s" in words
    assert words.index("attempt 12") < words.index("attempt 11"), "newest first"
    assert "The order “pause” is not confirmed yet." in seen(browser.get("/deliveries"))


def test_a_failed_preparation_shows_its_findings_and_escapes_them(browser: httpx2.Client, scene: Scene) -> None:
    answer = browser.get(f"/deliveries/{scene.broken}?lang=en")
    words = seen(answer)
    assert "preparation failed" in words
    assert "did you mean 'voucher'?" in words
    assert "error html line 12" in words
    assert HOSTILE not in answer.text
    assert HOSTILE not in browser.get("/deliveries").text


def rows(answer: httpx2.Response) -> list[int]:
    return [int(number.replace(",", "")) for number in re.findall(r'data-label="#">([\d,]+)<', answer.text)]


def follow(browser: httpx2.Client, answer: httpx2.Response) -> Iterator[httpx2.Response]:
    """Yield the page and those that its link leads on to."""
    while True:
        yield answer
        further = re.search(r'rel="next" href="([^"]+)"', answer.text)
        if not further:
            return
        answer = browser.get(str(answer.url.join(html.unescape(further[1]))))


def test_the_log_by_pages_holds_every_row_once(browser: httpx2.Client, scene: Scene) -> None:
    pages = [rows(page) for page in follow(browser, browser.get(f"/deliveries/{scene.running}"))]
    assert [len(page) for page in pages] == [50] * 20
    assert [number for page in pages for number in page] == list(range(1, 1_001))


def test_the_log_of_one_state(console: Console, browser: httpx2.Client, scene: Scene) -> None:
    with console.database.connection() as conn:
        found = conn.execute(
            "select id from broad_log where delivery_id = %s and state = 61 order by id", (scene.running,)
        ).fetchall()
    pages = [rows(page) for page in follow(browser, browser.get(f"/deliveries/{scene.running}?state=61"))]
    assert [number for page in pages for number in page] == [row[0] for row in found]
    assert "greylisted" in browser.get(f"/deliveries/{scene.running}?state=61").text


def test_the_log_of_one_address(browser: httpx2.Client, scene: Scene) -> None:
    at = f"/deliveries/{scene.running}"
    assert rows(browser.get(at, params={"email": " Person53@GREYLIST.example "})) == [53]
    assert "no such user here" in browser.get(at, params={"email": "person53@greylist.example"}).text
    for nobody in ("nobody@laposte.example", "53", "' or 1=1 --", "a\0b", "é" * 400):
        answer = browser.get(at, params={"email": nobody, "lang": "en"})
        assert rows(answer) == []
        assert "Nobody in this delivery has that address." in seen(answer)


def test_a_rare_state_is_looked_for_in_bounded_steps(
    console: Console, browser: httpx2.Client, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midsource.web.console.pages.log_view.SCANNED_ROWS", 300)
    monkeypatch.setattr("midsource.web.console.pages.log_view.WINDOW_ROWS", 100)
    answer = browser.get(f"/deliveries/{scene.running}?state=7&lang=en")
    assert "Messages 1 to 300 were looked through." in seen(answer)
    assert [rows(page) for page in follow(browser, answer)] == [[], [], [], []]


def test_the_list_of_deliveries_by_pages(console: Console, browser: httpx2.Client, scene: Scene) -> None:
    with console.database.transaction() as conn:
        conn.execute(
            "insert into delivery (id, label, state, brand, account, subject, html, text, from_name, from_address, "
            "validity_seconds, retry_count, retry_period_seconds, uncertain_policy) select id + n, 'more ' || n, 0, brand, "
            "account, '', '', '', '', '', 60, 0, 60, 'hold' from delivery, generate_series(1, 50) n where id = %s",
            (scene.edited,),
        )
    pages = list(follow(browser, browser.get("/deliveries")))
    found = [int(number) for page in pages for number in re.findall(r'href="/deliveries/(\d+)"', page.text)]
    assert [len(re.findall(r'href="/deliveries/\d+"', page.text)) for page in pages] == [25, 25, 5]
    assert found == sorted(set(found), reverse=True)
    assert len(found) == 55


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
