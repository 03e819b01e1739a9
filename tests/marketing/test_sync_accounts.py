"""One external account that cannot be read beside one whose deliveries keep the run going for ever."""

from __future__ import annotations

import pytest

from midsource.engine.work import Context, Report
from midsource.marketing import accounts, handover, sync
from midsource.store.database import scalar
from midsource.testing.link import LinkedHalves
from midsource.testing.proxy import Answer, FaultProxy


def logs(context: Context) -> Report:
    return sync.pull(context, "logs")


@pytest.fixture(autouse=True)
def sends_round_the_clock(halves: LinkedHalves, monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivery that is under way for as long as anybody looks, in short slices."""
    monkeypatch.setattr(sync, "SLICE_SECONDS", 1.0)
    monkeypatch.setattr(sync, "LEAST_SECONDS", 0.5)
    monkeypatch.setattr(sync, "WAIT_SECONDS", 0.0)
    number = halves.prepared(10)
    halves.run(handover.hand_over, number)
    with halves.marketing.connection() as conn:
        conn.execute("update delivery set state = 55")


def test_an_account_that_cannot_be_read_is_named_while_another_keeps_the_run_going(halves: LinkedHalves) -> None:
    """A mid that sends round the clock never let the run end: nobody heard of the other, which was called in each slice."""
    with halves.marketing.transaction() as conn:
        url = f"http://127.0.0.1:{halves.port}"
        accounts.add(conn, halves.home, url=url, key="x." + "y" * 43, name="zzz_key", now=halves.clock.now())
        began = scalar(conn, "select clock_timestamp()")
    reports = [logs(halves.context(began_at=began)) for _ in range(3)]
    assert {report.more_after_seconds for report in reports} == {0.0}
    for report in reports:
        assert report.failing is not None
        assert report.failing.startswith("1 of 2 external accounts could not be read: zzz_key: ")
    assert len(halves.lines("GetMidBroadLogs of zzz_key")) == 1, "not called before its pause is over"
    with halves.marketing.transaction() as conn:
        accounts.add(conn, halves.home, url=url, key=halves.key, name="zzz_key", now=halves.clock.now())
        conn.execute("update failed_try set not_before = clock_timestamp()")
    assert logs(halves.context(began_at=began)).failing == ""
    with halves.marketing.connection() as conn:
        assert scalar(conn, "select count(*) from failed_try") == 0


def test_a_mid_that_asks_to_wait_is_not_called_by_the_slices_of_another(halves: LinkedHalves) -> None:
    with FaultProxy(halves.port, lambda _seen: Answer(429, (("Retry-After", "40"),))) as proxy:
        with halves.marketing.transaction() as conn:
            accounts.add(conn, halves.home, url=proxy.url, key=halves.key, name="zzz_busy", now=halves.clock.now())
            began = scalar(conn, "select clock_timestamp()")
        called = []
        for _ in range(3):
            report = logs(halves.context(began_at=began))
            assert (report.more_after_seconds, report.failing) == (0.0, None), "it has tries left"
            called.append(len(proxy.seen))
        assert called[0] == called[-1] > 0
