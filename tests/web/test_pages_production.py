"""The pages of production over a real database and a real link: what they show, what they do, and for whom."""

from __future__ import annotations

import html
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest
from tests.web.console_scene import HOSTILE
from tests.web.console_served import Console, serving

from midsource.config import Config, InstanceConfig
from midsource.marketing import accounts, options
from midsource.model.ids import delivery_id
from midsource.net.clock import SystemClock
from midsource.policy.position import show
from midsource.security import operators, sessions
from midsource.security.roles import SYSTEM, Role
from midsource.store.database import Database, scalar
from midsource.testing.link import LinkedHalves, linked, templates
from midsource.web.console.catalogue import LANGUAGES

LOG, COUNTERS = "defaultMidSourcingLog", "defaultMidSourcingDlv"
ACCOUNT = accounts.DEFAULT_NAME
POINTER = f"NmsMidSourcing_LastBroadLog_{ACCOUNT}"
KEY = "abc." + "s" * 43


@dataclass(frozen=True, slots=True)
class Stage:
    """A console of a marketing instance that is linked to a mid."""

    console: Console
    halves: LinkedHalves

    @contextmanager
    def signed_in(self, role: Role) -> Iterator[httpx2.Client]:
        """Open the browser of an operator who has just this role."""
        with self.halves.marketing.transaction() as conn:
            number = operators.add(conn, SYSTEM, f"{role}.{role}", [role], "$argon2id$none")
            cookie = sessions.start(conn, number, SystemClock().now()).cookie
        with self.console.browser(token="") as client:
            client.cookies.set("midsource_console_marketing", cookie)
            yield client
        with self.halves.marketing.transaction() as conn:
            conn.execute("delete from operator")


@pytest.fixture(scope="module")
def copied(make_database: Callable[..., str]) -> tuple[str, str]:
    return templates(make_database)


@pytest.fixture
def stage(
    make_database: Callable[..., str], copied: tuple[str, str], tmp_path: Path, free_port: int
) -> Iterator[Stage]:
    instance = InstanceConfig("marketing", "marketing", port=free_port)
    with (
        linked(make_database, copied, tmp_path) as halves,
        serving(Config(tmp_path, instances=(instance,)), instance, halves.marketing) as address,
    ):
        yield Stage(Console(tmp_path, halves.marketing, address), halves)


@pytest.fixture
def browser(stage: Stage) -> Iterator[httpx2.Client]:
    with stage.console.browser() as client:
        client.get("/?lang=en")
        yield client


@pytest.fixture
def filled(stage: Stage) -> Stage:
    """Three workflows, one that failed, one late, one as planned; a worker that lives."""
    now = SystemClock().now()
    with stage.halves.marketing.transaction() as conn:
        conn.execute(
            "insert into process (name, kind, host, pid, executor) values ('worker@marketing', 'worker', 'h', 1, 'x')"
        )
        conn.execute(
            "insert into workflow (name, schedule, next_at, last_success_at, failed, consecutive_failures, last_error) values "
            "(%s, '*/10 * * * *', %s, %s, false, 0, ''), (%s, '7 * * * *', %s, %s, true, 3, %s), "
            "('nightly', '0 4 * * *', %s, %s, false, 0, '')",
            (
                *(COUNTERS, now, now - timedelta(hours=3)),
                *(LOG, now, now - timedelta(minutes=1), f"the mid {HOSTILE} does not answer\nsecond line"),
                *(now + timedelta(hours=3), now - timedelta(hours=9)),
            ),
        )
        conn.execute(
            "insert into workflow_run (workflow, asked_at, started_at, finished_at, outcome, rows_read, rows_written, window_from, "
            "window_to) select 'nightly', %(at)s, %(at)s, %(at)s::timestamptz + n * interval '1 s', 'finished', n, n, %(from)s, %(to)s "
            "from generate_series(1, 45) n",
            {"at": now, "from": show(now - timedelta(days=1)), "to": show(now)},
        )
        conn.execute(
            "insert into workflow_journal (workflow, level, line) select 'nightly', 'warning', 'line ' || n || %s "
            "from generate_series(1, 70) n",
            (f" {HOSTILE}",),
        )
    return stage


