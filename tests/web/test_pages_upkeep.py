"""Findings, maintenance and cleanup in the console: what they show, what they do, and that both roles have theirs."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from datetime import timedelta

import httpx2
import pytest
from playwright.sync_api import Browser
from tests.web.console_axe import violations
from tests.web.console_looks import faults
from tests.web.console_scene import HOSTILE
from tests.web.console_served import Console
from tests.web.console_window import HEIGHTS, signed_in

from midsource.doctor import book
from midsource.doctor.look import Looked
from midsource.model.finding import Finding, Severity
from midsource.net.clock import SystemClock
from midsource.security import operators, sessions
from midsource.security.roles import SYSTEM, Role
from midsource.store.database import Database, scalar

LATE = Finding(
    "workflow.late", "reconcile", Severity.WARNING, "Its last success was 5 h ago.",
    "No worker lives or leads, all of them are busy, or the run hangs.",
    "See `midsource ps`; then `midsource workflow restart reconcile`.", ("F43",), healable=True,
)  # fmt: skip
FULL = Finding("disk.space", HOSTILE, Severity.CRITICAL, f"{HOSTILE} is full.", "It fills.", "Free space.", ("F126",))
PATHS = ("/findings", "/findings/1", "/maintenance", "/cleanup", "/cleanup/forecast")
LANGUAGE = {390: "pt", 768: "fr", 1280: "en"}


def _fill(database: Database) -> None:
    """Two findings, a worker, workflows, what maintenance and cleanup did, and who is told."""
    now = SystemClock().now()
    with database.transaction() as conn:
        conn.execute(
            "insert into process (name, kind, host, pid, executor, beat_at) "
            "values ('worker@here', 'worker', 'h', 1, 'x', now() + interval '1 hour')"
        )
        conn.execute(
            "insert into workflow (name, schedule, next_at) select n, 'every hour', now() + interval '20 minutes' "
            "from unnest(array['reconcile', 'cleanup', 'databaseMaintenance']) n"
        )
        looked = Looked(
            (LATE, FULL),
            frozenset({"workflow.late"}),
            {"workflow.late": 0.01, "mid.hello": 5},
            {"mid.hello": "no answer"},
        )
        book.record(conn, looked, now - timedelta(minutes=2))
        conn.execute(
            "insert into supervisor (name, channel, address, severity, created_by, failures, last_problem, failed_since) "
            "values ('ops', 'webhook', 'https://hooks.example/secret', 'error', 'anna', 1, %s, %s)",
            (f"{HOSTILE} refuses", now - timedelta(hours=2)),
        )
        conn.execute(
            "insert into maintenance_action (asked_by, act, relation, reason, statement, outcome, began_at, ended_at, bytes_before, "
            "bytes_after, error) values ('schedule', 'reindex', 'public.one_pkey', 'x', 'REINDEX', 'done', %(at)s, %(end)s, 210400000, "
            "98000000, ''), ('schedule', 'vacuum', 'public.two', 'x', 'VACUUM', 'failed', %(at)s, %(end)s, 1, null, %(why)s)",
            {
                "at": now - timedelta(hours=3),
                "end": now - timedelta(hours=3, seconds=-12),
                "why": f"{HOSTILE} timed out",
            },
        )
        conn.execute(
            "insert into cleanup_step (name, began_at, ended_at, rows, bytes, seconds, outcome, error) values "
            "('audit', %(at)s, %(at)s, 1234, 0, 2, 'finished', ''), ('workflow_runs', %(at)s, %(at)s, 7, 0, 60, 'failed', %(why)s)",
            {"at": now - timedelta(hours=9), "why": f"{HOSTILE} took too long"},
        )


@pytest.fixture(params=["marketing", "mid"])
def console(request: pytest.FixtureRequest, serve_console: Callable[..., Console]) -> Console:
    """Serve the console of either role."""
    return serve_console("here", request.param)


@pytest.fixture
def browser(console: Console) -> Iterator[httpx2.Client]:
    with console.browser() as client:
        client.get("/?lang=en")
        yield client


def seen(answer: httpx2.Response) -> str:
    assert HOSTILE not in answer.text
    text = re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", answer.text, flags=re.DOTALL)
    return " ".join(html.unescape(text).split())


def post(browser: httpx2.Client, path: str, **form: str) -> httpx2.Response:
    found = re.search(r'name="csrf" value="([^"]+)"', browser.get("/me").text)
    return browser.post(path, data={"csrf": found[1] if found else "", **form})


def audited(console: Console) -> list[tuple[str, str]]:
    with console.database.connection() as conn:
        return [(row[0], row[1]) for row in conn.execute("select verb, subject from audit order by id").fetchall()]


def test_with_nothing_to_show_each_page_says_so(console: Console, browser: httpx2.Client) -> None:
    assert "The doctor has not looked yet" in seen(browser.get("/findings"))
    assert "Nobody is told of findings" in seen(browser.get("/findings"))
    assert "Nothing was done yet" in seen(browser.get("/maintenance"))
    steps = seen(browser.get("/cleanup"))
    assert "never" in steps
    assert "Would go now" not in steps, "nothing is counted unasked"
    assert "findings of the doctor" not in seen(browser.get("/"))
    refused = post(browser, "/cleanup/run")
    assert refused.status_code == 409, "no worker"
    assert browser.get("/findings/7").status_code == 404
    assert browser.get("/cleanup/forecast?step=nothing").status_code == 404
    assert audited(console) == []


def test_findings_stand_worst_first_and_are_mended_and_muted(console: Console, browser: httpx2.Client) -> None:
    _fill(console.database)
    assert "2 findings of the doctor are open" in seen(browser.get("/"))
    words = seen(browser.get("/findings"))
    assert words.index("disk.space") < words.index("workflow.late reconcile")
    assert "Critical 1 Error 0 Warning 1".lower() in words.lower()
    assert "F43" in words
    assert "https://hooks.example error and worse" in words, "the path of a webhook may be a secret"
    assert re.search(r"Could not be told since 2 h ago: .* refuses", words)
    assert "no answer" in words
    with console.database.connection() as conn:
        late = scalar(conn, "select id from finding where check_name = 'workflow.late'")
        full = scalar(conn, "select id from finding where check_name = 'disk.space'")
    shown = seen(browser.get(f"/findings/{late}"))
    assert "Mending it would restart the workflow reconcile" in shown
    assert audited(console) == [], "looking mends nothing"
    assert "It is done." in seen(post(browser, f"/findings/{late}/heal"))
    assert "Not now: done 1 times within a day" in seen(browser.get(f"/findings/{late}"))
    assert post(browser, f"/findings/{late}/heal").status_code == 409
    assert "This is mended by hand" in seen(browser.get(f"/findings/{full}"))
    assert post(browser, f"/findings/{full}/heal").status_code == 409
    assert "Nobody is told of it meanwhile." in seen(post(browser, f"/findings/{full}/mute", hours="8"))
    assert "1 finding of the doctor is open" in seen(browser.get("/")), "what is muted needs nobody"
    assert "It is told again." in seen(post(browser, f"/findings/{full}/mute", hours="0"))
    assert post(browser, f"/findings/{full}/mute", hours="10000").status_code == 422
    assert post(browser, f"/findings/{full}/explode").status_code == 404
    assert [verb for verb, _ in audited(console)] == ["doctor.heal", "doctor.mute", "doctor.mute"]


def test_findings_are_read_in_the_readers_language_with_the_same_commands(
    console: Console, browser: httpx2.Client
) -> None:
    _fill(console.database)
    french, portuguese = (browser.get("/findings", params={"lang": language}) for language in ("fr", "pt"))
    for page in (french, portuguese):
        assert '<code lang="en">midsource workflow restart reconcile</code>' in page.text
        assert '<span class="said" lang="en">It fills.</span>' in page.text, (
            "what nobody translated stays as it was said"
        )
    words = seen(french)
    assert "Aucun worker n’est vivant ou ne mène, tous sont occupés, ou l’exécution est bloquée." in words
    assert "Vérifiez qu’un worker est vivant, puis redémarrez-le." in words, "what is done about that check in general"
    assert "Nenhum worker está vivo ou lidera, todos estão ocupados, ou a execução está bloqueada." in seen(portuguese)
    with console.database.connection() as conn:
        late = scalar(conn, "select id from finding where check_name = 'workflow.late'")
    assert "reiniciar o workflow reconcile" in seen(browser.get(f"/findings/{late}"))


def test_maintenance_says_what_is_wrong_and_due_and_what_was_done(console: Console, browser: httpx2.Client) -> None:
    _fill(console.database)
    words = seen(browser.get("/maintenance"))
    assert "reindex public.one_pkey schedule done 3 h ago 12 s 210 MB 98.0 MB" in words.replace("\u00a0", " ")
    assert "timed out" in words
    assert 'ANALYZE "public"."' in words
    assert "never analysed" in words
    assert "jamais analysée" in seen(browser.get("/maintenance?lang=fr"))
    browser.get("/?lang=en")
    assert "It is asked for" in seen(post(browser, "/maintenance/order", act="vacuum"))
    with console.database.connection() as conn:
        assert scalar(conn, "select count(*) > 0 from maintenance_action where outcome = 'asked' and asked_by = 'home'")
    assert audited(console) == [("maintenance.vacuum", "here")]
    assert post(browser, "/maintenance/order", act="full").status_code == 404
    with console.database.transaction() as conn:
        conn.execute("insert into option (name, value, modified_by) values ('Maintenance_Mode', 'advise', 'anna')")
    advised = seen(browser.get("/maintenance"))
    assert "Maintenance only advises here" in advised
    assert "Vacuum what is due now" not in advised
    assert post(browser, "/maintenance/order", act="vacuum").status_code == 409


def test_cleanup_counts_when_asked_and_runs_one_step(console: Console, browser: httpx2.Client) -> None:
    _fill(console.database)
    words = seen(browser.get("/cleanup"))
    assert "1 step failed" in words
    assert "The record of who did what audit 180 d finished 9 h ago 1,234 2 s" in words
    assert "took too long" in words
    counted = seen(browser.get("/cleanup/forecast?step=audit"))
    assert "Would go now" in counted
    assert counted.count("not counted") > 5, "one was asked for"
    assert "not counted" not in seen(browser.get("/cleanup/forecast"))
    assert audited(console) == []
    assert "A run is asked for." in seen(post(browser, "/cleanup/run", step="audit"))
    assert audited(console) == [("workflow.run-now", "cleanup")]
    with console.database.connection() as conn:
        assert scalar(conn, "select step from cleanup_ask") == "audit"


def test_each_step_of_cleanup_is_counted_and_run_from_its_row(console: Console, browser: httpx2.Client) -> None:
    _fill(console.database)
    plain = browser.get("/cleanup").text
    steps = re.findall(r'<tr id="(\w+)">', plain)
    assert len(steps) > 5
    assert re.findall(r'name="step" value="(\w+)"', plain) == steps
    assert re.findall(r'href="/cleanup/forecast\?step=(\w+)#\1"', plain) == steps
    counted = browser.get("/cleanup/forecast?step=audit").text
    assert re.findall(r'href="/cleanup/forecast\?step=(\w+)#\1"', counted) == [one for one in steps if one != "audit"]
    assert post(browser, "/cleanup/run", step="nothing").status_code == 404
    assert "A run is asked for." in seen(post(browser, "/cleanup/run", step=steps[0]))
    with console.database.connection() as conn:
        assert scalar(conn, "select step from cleanup_ask") == steps[0]
    assert audited(console) == [("workflow.run-now", "cleanup")]


def test_a_reader_sees_all_of_it_and_is_offered_nothing(console: Console) -> None:
    _fill(console.database)
    with console.database.transaction() as conn:
        number = operators.add(conn, SYSTEM, "reader", [Role.READER], "$argon2id$none")
        cookie = sessions.start(conn, number, SystemClock().now()).cookie
    with console.browser(token="") as client:
        client.cookies.set("midsource_console_here", cookie)
        for path in ("/findings", "/findings/1", "/maintenance", "/cleanup", "/workflows", "/concurrency"):
            answer = client.get(path)
            assert answer.status_code == 200, path
            assert re.findall(r'<form method="post" action="([^"]+)"', answer.text) == ["/logout"], path
        assert client.get("/cleanup/forecast").status_code == 403


@pytest.mark.parametrize("console", ["marketing"], indirect=True)
def test_each_page_fits_and_is_readable(console: Console, chromium: Browser) -> None:
    _fill(console.database)
    wrong: list[str] = []
    for width in HEIGHTS:
        page = signed_in(chromium, console, width)
        for path in PATHS:
            answer = page.goto(f"{console.address}{path}?lang={LANGUAGE[width]}")
            assert answer is not None
            assert answer.status == 200, path
            found = faults(page) + (violations(page) if width == 768 else [])
            wrong += [f"{width} {path}: {fault}" for fault in found]
        page.context.close()
    assert not wrong, "\n".join(wrong)
