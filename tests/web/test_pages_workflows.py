"""The engine room's pages: journals in their place, restarts that say first what they do, schedules, concurrency."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import httpx2
import pytest
from playwright.sync_api import Browser, expect
from tests.web.console_served import Console
from tests.web.console_window import signed_in

from midsource.model.errors import UserError
from midsource.net.clock import SystemClock
from midsource.store.database import scalar
from midsource.web.console.pages.concurrency import asked, is_called
from midsource.web.console.pages.workflow_schedule import FIELDS, sketch

LOG, COUNTERS, HELD = "defaultMidSourcingLog", "defaultMidSourcingDlv", "deliverabilityUpdate"
DAY = "2026-05-04"
NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


@pytest.fixture
def console(console: Console) -> Console:
    """Three workflows: one that failed and waits, one as planned, one that anna paused; a day of runs; a worker."""
    now = SystemClock().now()
    with console.database.transaction() as conn:
        conn.execute(
            "insert into process (name, kind, host, pid, executor, beat_at) "
            "values ('worker@marketing', 'worker', 'h', 1, 'x', now() + interval '1 hour')"
        )
        conn.execute(
            "insert into workflow (name, schedule, state, failed, consecutive_failures, last_error, error_class, not_before, next_at, "
            "last_success_at, held_at, held_by) values "
            "(%(log)s, '7 * * * *', 11, true, 4, 'the mid does not answer', 'RemoteUnavailable', %(later)s, %(later)s, %(now)s, null, ''), "
            "(%(counters)s, '*/10 * * * *', 11, false, 0, '', '', null, %(later)s, %(now)s, null, ''), "
            "(%(held)s, 'daily at 03:10', 13, true, 2, 'x', '', null, null, null, %(now)s, 'anna')",
            {"log": LOG, "counters": COUNTERS, "held": HELD, "now": now, "later": now + timedelta(minutes=20)},
        )
        conn.execute(
            "insert into workflow_run (workflow, asked_at, started_at, finished_at, outcome, error, error_class) select w, a, a, "
            "a + interval '400 s', 'failed', 'the mid does not answer', 'RemoteUnavailable' from unnest(array[%s, %s]) w, "
            "generate_series(%s::timestamptz, %s::timestamptz, '1 hour') a",
            (LOG, COUNTERS, f"{DAY} 00:02Z", f"{DAY} 03:02Z"),
        )
        conn.execute(
            "insert into workflow_journal (workflow, level, line) select %s, 'info', 'line ' || n || '.' "
            "from generate_series(1, 20) n",
            (LOG,),
        )
    return console


@pytest.fixture
def browser(console: Console) -> Iterator[httpx2.Client]:
    with console.browser() as client:
        client.get("/?lang=en")
        yield client


def seen(answer: httpx2.Response) -> str:
    text = re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", answer.text, flags=re.DOTALL)
    return " ".join(html.unescape(text).split())


def post(browser: httpx2.Client, path: str, **form: str) -> httpx2.Response:
    found = re.search(r'name="csrf" value="([^"]+)"', browser.get("/me").text)
    return browser.post(path, data={"csrf": found[1] if found else "", **form})


def audited(console: Console) -> list[tuple[str, str]]:
    with console.database.connection() as conn:
        return [(row[0], row[1]) for row in conn.execute("select verb, subject from audit order by id").fetchall()]


def test_the_list_says_what_an_open_circuit_waits_for_and_opens_a_journal_in_its_place(browser: httpx2.Client) -> None:
    words = seen(browser.get("/workflows"))
    assert "Failed 2 Late 0 Paused 0 Circuit open 1 Stopped 0 As planned 1" in words
    assert re.search(r"Circuit open: it waits for the other side to answer; the next try comes in \d+ min", words)
    assert "line 20." not in words
    opened = seen(browser.get(f"/workflows?journal={LOG}"))
    assert opened.index("line 20.") < opened.index("line 9.") < opened.index(COUNTERS)
    assert "line 8." not in opened, "its own page has the others"
    assert "Run now" in opened
    assert browser.get("/workflows?journal=nothing").status_code == 200


def test_a_restart_says_what_it_does_and_what_it_leaves_then_does_exactly_that(
    console: Console, browser: httpx2.Client
) -> None:
    asked_first = seen(browser.get("/restart-workflows"))
    assert "1 workflow is restarted" in asked_first
    assert "the last 4 runs failed alike (RemoteUnavailable: the mid does not answer)" in asked_first
    assert re.search(rf"{HELD} · paused by anna since .*; it had failed before", asked_first)
    assert re.search(rf"{COUNTERS} · not failed", asked_first)
    french = seen(browser.get("/restart-workflows?lang=fr"))
    assert (
        "les 4 dernières exécutions ont échoué de la même façon (RemoteUnavailable : the mid does not answer)" in french
    )
    assert re.search(rf"{HELD} · mis en pause par anna depuis .* il avait échoué auparavant", french)
    both = browser.get("/restart-workflows?scheduled=yes&lang=en").text
    assert f'name="names" value="{COUNTERS},{LOG}"' in both
    assert audited(console) == [], "asking changes nothing"
    with console.database.transaction() as conn:
        conn.execute("update workflow set state = 13, held_by = 'bob' where name = %s", (COUNTERS,))
    told = seen(post(browser, "/restart-workflows", names=f"{COUNTERS},{LOG}", scheduled="yes"))
    assert "What had failed is restarted." in told
    assert audited(console) == [("workflow.restart", LOG)], "what was paused meanwhile is left"
    assert "Nothing was to be restarted any more." in seen(post(browser, "/restart-workflows", names=LOG))
    with console.database.transaction() as conn:
        conn.execute("delete from process")
    assert post(browser, "/restart-workflows", names=LOG, scheduled="yes").status_code == 409


def test_a_kill_asks_first_and_is_audited(console: Console, browser: httpx2.Client) -> None:
    path = f"/workflows/{COUNTERS}"
    assert "Kill" not in seen(browser.get(path)), "nothing runs"
    assert post(browser, f"{path}/run-now").status_code == 200
    assert "Kill" in seen(browser.get(path))
    assert re.search(r"Run \d+ is not finished", seen(browser.get(f"{path}/kill")))
    assert "It is killed" in seen(post(browser, f"{path}/kill"))
    assert audited(console) == [("workflow.run-now", COUNTERS), ("workflow.kill", COUNTERS)]
    with console.database.connection() as conn:
        ended = scalar(
            conn, "select outcome from workflow_run where workflow = %s order by id desc limit 1", (COUNTERS,)
        )
    assert ended == "aborted"


def test_a_schedule_is_shown_before_it_is_kept(console: Console, browser: httpx2.Client) -> None:
    path = f"/workflows/{COUNTERS}/schedule"
    form = {"text": "daily at 4:00", "zone": "Europe/Paris", "hours": "", "valid_from": "", "valid_to": "", "runs": "3"}
    first = post(browser, path, do="save", **form)
    assert "Nothing is saved yet" in seen(first)
    assert len(re.findall(r"<li><time", first.text)) == 3, "three runs are left"
    assert "04:00 Europe/Paris" in seen(first)
    token = re.search(r'name="seen" value="([^"]*)"', first.text)
    assert token
    other = post(browser, path, do="save", **{**form, "text": "daily at 05:00"}, seen=html.unescape(token[1]))
    assert "Nothing is saved yet" in seen(other), "another one than was shown"
    refused = post(browser, path, do="save", **{**form, "text": "every 7 minutes"})
    assert refused.status_code == 422
    assert "every 7 minutes does not come out even" in seen(refused)
    assert 'value="every 7 minutes"' in refused.text
    assert audited(console) == []
    kept = seen(post(browser, path, do="save", **form, seen=html.unescape(token[1])))
    assert "The schedule is kept." in kept
    assert "daily at 04:00 Europe/Paris" in kept
    assert audited(console) == [("workflow.schedule", COUNTERS)]
    assert 'value="every 10 minutes"' in browser.get(f"{path}?default=yes").text


def test_without_pressing_anything_the_next_runs_follow_what_is_typed(console: Console, chromium: Browser) -> None:
    page = signed_in(chromium, console, 1280)
    page.goto(f"{console.address}/workflows/{COUNTERS}/schedule?lang=en")
    page.get_by_label("When it runs").fill("weekly on monday at 05:00")
    page.get_by_label("Time zone").focus()
    expect(page.locator("#ticks li")).to_have_count(5)
    expect(page.locator("#ticks li").first).to_contain_text("05:00:00")
    page.get_by_label("When it runs").fill("whenever")
    page.get_by_label("Time zone").focus()
    expect(page.locator("#ticks")).to_contain_text("is not a schedule")
    page.goto(f"{console.address}/workflows?lang=en")
    page.locator(f"#journal-{LOG}").press("Enter")
    expect(page.get_by_text("line 20.")).to_be_visible()
    expect(page.locator(f"#journal-{LOG}")).to_be_focused()
    assert page.url.endswith(f"?journal={LOG}")
    page.context.close()


def test_how_many_ran_at_once_is_a_table_of_its_numbers(browser: httpx2.Client) -> None:
    answer = browser.get(f"/concurrency?day={DAY}")
    assert "At most 2 at once, at 00:00:" in seen(answer)
    rows = re.findall(r'<tr><th scope="row">(\d\d)</th>(.*?)</tr>', answer.text)
    assert [hour for hour, _ in rows] == [f"{hour:02}" for hour in range(24)]
    assert [re.findall(r"<td[^>]*>(.*?)</td>", cells)[:3] for _, cells in rows[:4]] == [["2", "2", "·"]] * 4
    assert "Never more than 1" in seen(browser.get(f"/concurrency?day={DAY}&name=counters"))
    assert "Nothing ran on this day" in seen(browser.get(f"/concurrency?day={DAY}&least=401"))
    assert "called like that" in seen(browser.get(f"/concurrency?day={DAY}&name=<nobody>"))
    assert browser.get("/concurrency?day=yesterday").status_code == 422
    assert browser.get("/concurrency?day=9999-12-31").status_code == 422


def test_the_map_is_of_a_day_of_a_zone_that_it_names(console: Console, browser: httpx2.Client) -> None:
    assert "On the clock of UTC:" in seen(browser.get(f"/concurrency?day={DAY}"))
    paris = browser.get(f"/concurrency?day={DAY}&zone=Europe/Paris")
    assert "On the clock of Europe/Paris:" in seen(paris)
    assert "At most 2 at once, at 02:00:" in seen(paris)
    assert "zone=Europe%2FParis" in paris.text, "the days beside it are of the same zone"
    twice = browser.get("/concurrency?day=2026-10-25&zone=Europe/Paris").text
    assert re.findall(r'<th scope="row">02<small>(.*?)</small>', twice) == ["+02:00", "+01:00"]
    for wrong in ("Mars/Base", "Europe", "../UTC", "%00"):
        refused = browser.get(f"/concurrency?zone={wrong}")
        assert (refused.status_code, "is not a time zone" in seen(refused)) == (422, True), wrong
    assert browser.get("/concurrency?day=2011-12-30&zone=Pacific/Apia").status_code == 200
    with console.database.transaction() as conn:
        conn.execute(
            "insert into option (name, value, modified_by) values ('Maintenance_Zone', 'America/New_York', 'anna')"
        )
    assert "On the clock of America/New_York:" in seen(browser.get(f"/concurrency?day={DAY}"))
    with console.database.transaction() as conn:
        conn.execute("update option set value = 'Nowhere' where name = 'Maintenance_Zone'")
    assert "On the clock of UTC:" in seen(browser.get(f"/concurrency?day={DAY}"))


def test_what_the_map_is_asked_for() -> None:
    utc, late = ZoneInfo("UTC"), datetime(2026, 5, 4, 23, 30, tzinfo=UTC)
    assert asked({}, NOW, utc).day == NOW.date()
    assert asked({"zone": "Europe/Paris"}, late, utc).day == date(2026, 5, 5), "today is that of the zone"
    assert asked({"day": "2026-01-02", "least": "30", "name": " log "}, NOW, utc).day == date(2026, 1, 2)
    for wrong in ({"day": "2026-02-30"}, {"day": "20260202"}, {"least": "-1"}, {"least": "x"}, {"zone": "x"}):
        with pytest.raises(UserError):
            asked(wrong, NOW, utc)
    assert is_called(LOG, "JOURNAUX")
    assert is_called(LOG, "sourcinglog")
    assert not is_called(LOG, "cleanup")


def test_a_sketch_of_a_schedule_says_its_runs_or_what_is_wrong() -> None:
    empty = dict.fromkeys(FIELDS, "")
    drawn = sketch({**empty, "text": "every hour", "hours": "22:00-02:00"}, NOW)
    assert drawn.proposal is not None
    assert [tick.hour for tick in drawn.proposal.ticks] == [22, 23, 0, 1, 22]
    for wrong in ({"text": ""}, {"text": "every hour", "runs": "many"}, {"text": "every hour", "zone": "Mars"}):
        assert sketch({**empty, **wrong}, NOW).problem
