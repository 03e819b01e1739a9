"""The pages of deliveries over a real database and socket: list, summary, log, stories, time line, orders, export."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Iterator
from datetime import timedelta

import httpx2
import pytest
from tests.web.console_scene import ACCOUNT, HOSTILE, PROBLEM, Scene
from tests.web.console_served import Console
from tests.web.test_console_pages import seen

from midsource.marketing import log_search
from midsource.net.clock import SystemClock
from midsource.store.database import scalar
from midsource.web.console.catalogue import LANGUAGES, texts

TABS = ("", "/log", "/trail")


def rows(answer: httpx2.Response) -> list[int]:
    """Return the numbers of the log rows on a page."""
    assert answer.status_code == 200, answer.text
    return [int(number.replace(",", "")) for number in re.findall(r'data-label="#">([\d,]+)<', answer.text)]


def follow(browser: httpx2.Client, answer: httpx2.Response) -> Iterator[httpx2.Response]:
    """Yield the page and those that its link leads on to."""
    while True:
        yield answer
        further = re.search(r'rel="next" href="([^"]+)"', answer.text)
        if not further:
            return
        answer = browser.get(str(answer.url.join(html.unescape(further[1]))))


def post(browser: httpx2.Client, path: str, **fields: str) -> httpx2.Response:
    """Send a form of our own page, and follow where it leads."""
    pages = (browser.get(page).text for page in (path.rpartition("/")[0], "/"))
    csrf = next(found[1] for page in pages if (found := re.search(r'name="csrf" value="([^"]+)"', page)))
    return browser.post(path, data={"csrf": csrf, **fields}, headers={"sec-fetch-site": "same-origin"})


def value(console: Console, column: str, number: int) -> object:
    """Return a column of a delivery."""
    with console.database.connection() as conn:
        return scalar(conn, f"select {column} from delivery where id = %s", (number,))


def audited(console: Console) -> list[tuple[str, str, str]]:
    """Return (who, verb, subject) of everything about deliveries in the audit."""
    with console.database.connection() as conn:
        found = conn.execute("select who, verb, subject from audit where verb like 'delivery.%' order by id").fetchall()
    return [(row[0], row[1], row[2]) for row in found]


# The list


def names(answer: httpx2.Response) -> list[str]:
    return [html.unescape(name) for name in re.findall(r'<a class="name"[^>]*>([^<]*)</a>', answer.text)]


def test_the_list_is_searched_and_filtered(console: Console, browser: httpx2.Client, scene: Scene) -> None:
    assert len(names(browser.get("/deliveries"))) == 5
    assert names(browser.get("/deliveries?label=newsLETTER")) == ["Newsletter of November", "Newsletter of October"]
    assert names(browser.get("/deliveries?stage=running")) == ["Newsletter of November"]
    assert names(browser.get("/deliveries?stage=failed")) == [f"Voucher {HOSTILE}"]
    assert names(browser.get("/deliveries?label=november&stage=finished")) == []
    assert names(browser.get(f"/deliveries?account={ACCOUNT}&label=%25")) == []
    assert names(browser.get("/deliveries?account=other")) == []
    for hostile in ("' or 1=1 --", HOSTILE, "%", "_", "\\"):
        answer = browser.get("/deliveries", params={"label": hostile})
        assert len(names(answer)) == (hostile == HOSTILE)
        assert HOSTILE not in answer.text
    assert "No delivery matches." in seen(browser.get("/deliveries?label=nothing"))
    assert browser.get("/deliveries?stage=none").status_code == 422


def test_the_list_by_pages_keeps_the_filter(console: Console, browser: httpx2.Client, scene: Scene) -> None:
    with console.database.transaction() as conn:
        conn.execute(
            "insert into delivery (id, label, state, brand, account, subject, html, text, from_name, from_address, "
            "validity_seconds, retry_count, retry_period_seconds, uncertain_policy) select id + n, 'more & ' || n, 0, brand, "
            "account, '', '', '', '', '', 60, 0, 60, 'hold' from delivery, generate_series(1, 50) n where id = %s",
            (scene.edited,),
        )
    for query, sizes in (("", [25, 25, 5]), ("?label=more+%26&stage=edited", [25, 25])):
        pages = list(follow(browser, browser.get(f"/deliveries{query}")))
        found = [
            int(number) for page in pages for number in re.findall(r'class="name" href="/deliveries/(\d+)"', page.text)
        ]
        assert [len(names(page)) for page in pages] == sizes
        assert found == sorted(set(found), reverse=True)


def test_a_search_goes_on_where_it_stopped_looking(
    browser: httpx2.Client, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midsource.web.console.pages.delivery_list.LOOKED", 2)
    pages = list(follow(browser, browser.get("/deliveries?label=october&lang=en")))
    assert [names(page) for page in pages] == [[], [], ["Newsletter of October"]]
    assert "No delivery matches." in seen(pages[0])


def test_the_list_says_why_it_waits_how_fast_it_goes_and_how_old_that_is(
    console: Console, browser: httpx2.Client, scene: Scene
) -> None:
    words = seen(browser.get("/deliveries?lang=en"))
    assert "The order “pause” of " in words
    assert "Figures as of" in words
    assert "No estimate yet." in words
    with console.database.transaction() as conn:
        conn.execute("update external_account set last_hello_at = now()")
        conn.execute(
            "insert into delivery_sample select id, figures_at - interval '50 s', "
            "(figures->>'sent')::int + (figures->>'failed')::int - 500 from delivery where id = %s",
            (scene.running,),
        )
    words = seen(browser.get("/deliveries?lang=en"))
    assert "10 messages a second over the last minute. Every message will have been tried in about" in words
    assert "10 messages a second over the last minute." in seen(browser.get(f"/deliveries/{scene.running}?lang=en"))


def test_proofs_are_not_in_the_list(console: Console, browser: httpx2.Client, scene: Scene) -> None:
    with console.database.transaction() as conn:
        conn.execute(
            "update delivery set proof_of = %s, proof_number = 1 where id = %s", (scene.finished, scene.edited)
        )
    assert "Season’s greetings" not in names(browser.get("/deliveries"))
    assert "Proof 1 of this delivery" in seen(browser.get(f"/deliveries/{scene.edited}?lang=en"))


# One delivery


def test_a_running_delivery_in_figures(console: Console, browser: httpx2.Client, scene: Scene) -> None:
    with console.database.connection() as conn:
        sent = scalar(conn, "select (figures->>'sent')::int from delivery where id = %s", (scene.running,))
        logged = scalar(conn, "select count(*) from broad_log where delivery_id = %s and state = 1", (scene.running,))
        denied = scalar(
            conn, "select count(*) from broad_log where delivery_id = %s and state = 0 and reason = 8", (scene.running,)
        )
    assert sent == logged + 7
    answer = browser.get(f"/deliveries/{scene.running}?lang=en")
    words = seen(answer)
    assert "Newsletter of November in progress" in words
    assert re.search(rf"sent {sent} [\d.]+% {logged} failed", words)
    assert "Figures as of" in words
    assert "The results of 7 messages are known by counter and not yet in the delivery log." in words
    assert f"denylisted {denied}" in words
    assert "3 of 3 taken by the mid" in words
    assert re.search(r"hand-over \d\d:\d\d:\d\d 1,000 1.9 s sending .* return of results", words)
    assert f"{ACCOUNT} is sending it" in words
    assert re.search(r"deferred (in \d+ min|due now) \d+ 451 4.7.1 greylisted", words)
    for state, reason in ((0, 8), (2, 1)):
        link = html.unescape(re.search(rf"/deliveries/\d+/log\?state={state}&(?:amp;)?reason={reason}", answer.text)[0])  # type: ignore[index]
        shown = re.search(rf'reason={reason}">([\d,]+)<', answer.text)
        assert shown
        assert len(rows(browser.get(link))) == int(shown[1])


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_page_of_every_delivery_speaks_each_language(browser: httpx2.Client, scene: Scene, language: str) -> None:
    for number in (scene.running, scene.cut, scene.finished, scene.broken, scene.edited):
        for tab in TABS:
            answer = browser.get(f"/deliveries/{number}{tab}", params={"lang": language})
            words = seen(answer)
            assert texts(language)["delivery_tab.trail"] in words
            assert HOSTILE not in answer.text
            assert "None" not in words
    paused = {"en": "paused", "fr": "en pause", "pt": "em pausa"}
    words = seen(browser.get(f"/deliveries/{scene.cut}", params={"lang": language}))
    assert f"Invitation to the autumn evening {paused[language]}" in words


def test_an_order_that_the_mid_has_not_confirmed_is_shown(browser: httpx2.Client, scene: Scene) -> None:
    words = seen(browser.get(f"/deliveries/{scene.cut}?lang=en"))
    assert re.search(rf"The order “pause” of .* is not confirmed by {ACCOUNT} yet", words)
    assert f"The link to {ACCOUNT} has a problem. {PROBLEM}" in words
    assert "The figures are those of" in words
    trail = seen(browser.get(f"/deliveries/{scene.cut}/trail?lang=en"))
    assert trail.index("attempt 12, next in 60 s") < trail.index("attempt 11"), "newest first"


def test_a_failed_preparation_shows_its_findings_and_escapes_them(browser: httpx2.Client, scene: Scene) -> None:
    answer = browser.get(f"/deliveries/{scene.broken}?lang=en")
    words = seen(answer)
    assert "preparation failed" in words
    assert "did you mean 'voucher'?" in words
    assert "error html line 12" in words
    assert HOSTILE not in answer.text
    assert HOSTILE not in browser.get("/deliveries").text


def test_without_a_worker_the_page_says_that_nothing_will_be_done(
    console: Console, browser: httpx2.Client, scene: Scene
) -> None:
    said = "No worker is alive: what is asked for waits"
    assert said not in seen(browser.get(f"/deliveries/{scene.cut}?lang=en"))
    with console.database.transaction() as conn:
        conn.execute("delete from process where kind = 'worker'")
    assert said in seen(browser.get(f"/deliveries/{scene.cut}?lang=en"))
    assert said not in seen(browser.get(f"/deliveries/{scene.finished}?lang=en")), "nothing is asked for"


# Its log


def test_the_log_by_pages_holds_every_row_once(browser: httpx2.Client, scene: Scene) -> None:
    pages = [rows(page) for page in follow(browser, browser.get(f"/deliveries/{scene.running}/log"))]
    assert [len(page) for page in pages] == [50] * 20
    assert [number for page in pages for number in page] == list(range(1, 1_001))


@pytest.mark.parametrize(("query", "condition"), [("state=61", "state = 61"), ("state=0&reason=10", "state = 0 and reason = 10"), ("reason=5", "reason = 5")])  # fmt: skip
def test_the_log_of_one_state_and_reason(
    console: Console, browser: httpx2.Client, scene: Scene, query: str, condition: str
) -> None:
    with console.database.connection() as conn:
        found = conn.execute(
            f"select id from broad_log where delivery_id = %s and {condition} order by id", (scene.running,)
        ).fetchall()
    pages = [rows(page) for page in follow(browser, browser.get(f"/deliveries/{scene.running}/log?{query}"))]
    assert [number for page in pages for number in page] == [row[0] for row in found]
    assert found


def test_the_log_of_one_address_or_its_beginning(browser: httpx2.Client, scene: Scene) -> None:
    at = f"/deliveries/{scene.running}/log"
    assert rows(browser.get(at, params={"email": " Person53@GREYLIST.example "})) == [53]
    assert "no such user here" in browser.get(at, params={"email": "person53@greylist.example"}).text
    assert rows(browser.get(at, params={"email": "person53@"})) == [53]
    assert sorted(rows(browser.get(at, params={"email": "PERSON99"}))) == [99, *range(990, 1_000)]
    assert rows(browser.get(at, params={"email": "person99", "state": "0"})) == []
    for nobody in ("nobody@laposte.example", "53", "' or 1=1 --", "a\0b", "é" * 400, "%", HOSTILE):
        answer = browser.get(at, params={"email": nobody, "lang": "en"})
        assert rows(answer) == []
        assert "Nobody in this delivery has an address that begins so." in seen(answer)
        assert HOSTILE not in answer.text


def test_a_page_that_looked_and_found_nothing_says_how_far(
    browser: httpx2.Client, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, amount in (("NEAR_ROWS", 100), ("WINDOW_ROWS", 100), ("SCANNED_ROWS", 300)):
        monkeypatch.setattr(log_search, name, amount)
    answer = browser.get(f"/deliveries/{scene.running}/log?state=6&lang=en")
    assert "Messages 1 to 300 were looked through." in seen(answer)
    assert sum(len(rows(page)) for page in follow(browser, answer)) > 200


@pytest.mark.parametrize("query", ["state=3", "state=x", "reason=0", "reason=999", "after=1.5"])
def test_a_filter_that_is_none_is_refused_with_a_sentence(browser: httpx2.Client, scene: Scene, query: str) -> None:
    assert browser.get(f"/deliveries/{scene.running}/log?{query}").status_code == 422


def test_the_story_of_one_message(console: Console, browser: httpx2.Client, scene: Scene) -> None:
    words = seen(browser.get(f"/deliveries/{scene.running}/messages/53?lang=en"))
    assert f"Message 53 of delivery {scene.running} is for recipient" in words
    assert "Failed (user unknown) after 1 attempt" in words
    assert "no such user here" in words
    assert "Excluded at" in seen(browser.get(f"/deliveries/{scene.running}/messages/41"))
    assert browser.get(f"/deliveries/{scene.running}/messages/1001").status_code == 404
    with console.database.transaction() as conn:
        conn.execute("update broad_log set email = '', recipient_id = 0, reply = %s where id = 53", (HOSTILE,))
    answer = browser.get(f"/deliveries/{scene.running}/messages/53")
    assert "a person who was erased" in seen(answer)
    assert HOSTILE not in answer.text


# The time line


def test_the_time_line_merges_orders_phases_work_and_failures(
    console: Console, browser: httpx2.Client, scene: Scene
) -> None:
    with console.database.transaction() as conn:
        conn.execute(
            "insert into audit (at, who, via, verb, subject) values (now(), 'ana', 'console', 'delivery.pause', %(id)s), "
            "(now(), 'cli:root', 'cli', 'delivery.unheard_of', %(id)s), (now(), 'ana', 'console', 'option.set', %(id)s)",
            {"id": str(scene.cut)},
        )
        conn.execute(
            "update upload_part set state = 'stored', attempts = 4 where delivery_id = %s and part = '2'", (scene.cut,)
        )
        conn.execute(
            "update delivery set phases = jsonb_set(phases, '{0,rows}', '1') where id = %s", (scene.cut,)
        )  # fmt: skip
    words = seen(browser.get(f"/deliveries/{scene.cut}/trail?lang=en"))
    assert "Phase checks: 1 row in 4 ms" in words
    assert "Order to pause by ana (console)" in words
    assert "delivery.unheard_of by cli:root (cli)" in words
    assert "option.set" not in words
    assert "Phase personalisation: 1,000 rows in 3.2 s" in words
    assert "Done: hand-over finished" in words
    assert "Sending began" in words
    assert "Parts not taken yet" in words
    assert re.search(r"Next try 2 1 4 due now", words)
    assert words.index("by ana") < words.index("attempt 12") < words.index("Sending began")


def test_a_long_time_line_goes_on_by_pages(console: Console, browser: httpx2.Client, scene: Scene) -> None:
    with console.database.transaction() as conn:
        conn.execute(
            "insert into link_event (at, account, delivery_id, method, line) select %s + n * interval '1 s', %s, %s, 'ExecCommand', "
            "'failure ' || n || '!' from generate_series(1, 250) n",
            (SystemClock().now() - timedelta(hours=5), ACCOUNT, scene.running),
        )
    pages = list(follow(browser, browser.get(f"/deliveries/{scene.running}/trail")))
    found = [int(n) for page in pages for n in re.findall(r"failure (\d+)!", page.text)]
    assert found == list(range(250, 0, -1))
    assert browser.get(f"/deliveries/{scene.running}/trail?before=x").status_code == 422


# Orders


def test_pausing_is_stored_audited_and_shown_as_unconfirmed(
    console: Console, browser: httpx2.Client, scene: Scene
) -> None:
    answer = post(browser, f"/deliveries/{scene.running}/pause")
    assert "The order to pause is stored" in seen(answer)
    assert "is not confirmed by" in seen(answer)
    assert (value(console, "ordered", scene.running), value(console, "order_confirmed_at", scene.running)) == (
        "pause",
        None,
    )
    assert audited(console) == [("home", "delivery.pause", str(scene.running))]
    with console.database.connection() as conn:
        assert scalar(conn, "select count(*) from job where kind = 'order' and subject = %s and outcome is null", (scene.running,)) == 1  # fmt: skip


def test_preparing_asks_for_it_once(console: Console, browser: httpx2.Client, scene: Scene) -> None:
    page = browser.get(f"/deliveries/{scene.edited}?lang=en").text
    assert "/prepare" in page
    assert "The preparation is asked for." in seen(post(browser, f"/deliveries/{scene.edited}/prepare"))
    assert f"/deliveries/{scene.edited}/prepare" not in browser.get(f"/deliveries/{scene.edited}").text
    assert audited(console) == [("home", "delivery.prepare", str(scene.edited))]


def test_sending_asks_with_the_count_first_and_sends_what_was_seen(
    console: Console, browser: httpx2.Client, scene: Scene
) -> None:
    with console.database.transaction() as conn:
        conn.execute(
            "update delivery set state = 45, targeted = 1000, excluded = 10, to_deliver = 12345, handed_over = 12345 where id = %s",
            (scene.edited,),
        )
    question = browser.get(f"/deliveries/{scene.edited}/send?lang=en")
    words = seen(question)
    assert "Send to 12,345 people?" in words
    assert "Mid 1 http://127.0.0.1:8101" in words
    assert "default" in words
    version = str(value(console, "version", scene.edited))
    again = post(browser, f"/deliveries/{scene.edited}/send", version=str(int(version) + 1))
    assert "has changed since you saw it" in seen(again)
    assert value(console, "ordered", scene.edited) is None
    sent = post(browser, f"/deliveries/{scene.edited}/send", version=version)
    assert "The order to send is stored" in seen(sent)
    assert value(console, "ordered", scene.edited) == "start"
    twice = post(browser, f"/deliveries/{scene.edited}/send", version=version)
    assert twice.status_code == 409
    assert audited(console) == [("home", "delivery.send", str(scene.edited))]


def test_what_is_not_counted_yet_is_asked_without_a_number(browser: httpx2.Client, scene: Scene) -> None:
    words = seen(browser.get(f"/deliveries/{scene.edited}/send?lang=en"))
    assert "Prepare and send?" in words
    assert "The target is not counted yet." in words


def test_stopping_asks_first_and_says_the_numbers(console: Console, browser: httpx2.Client, scene: Scene) -> None:
    words = seen(browser.get(f"/deliveries/{scene.running}/stop?lang=en"))
    assert "Stop “Newsletter of November” for good?" in words
    assert re.search(r"\d+ messages are not sent yet and will be cancelled", words)
    assert value(console, "ordered", scene.running) == "start"
    assert "The order to stop is stored." in seen(post(browser, f"/deliveries/{scene.running}/stop"))
    assert value(console, "ordered", scene.running) == "stop"


def test_an_order_that_makes_no_sense_is_refused_and_not_offered(
    console: Console, browser: httpx2.Client, scene: Scene
) -> None:
    page = browser.get(f"/deliveries/{scene.finished}").text
    assert not re.search(rf"/deliveries/{scene.finished}/(send|stop|pause|resume|prepare)", page)
    assert post(browser, f"/deliveries/{scene.finished}/pause").status_code == 409
    assert post(browser, f"/deliveries/{scene.finished}/prepare").status_code == 409
    assert "Nothing of it waits to be sent." in seen(browser.get(f"/deliveries/{scene.edited}/stop?lang=en"))
    assert browser.get(f"/deliveries/{scene.finished}/stop").url.path == f"/deliveries/{scene.finished}"
    assert post(browser, "/deliveries/7/pause").status_code == 404
    assert audited(console) == []


def test_an_order_without_the_sessions_form_is_refused(browser: httpx2.Client, console: Console, scene: Scene) -> None:
    path = f"/deliveries/{scene.running}/pause"
    assert browser.post(path, data={"csrf": "wrong"}).status_code == 403
    assert browser.post(path, data={"n": "1"}).status_code == 403
    assert value(console, "ordered", scene.running) == "start"


# Export


def test_the_export_holds_every_row_harmlessly_and_is_audited(
    console: Console, browser: httpx2.Client, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midsource.marketing.delivery_log.PAGE_ROWS", 300)
    with console.database.transaction() as conn:
        conn.execute("update broad_log set email = '=cmd|calc@x.example', reply = '-1+2' where id = 7")
    answer = post(browser, f"/deliveries/{scene.running}/log/export")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert f'filename="delivery-{scene.running}.csv"' in answer.headers["content-disposition"]
    table = list(csv.DictReader(io.StringIO(answer.text)))
    assert [int(row["id"]) for row in table] == list(range(1, 1_001))
    assert (table[6]["email"], table[6]["reply"]) == ("'=cmd|calc@x.example", "'-1+2")
    failed = post(browser, f"/deliveries/{scene.running}/log/export", state="2", reason="5")
    assert {(row["state"], row["reason"]) for row in csv.DictReader(io.StringIO(failed.text))} == {("failed", "mailbox full")}  # fmt: skip
    assert audited(console) == [("home", "delivery.export", str(scene.running))] * 2


# Nothing there, and the database away


def test_a_delivery_that_is_not_there(browser: httpx2.Client) -> None:
    for path in (*TABS, "/messages/1", "/send", "/stop"):
        answer = browser.get(f"/deliveries/7{path}?lang=fr")
        assert answer.status_code == 404
        assert "Il n’y a rien ici" in answer.text


def test_pages_without_the_database_answer_with_a_sentence(
    console: Console, browser: httpx2.Client, scene: Scene
) -> None:
    with console.database.transaction() as conn:
        for table in ("broad_log_total", "delivery_sample"):
            conn.execute(f"alter table {table} rename to away_{table}")
    for path in ("/deliveries", f"/deliveries/{scene.running}", f"/deliveries/{scene.running}/log?state=61"):
        answer = browser.get(path)
        assert answer.status_code == 503
        assert "midsource migrate" in answer.text
        assert "Traceback" not in answer.text