def seen(answer: httpx2.Response) -> str:
    text = re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", answer.text, flags=re.DOTALL)
    return " ".join(html.unescape(text).split())


def csrf(browser: httpx2.Client) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', browser.get(f"/accounts/{ACCOUNT}").text)
    return found[1] if found else ""


def post(browser: httpx2.Client, path: str, **form: str) -> httpx2.Response:
    return browser.post(path, data={"csrf": csrf(browser), **form})


def audited(stage: Stage) -> list[tuple[str, str]]:
    with stage.halves.marketing.connection() as conn:
        return [(row[0], row[1]) for row in conn.execute("select verb, subject from audit order by id").fetchall()]


def test_workflows_stand_worst_first_with_cause_and_lag(filled: Stage, browser: httpx2.Client) -> None:
    answer = browser.get("/workflows")
    assert HOSTILE not in answer.text
    words = seen(answer)
    assert words.index(LOG) < words.index(COUNTERS) < words.index("nightly")
    assert "Failed 1 Late 1 Paused 0 Circuit open 0 Stopped 0 As planned 1" in words
    assert "does not answer" in words
    assert "second line" not in words
    assert "No success since 3 h ago: two runs were due meanwhile." in words
    assert re.search(r"\d+ (s|min|h) behind", words)
    assert "The last 20 runs: 26 s to 45 s" in answer.text


def test_runs_and_journal_by_pages_hold_every_row_once(filled: Stage, browser: httpx2.Client) -> None:
    runs, lines, path = [], [], "/workflows/nightly"
    while path:
        answer = browser.get(path)
        assert HOSTILE not in answer.text
        runs += [int(found) for found in re.findall(r'<th scope="row">(\d+) ', answer.text)]
        following = re.search(r'rel="next" href="([^"]+)"', answer.text)
        path = following[1] if following else ""
    assert runs == sorted(set(runs), reverse=True)
    assert len(runs) == 45
    path = "/workflows/nightly"
    while path:
        answer = browser.get(path)
        lines += [int(found) for found in re.findall(r"line (\d+) &lt;script", answer.text)]
        following = re.search(r'href="([^"]+\?line=\d+)"', answer.text)
        path = following[1] if following else ""
    assert lines == list(range(70, 0, -1))


def test_orders_do_what_the_command_line_does_and_are_audited(filled: Stage, browser: httpx2.Client) -> None:
    path = "/workflows/nightly"
    assert "It is paused" in seen(post(browser, f"{path}/pause"))
    assert "paused" in seen(browser.get("/workflows"))
    assert post(browser, f"{path}/run-now").status_code == 409, "a paused one is not run"
    assert "back on its schedule" in seen(post(browser, f"{path}/start"))
    assert "A run is asked for" in seen(post(browser, f"{path}/run-now"))
    asked = seen(browser.get(f"{path}/stop"))
    assert re.search(r"Run \d+ is not finished: 0 rows read, 0 written so far", asked)
    assert "It is stopped" in seen(post(browser, f"{path}/stop"))
    assert "It is restarted" in seen(post(browser, f"{path}/restart"))
    assert audited(filled) == [
        (f"workflow.{verb}", "nightly") for verb in ("pause", "start", "run-now", "stop", "restart")
    ]
    with filled.halves.marketing.connection() as conn:
        by = scalar(conn, "select asked_by from workflow_run where workflow = 'nightly' and finished_at is null")
    assert by == "home"


def test_an_order_nobody_would_carry_out_is_refused(filled: Stage, browser: httpx2.Client) -> None:
    with filled.halves.marketing.transaction() as conn:
        conn.execute("delete from process")
    refused = post(browser, "/workflows/nightly/run-now")
    assert refused.status_code == 409
    assert "no worker of marketing is alive" in refused.text
    assert "No worker is alive" in seen(browser.get("/workflows"))
    assert post(browser, "/workflows/nothing/pause").status_code == 404
    assert post(browser, "/workflows/nightly/explode").status_code == 404
    assert browser.get("/workflows/nightly/run-now").url.path == "/workflows/nightly", "a reload leads back"
    assert audited(filled) == []


