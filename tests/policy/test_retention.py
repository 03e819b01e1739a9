from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from midsource.policy.retention import Closing, Expired, closing, first_day_kept

TODAY = date(2026, 3, 31)
KEPT, UNPULLED = timedelta(days=14), timedelta(days=60)


@pytest.mark.parametrize(
    ("oldest_unpulled", "first"),
    [
        (None, date(2026, 3, 17)),
        (date(2026, 3, 30), date(2026, 3, 17)),
        (date(2026, 3, 1), date(2026, 3, 1)),
        (date(2025, 12, 1), date(2026, 1, 30)),
    ],
)
def test_a_day_goes_when_all_have_it_and_its_time_is_over_or_at_the_limit(
    oldest_unpulled: date | None, first: date
) -> None:
    assert first_day_kept(TODAY, KEPT, UNPULLED, oldest_unpulled) == first


def test_a_limit_below_the_ordinary_time_forgets_nothing_earlier() -> None:
    assert first_day_kept(TODAY, KEPT, timedelta(days=1), None) == date(2026, 3, 17)


VALID_UNTIL = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
AGREED = {"sent": 10, "failed": 2, "cancelled": 3}


def expired(**known: object) -> Expired:
    facts: dict[str, object] = {
        "valid_until": VALID_UNTIL,
        "ended_at": VALID_UNTIL + timedelta(hours=2),
        "logs_reached_at": VALID_UNTIL + DAY,
        "figures_at": VALID_UNTIL + DAY,
        "figures": AGREED,
        "ours": {"sent": 10, "failed": 2, "pending": 3},
    }
    return Expired(**(facts | known))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("known", "days", "verdict"),
    [
        ({}, 1, Closing.CANCEL),
        ({"logs_reached_at": None}, 100, Closing.WAIT),
        ({"logs_reached_at": VALID_UNTIL}, 1, Closing.WAIT),
        ({"ended_at": None}, 14, Closing.WAIT),
        ({"ended_at": None}, 16, Closing.CANCEL),
        ({"ended_at": None, "figures": {**AGREED, "pending": 3}}, 16, Closing.MISSING),
        ({"figures": {"sent": 11, "failed": 2, "cancelled": 2}}, 1, Closing.MISSING),
        ({"figures": {"sent": 11, "failed": 2, "cancelled": 2}}, 76, Closing.UNCERTAIN),
        ({"ended_at": None, "figures_at": None, "figures": {}}, 14, Closing.WAIT),
        ({"ended_at": None, "figures_at": None, "figures": {}}, 16, Closing.UNCERTAIN),
        ({"ended_at": None, "figures_at": VALID_UNTIL - DAY}, 16, Closing.UNCERTAIN),
    ],
)
def test_what_was_sent_is_never_called_cancelled(known: dict[str, object], days: int, verdict: Closing) -> None:
    assert closing(expired(**known), VALID_UNTIL + days * DAY) is verdict
