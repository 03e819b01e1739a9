"""How fast a delivery goes and when it will be through, as far as that can be said. Pure: figures in, a value out.

The rate is measured between two counts of finished messages, at most WINDOW_SECONDS apart, as they came from the mid;
never an average since the start, which would go on promising what has stopped. What cannot be estimated is not: each
outlook has its own word, so that a page can say why there is no time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from midsource.model.delivery import DeliveryState
from midsource.policy.checks import spoken

WINDOW_SECONDS = 60.0
"""The rate is that of the last minute."""
LEAST_SECONDS = 3.0
"""Two counts nearer than this measure the batches they came in, not the sending."""
QUIET_SECONDS = 90.0
"""Counts come within seconds while anything moves: older ones mean that nothing moves, or that nobody could say."""
MAX_SECONDS = 90 * 86_400.0
"""Beyond three months an estimate says only that the rate is next to nothing."""
SMALL_RATE = 10
"""Below so many messages a second a rate is told with one decimal."""
_NOT_STARTED = frozenset({
    DeliveryState.EDITED, DeliveryState.TARGET_READY, DeliveryState.PERSONALISATION, DeliveryState.MESSAGE_FINALISED,
    DeliveryState.PREPARATION_FAILED, DeliveryState.READY,
})  # fmt: skip


class Outlook(StrEnum):
    """What can be said about the end of a delivery."""

    OVER = "over"
    NOT_STARTED = "not_started"
    PAUSED = "paused"
    OLD = "old"
    """The figures are old, and the mid has not been heard for a while."""
    STILL = "still"
    """The mid answers, and nothing has moved for a while."""
    RETRIES = "retries"
    """Only messages that are tried again later are left."""
    UNKNOWN = "unknown"
    """It runs, and no rate could be measured yet."""
    ESTIMATE = "estimate"


@dataclass(frozen=True, slots=True)
class Count:
    """How many messages were over at a moment."""

    at: datetime
    done: int


@dataclass(frozen=True, slots=True)
class Standing:
    """A delivery as far as its pace goes. ``heard_at``: when the mid last answered; ``earlier``: the count to measure from."""

    state: DeliveryState
    untried: int
    deferred: int
    latest: Count | None
    earlier: Count | None
    heard_at: datetime | None
    retry_seconds: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """``rate``: messages a second over the last minute; ``seconds``: until none waits for its first try, or its next one."""

    outlook: Outlook
    rate: float | None = None
    seconds: float | None = None
    deferred: int = 0


def forecast(standing: Standing, now: datetime) -> Forecast:
    """Say how it goes on."""
    state = standing.state
    if state.is_final:
        return Forecast(Outlook.OVER)
    if state in _NOT_STARTED:
        return Forecast(Outlook.NOT_STARTED)
    return _running(standing, now) if state.sends else Forecast(Outlook.PAUSED)


def _running(standing: Standing, now: datetime) -> Forecast:
    latest, deferred = standing.latest, standing.deferred
    if latest is None:
        return Forecast(Outlook.UNKNOWN, deferred=deferred)
    quiet = (now - latest.at).total_seconds() > QUIET_SECONDS
    if quiet and not _heard(standing, latest, now):
        return Forecast(Outlook.OLD, deferred=deferred)
    rate = 0.0 if quiet else _rate(standing)
    if standing.untried == 0 and deferred:
        return Forecast(Outlook.RETRIES, rate, float(standing.retry_seconds), deferred)
    if quiet:
        return Forecast(Outlook.STILL, rate, deferred=deferred)
    seconds = standing.untried / rate if rate else MAX_SECONDS
    if rate and seconds < MAX_SECONDS:
        return Forecast(Outlook.ESTIMATE, rate, seconds, deferred)
    return Forecast(Outlook.UNKNOWN, rate, deferred=deferred)


def sentence(told: Forecast) -> str:
    """Say it in the product's own words; '' where nothing is to be said."""
    digits = 0 if (told.rate or 0) >= SMALL_RATE else 1
    rate = f"{told.rate:,.{digits}f} messages a second over the last minute; " if told.rate else ""
    then = f", and {told.deferred} deferred ones are tried again later" if told.deferred else ""
    return {
        Outlook.OVER: "",
        Outlook.NOT_STARTED: "",
        Outlook.PAUSED: "It does not send: no estimate.",
        Outlook.OLD: "The figures are old and the mid has not been heard for a while: no estimate.",
        Outlook.STILL: "The mid answers and nothing has moved for a while: no estimate.",
        Outlook.RETRIES: f"{rate}only {told.deferred} deferred messages are left, tried again about every {spoken(told.seconds or 0)}.",
        Outlook.UNKNOWN: f"{rate}no estimate yet.",
        Outlook.ESTIMATE: f"{rate}every message has been tried in about {spoken(told.seconds or 0)}{then}.",
    }[told.outlook]


def _heard(standing: Standing, latest: Count, now: datetime) -> bool:
    """Tell whether the mid answers, and answered after it gave these figures, so that it would have told of a change."""
    heard = standing.heard_at
    if heard is None or (now - heard).total_seconds() > QUIET_SECONDS:
        return False
    return (heard - latest.at).total_seconds() > QUIET_SECONDS / 3


def _rate(standing: Standing) -> float | None:
    latest, earlier = standing.latest, standing.earlier
    if latest is None or earlier is None:
        return None
    seconds = (latest.at - earlier.at).total_seconds()
    return max(0, latest.done - earlier.done) / seconds if seconds >= LEAST_SECONDS else None