def test_an_option_is_set_with_the_checks_of_the_command_line(stage: Stage, browser: httpx2.Client) -> None:
    path = "/options/NmsEmail_RetryCount"
    wrong = post(browser, path, value="a lot", was="5")
    assert wrong.status_code == 422
    assert 'value="a lot"' in wrong.text
    assert "is a number of retries from 0 to 100" in seen(wrong)
    assert "It is set." in seen(post(browser, path, value="7", was="5"))
    assert re.search(r"NmsEmail_RetryCount .*? 7 retries set 5 retries home ·", seen(browser.get("/options")))
    meanwhile = post(browser, path, value="9", was="5")
    assert meanwhile.status_code == 422
    assert "was set to '7' by home meanwhile" in seen(meanwhile)
    assert re.search(r"home 5 → 7", seen(browser.get(path)))
    assert "It has its default again." in seen(post(browser, f"{path}/revert"))
    assert audited(stage) == [("option.set", "NmsEmail_RetryCount"), ("option.revert", "NmsEmail_RetryCount")]
    assert browser.get("/options/NmsNothing").status_code == 404


def test_a_pointer_moved_forward_asks_with_numbers_first(stage: Stage, browser: httpx2.Client) -> None:
    now = SystemClock().now()
    number = delivery_id(now, 1)
    with stage.halves.marketing.transaction() as conn:
        options.set_value(conn, POINTER, show(now - timedelta(days=10)), by="test", now=now)
        conn.execute(
            "insert into brand (name, from_address, sender_domains, unsubscribe_url) values ('b', 'a@b.example', '{}', '')"
        )
        conn.execute(
            "insert into delivery (id, label, state, brand, account, subject, html, text, from_name, from_address, validity_seconds, "
            "retry_count, retry_period_seconds, uncertain_policy, handed_over, created_at) values (%s, 'x', 55, 'b', %s, '', '', '', "
            "'', '', 60, 0, 60, 'hold', 1234, %s)",
            (number, ACCOUNT, now - timedelta(days=5)),
        )
        conn.execute("insert into broad_log_total values (%s, 'a.example', 6, 0, 1234)", (number,))
    target = show(now - timedelta(days=1))
    asked = post(browser, f"/options/{POINTER}", value=target)
    assert "Days skipped 9.0 Deliveries still open 1 Log rows still open 1,234" in seen(asked)
    with stage.halves.marketing.connection() as conn:
        assert options.get_value(conn, POINTER) != target
    assert "It is set." in seen(post(browser, f"/options/{POINTER}", value=target, confirmed=target))
    with stage.halves.marketing.connection() as conn:
        assert options.get_value(conn, POINTER) == target
    assert post(browser, f"/options/{POINTER}", value="yesterday").status_code == 422


def test_the_link_is_tried_now_and_each_step_says_what_it_found(stage: Stage, browser: httpx2.Client) -> None:
    words = seen(post(browser, f"/accounts/{ACCOUNT}/test"))
    assert re.search(r"The host has an address fine [\d.]+ m?s 127.0.0.1", words)
    assert "It knows the key fine" in words
    assert "It sends warning" in words
    assert "1 thing is wrong." in words
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    changed = post(browser, f"/accounts/{ACCOUNT}/link", url=f"http://127.0.0.1:{port}", key=KEY)
    assert "Address and key are kept." in seen(changed)
    words = seen(post(browser, f"/accounts/{ACCOUNT}/test"))
    assert re.search(r"Connection failed .*? nobody listens at http://127.0.0.1", words)
    assert "A mid answers not tried" in words
    assert [verb for verb, _ in audited(stage)] == ["account.test", "account.link", "account.test"]


