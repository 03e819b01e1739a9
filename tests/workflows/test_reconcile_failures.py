"""Deliveries and mids that fail: left until the next run, named at the end of this one, and in nobody's way."""

from __future__ import annotations

import time

import pytest

from midsource.marketing import accounts, handover, reconcile_reports
from midsource.model.errors import RemoteUnavailable
from midsource.testing.link import LinkedHalves
from midsource.testing.proxy import Answer, Fault, FaultProxy, Pass, Seen
from midsource.workflows import reconcile as workflow


def handed_over(halves: LinkedHalves, count: int) -> list[int]:
    numbers = []
    for serial in range(1, count + 1):
        numbers.append(halves.prepared(10, serial=serial))
        halves.run(handover.hand_over, numbers[-1])
    return numbers


def compared(halves: LinkedHalves, number: int) -> int:
    """Return how often a delivery was compared to the end."""
    with halves.marketing.connection() as conn:
        return sum(report.finished_at is not None for report in reconcile_reports.latest(conn, number))


def test_deliveries_that_use_up_the_slice_and_fail_let_the_others_be_compared(
    halves: LinkedHalves, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were first in each slice, their failures were thrown away with it, and the run went on for ever."""
    monkeypatch.setattr(workflow, "SLICE_SECONDS", 5.5)  # so that one slow summary is all a slice has time for
    slow, also_slow, fine = handed_over(halves, 3)
    asked: list[int] = []

    def fault(seen: Seen) -> Fault:
        number = next((each for each in (slow, also_slow) if f"/{each}/reconcile" in seen.path), 0)
        if not number:
            return Pass()
        asked.append(number)
        time.sleep(0.7)
        return Answer(503)

    with FaultProxy(halves.port, fault) as proxy:
        halves.link_to(proxy.url)
        with pytest.raises(RemoteUnavailable, match="2 deliveries could not be compared") as caught:
            halves.run(workflow.run_once, slices=10)
        assert all(str(number) in caught.value.cause for number in (slow, also_slow))
        assert asked == [slow, also_slow], "once in a run"
        assert compared(halves, fine) == 1
        with pytest.raises(RemoteUnavailable, match="2 deliveries could not be compared"):
            halves.run(workflow.run_once, slices=10)
        assert asked == [slow, also_slow] * 2, "the next run tries them again"


def test_mids_that_do_not_answer_use_up_no_time_but_their_own(
    halves: LinkedHalves, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "TELLING_SECONDS", 0.5)
    monkeypatch.setattr(workflow, "SLICE_SECONDS", 6.5)
    fine, theirs = handed_over(halves, 2)
    asked: list[str] = []

    def slowly(seen: Seen) -> Fault:
        asked.append(seen.path)
        time.sleep(1.7)
        return Answer(503)

    with FaultProxy(halves.port, slowly) as proxy:
        with halves.marketing.transaction() as conn:
            for name in ("aaa", "aab", "aac"):
                accounts.add(conn, halves.home, url=proxy.url, key=halves.key, name=name, now=halves.clock.now())
            conn.execute("update delivery set account = 'aab' where id = %s", (theirs,))
        with pytest.raises(
            RemoteUnavailable, match=f"1 deliveries could not be compared: delivery {theirs} with aab: "
        ):
            halves.run(workflow.run_once, slices=10)
    assert asked == ["/mid/v1/hold"] * 3, "each once in a run"
    assert compared(halves, fine) == 1
    assert compared(halves, theirs) == 0
