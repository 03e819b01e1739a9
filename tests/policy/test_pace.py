"""The rate of a delivery and when it will be through: said only as far as it can be."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midsource.model.delivery import DeliveryState
from midsource.policy.pace import MAX_SECONDS, Count, Outlook, Standing, forecast, sentence

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


RUNNING = Standing(
    DeliveryState.IN_PROGRESS,
    untried=9_000,
    deferred=20,
    latest=Count(ago(2), 4_000),
    earlier=Count(ago(42), 0),
    heard_at=ago(1),
    retry_seconds=3_600,
)


def test_the_rate_is_that_of_the_last_minute_and_gives_the_time() -> None:
    told = forecast(RUNNING, NOW)
    assert (told.outlook, told.rate, told.seconds) == (Outlook.ESTIMATE, 100.0, 90.0)
    assert sentence(told) == (
        "100 messages a second over the last minute; every message has been tried in about 1min 30s, "
        "and 20 deferred ones are tried again later."
    )


@pytest.mark.parametrize(
    ("values", "outlook"),
    [
        ({"state": DeliveryState.FINISHED}, Outlook.OVER),
        ({"state": DeliveryState.READY}, Outlook.NOT_STARTED),
        ({"state": DeliveryState.PAUSED}, Outlook.PAUSED),
        ({"latest": None}, Outlook.UNKNOWN),
        ({"earlier": None}, Outlook.UNKNOWN),
        ({"earlier": Count(ago(3), 0)}, Outlook.UNKNOWN),
        ({"earlier": Count(ago(42), 4_000)}, Outlook.UNKNOWN),
        ({"untried": 0}, Outlook.RETRIES),
        ({"latest": Count(ago(600), 4_000)}, Outlook.STILL),
        ({"latest": Count(ago(600), 4_000), "heard_at": ago(610)}, Outlook.OLD),
        ({"latest": Count(ago(600), 4_000), "heard_at": ago(180)}, Outlook.OLD),
        ({"latest": Count(ago(600), 4_000), "heard_at": None}, Outlook.OLD),
        ({"latest": Count(ago(600), 4_000), "untried": 0}, Outlook.RETRIES),
        ({"latest": Count(ago(2), 1), "untried": 2_000_000_000}, Outlook.UNKNOWN),
    ],
)
def test_what_cannot_be_estimated_is_not(values: dict[str, object], outlook: Outlook) -> None:
    told = forecast(replace(RUNNING, **values), NOW)  # type: ignore[arg-type]
    assert told.outlook is outlook
    assert told.seconds in (None, 3_600.0)


@given(
    st.sampled_from(DeliveryState), st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9),
    st.integers(0, 10**9), st.integers(-60, 10_000), st.integers(0, 10_000), st.integers(1, 604_800),
)  # fmt: skip
def test_whatever_the_figures_say_there_is_an_answer(
    state: DeliveryState, untried: int, deferred: int, done: int, before: int, age: int, span: int, retry: int
) -> None:
    latest, earlier = Count(ago(age), done), Count(ago(age + span), before)
    told = forecast(Standing(state, untried, deferred, latest, earlier, NOW, retry), NOW)
    assert told.rate is None or told.rate >= 0
    assert told.seconds is None or 0 <= told.seconds < MAX_SECONDS
    assert (told.outlook is Outlook.ESTIMATE) <= bool(told.rate)
    sentence(told)
