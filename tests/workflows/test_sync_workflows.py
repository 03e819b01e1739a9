"""The two technical workflows, and the failure this product exists for: a pointer that stands in 2020."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from midsource.engine.work import Report
from midsource.marketing import accounts, handover, options
from midsource.model.errors import MidsourceError
from midsource.model.ids import delivery_id
from midsource.model.schedule import plan
from midsource.policy.position import parse
from midsource.store.database import scalar
from midsource.testing.link import LinkedHalves
from midsource.testing.proxy import Answer, Fault, FaultProxy, Pass, Seen
from midsource.workflows import delivery_counters, delivery_logs

LOGS = f"NmsMidSourcing_LastBroadLog_{accounts.DEFAULT_NAME}"
DELIVERIES = f"NmsMidSourcing_LastDelivery_{accounts.DEFAULT_NAME}"
PULLER = Path(__file__).parent / "pull_process.py"
BATCHES = 3000
ROWS = 300_000
OLD_DELIVERIES = 20


@pytest.mark.parametrize(
    ("module", "name", "minutes"),
    [(delivery_counters, "defaultMidSourcingDlv", 10), (delivery_logs, "defaultMidSourcingLog", 60)],
)
def test_they_have_the_names_the_field_knows(module: Any, name: str, minutes: int) -> None:
    assert name == module.NAME
    assert module.ROLES == ("marketing",)
    first, second = plan(module.SCHEDULE).next_ticks(datetime(2026, 1, 1, tzinfo=UTC), 2)
    assert second - first == timedelta(minutes=minutes)
    assert module.__doc__.count("*") >= 8


def test_there_is_nothing_to_do_without_accounts(halves: LinkedHalves) -> None:
    with halves.marketing.transaction() as conn:
        accounts.set_active(conn, accounts.DEFAULT_NAME, active=False)
    assert delivery_logs.run_once(halves.context()) == Report()
    assert delivery_counters.run_once(halves.context()) == Report()


def test_settings_name_the_accounts_to_read(halves: LinkedHalves) -> None:
    report = delivery_logs.run_once(halves.context(), delivery_logs.Settings(accounts=("another",)))
    assert report == Report()


def years_of_history(halves: LinkedHalves) -> None:
    """Three thousand feed batches over five years with 300 000 outcomes, and the log rows they belong to, by SQL."""
    months = [datetime(2021 + n // 4, 1 + 3 * (n % 4), 1, tzinfo=UTC) for n in range(OLD_DELIVERIES)]
    ids = [delivery_id(month, 1) for month in months]
    each = ROWS // OLD_DELIVERIES
    with halves.marketing.transaction() as conn:
        for number, month in zip(ids, months, strict=True):
            conn.execute("select ensure_month('broad_log', %s)", (month.year * 100 + month.month,))
            conn.execute(
                "insert into delivery (id, label, state, brand, account, subject, html, text, from_name, from_address, "
                "validity_seconds, retry_count, retry_period_seconds, uncertain_policy, handed_over, created_at) select %s, "
                "'old', 95, brand, account, '', '', '', '', from_address, 3600, 1, 60, 'hold', %s, %s from delivery limit 1",
                (number, each, month),
            )
            conn.execute(
                "insert into broad_log (delivery_id, id, recipient_id, email, domain, state, event_at) "
                "select %s, n, n, 'p' || n || '@old.example', 'old.example', 6, %s from generate_series(1, %s) n",
                (number, month, each),
            )
        conn.execute(
            "insert into broad_log_total select delivery_id, domain, state, reason, count(*) from broad_log "
            "where domain = 'old.example' group by 1, 2, 3, 4"
        )
    with halves.mid.transaction(statement_seconds=300) as conn:
        conn.execute(
            "with made as (insert into feed_batch (account_id, day, rows, deliveries, folded, seq, sequenced_at) "
            "select %(account)s, current_date, %(per)s, array[(%(ids)s::bigint[])[1 + n / %(batches)s]], true, nextval('feed_seq'), "
            "'2021-01-01Z'::timestamptz + n * (interval '5 years' / %(of)s) from generate_series(0, %(of)s - 1) n "
            "returning id, seq, deliveries[1] as delivery, sequenced_at) "
            "insert into outcome (account_id, day, batch_id, row, delivery_id, id, old_state, new_state, attempts, revision, "
            "event_at, reply, message_id) select %(account)s, current_date, made.id, r, made.delivery, "
            "1 + ((made.seq - min_seq.low) %% %(batches)s) * %(per)s + r - 1, 6, 1, 1, 2, made.sequenced_at, "
            "'250 2.0.0 Ok: queued as ' || md5(made.id || '.' || r), md5(r || '.' || made.id) || '@old.example' "
            "from made, generate_series(1, %(per)s) r, (select min(seq) as low from made) min_seq",
            {
                "account": halves.mid_account,
                "per": ROWS // BATCHES,
                "of": BATCHES,
                "ids": ids,
                "batches": BATCHES // OLD_DELIVERIES,
            },
        )


def a_slow_mid(seen: Seen) -> Fault:
    """Time out above 2 500 rows a page, as a bloated database behind a proxy does."""
    limit = int(parse_qs(urlsplit(seen.path).query).get("limit", ["0"])[0])
    return Answer(504) if limit > 2500 else Pass()


def option(halves: LinkedHalves, name: str = LOGS) -> datetime:
    with halves.marketing.connection() as conn:
        return parse(options.get_value(conn, name))


def done(halves: LinkedHalves, delivery: int) -> int:
    with halves.marketing.connection() as conn:
        return int(scalar(conn, "select count(*) from broad_log where delivery_id = %s and state = 1", (delivery,)))


@pytest.mark.slow
def test_a_pointer_of_2020_ends_at_now_by_itself(halves: LinkedHalves, tmp_path: Path) -> None:
    """Years of rows, pages that time out, a worker killed on the way; today's delivery is current meanwhile."""
    today = halves.prepared(2000, part_rows=1000)
    halves.run(handover.hand_over, today)
    years_of_history(halves)
    halves.sent(today, range(1, 1001))
    with halves.marketing.connection() as conn:
        conn.execute("update option set value = '2020-01-01T00:00:00+00:00' where name = %s", (LOGS,))
    with FaultProxy(halves.port, a_slow_mid) as proxy:
        halves.link_to(proxy.url)
        killed = _pull_and_kill(halves, tmp_path, beats=30)
        assert killed == -9
        at_kill = option(halves)
        assert datetime(2020, 1, 1, tzinfo=UTC) < at_kill < datetime(2025, 6, 1, tzinfo=UTC)
        assert done(halves, today) == 1000  # the recent lane came first

        halves.sent(today, range(1001, 2001))
        seen_at, positions = _until_done(halves, today)
        assert seen_at == 1  # within the first slice
        assert positions == sorted(positions)
        assert positions[0] >= at_kill
    assert option(halves) > halves.clock.now() - timedelta(minutes=1)
    with halves.marketing.connection() as conn:
        assert scalar(conn, "select count(*) from broad_log where state <> 1") == 0
        assert scalar(conn, "select count(*) from pointer where lane = 'recent' and stream = 'logs'") == 0
        assert scalar(conn, "select count(*) from link_event where http_code = 504") >= 1
    assert halves.totals_agree(today)
    assert halves.totals_agree(delivery_id(datetime(2021, 1, 1, tzinfo=UTC), 1))
    assert halves.lines("batches to go, about")