def test_an_account_is_added_renamed_and_switched_off(stage: Stage, browser: httpx2.Client) -> None:
    wrong = post(browser, "/add-account", name="1x", url="http://127.0.0.1:1", key=KEY, label=HOSTILE)
    assert wrong.status_code == 422
    assert "cannot be an internal name" in wrong.text
    assert KEY not in wrong.text
    assert HOSTILE not in wrong.text
    again = post(browser, "/add-account", name=ACCOUNT, url="http://127.0.0.1:1", key=KEY)
    assert "there is already an account" in again.text
    added = post(browser, "/add-account", name="second", url="http://127.0.0.1:1", key=KEY, label=HOSTILE)
    assert "The account is kept." in seen(added)
    assert KEY not in added.text
    assert HOSTILE not in added.text
    assert post(browser, "/accounts/second/rename", label=" ").status_code == 422
    assert "Second mid" in seen(post(browser, "/accounts/second/rename", label="Second mid"))
    assert post(browser, "/accounts/second/link", url="ftp://x", key=KEY).status_code == 422
    asked = seen(browser.get("/accounts/second/off"))
    assert "Nothing more is handed over" in asked
    assert "0 deliveries" not in asked
    assert "switched off" in seen(post(browser, "/accounts/second/off"))
    assert "It is switched on." in seen(post(browser, "/accounts/second/on"))
    done = [verb for verb, subject in audited(stage) if subject == "second"]
    assert done == ["account.add", "account.rename", "account.off", "account.on"]
    assert browser.get("/accounts/nobody").status_code == 404


@pytest.mark.parametrize("role", [Role.READER, Role.MANAGER, Role.SUPERVISOR])
def test_who_may_not_is_shown_no_button_and_refused_all_the_same(filled: Stage, role: Role) -> None:
    orders = {
        "/workflows/nightly/pause": role is Role.SUPERVISOR, "/restart-workflows": role is Role.SUPERVISOR,
        "/workflows/nightly/kill": role is Role.SUPERVISOR, "/processes/restart": role is Role.SUPERVISOR,
        "/options/NmsEmail_RetryCount": False, "/accounts/second/off": False, "/add-account": False,
    }  # fmt: skip
    with filled.signed_in(role) as browser:
        page = browser.get("/workflows/nightly?lang=en")
        assert page.status_code == 200
        assert ("Run now" in page.text) is (role is Role.SUPERVISOR)
        assert "Set</button>" not in browser.get("/options/NmsEmail_RetryCount").text
        assert "Rename</button>" not in browser.get(f"/accounts/{ACCOUNT}").text
        assert browser.get("/add-account").status_code == 403
        found = re.search(r'name="csrf" value="([^"]+)"', browser.get("/workflows/nightly").text)
        for path, admitted in orders.items():
            answer = browser.post(path, data={"csrf": found[1] if found else "x", "name": "web@nobody"})
            assert (answer.status_code != 403) is admitted, (path, answer.status_code)


def test_without_a_supervisor_the_command_is_said(filled: Stage, browser: httpx2.Client) -> None:
    page = browser.get("/processes")
    assert "The supervisor of this home cannot be asked" in seen(page)
    assert "midsource restart worker@marketing" in seen(page)
    assert post(browser, "/processes/restart", name="worker@marketing").status_code == 503
    assert [verb for verb, _ in audited(filled)] == [], "what was not done is not audited"


PATHS = ("/workflows", f"/workflows/{LOG}", "/options", f"/options/{POINTER}", "/accounts", f"/accounts/{ACCOUNT}",
         "/accounts/x/off", "/processes")  # fmt: skip


def test_pages_with_nothing_and_with_the_mid_away(stage: Stage, browser: httpx2.Client) -> None:
    with stage.halves.marketing.transaction() as conn:
        conn.execute("update external_account set url = 'http://127.0.0.1:1', last_problem = 'it is away'")
    for language in LANGUAGES:
        for path in (
            f"/options/{POINTER}",
            "/options",
            "/accounts",
            f"/accounts/{ACCOUNT}",
            "/workflows",
            "/processes",
        ):
            answer = browser.get(path, params={"lang": language})
            assert answer.status_code == 200, path
            assert f'<html lang="{language}"' in answer.text
            assert "None" not in seen(answer)


def test_pages_with_the_database_away(tmp_path: Path, free_port: int) -> None:
    instance = InstanceConfig("marketing", "marketing", port=free_port)
    away = "postgresql://nobody@127.0.0.1:1/nothing"
    with (
        Database("marketing", away, application="tests", wait_seconds=1) as database,
        serving(Config(tmp_path, instances=(instance,)), instance, database) as address,
        Console(tmp_path, database, address).browser() as browser,
    ):
        for path in PATHS:
            answer = browser.get(path)
            assert answer.status_code == 503, path
            assert "the database of marketing cannot be reached" in answer.text