def _pull_and_kill(halves: LinkedHalves, home: Path, beats: int) -> int:
    """Run a worker process and kill it with signal 9 after so many pages."""
    with subprocess.Popen(
        [sys.executable, str(PULLER), halves.marketing.dsn, str(home)], stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        for line in worker.stdout:
            beats -= line == "beat\n"
            if beats == 0:
                worker.kill()
                break
        return worker.wait(30)


def _until_done(halves: LinkedHalves, today: int) -> tuple[int, list[datetime]]:
    """Run slices to the end; return the slice that had today's results, and the option after each slice."""
    positions: list[datetime] = []
    seen_at = 0
    for number in range(1, 50):
        report = delivery_logs.run_once(halves.context())
        positions.append(option(halves))
        if not seen_at and done(halves, today) == 2000:
            seen_at = number
        if report.more_after_seconds is None:
            return seen_at, positions
    raise AssertionError(f"not done: {halves.journal[-5:]}")


def test_counters_with_a_pointer_of_2020_show_today_first(halves: LinkedHalves) -> None:
    today = halves.prepared(200, part_rows=100)
    halves.run(handover.hand_over, today)
    years_of_history(halves)
    halves.sent(today, range(1, 101))
    with halves.marketing.connection() as conn:
        conn.execute("update option set value = '2020-01-01T00:00:00Z' where name = %s", (DELIVERIES,))
    halves.run(delivery_counters.run_once)
    with halves.marketing.connection() as conn:
        assert scalar(conn, "select figures from delivery where id = %s", (today,)) == {"sent": 100, "pending": 100}
    assert option(halves, DELIVERIES) > halves.clock.now() - timedelta(minutes=1)


def test_a_bug_met_with_one_mid_is_named_without_the_row_that_met_it(halves: LinkedHalves) -> None:
    """What a database refuses it quotes, from its second line on: the address was in the journal and on the account."""
    number = halves.prepared(10)
    halves.run(handover.hand_over, number)
    halves.sent(number, range(1, 11))
    with halves.marketing.connection() as conn:
        conn.execute("alter table broad_log add constraint refused check (state <> 1)")
    with pytest.raises(MidsourceError, match="CheckViolation") as caught:
        delivery_logs.run_once(halves.context())
    with halves.marketing.connection() as conn:
        kept = scalar(conn, "select last_problem from external_account")
    said = [str(caught.value), kept, *(line for _, line in halves.journal)]
    assert any("report it with the journal" in line for line in said)
    assert not [line for line in said if "person1@" in line]
