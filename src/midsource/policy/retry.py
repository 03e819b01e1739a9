"""When a message that was put off is tried again: the delivery's retry ladder.

``count`` retries, ``period`` apart at least (the words and the meaning of the field's two settings), each up to a tenth
of a period later by ``chance``: a hundred thousand messages put off in one minute then come back spread out, and a
greylisting server, which wants a pause of minutes, is never met too early. Nothing is planned past the
end of validity: a message that would have to wait longer is given up at once and its last answer stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

JITTER = 0.1
"""Part of a period by which a retry may come later; never earlier, since the period is what providers were promised."""

MAX_RETRIES = 100
MIN_PERIOD_SECONDS = 1
MAX_PERIOD_SECONDS = 7 * 86400


@dataclass(frozen=True, slots=True)
class RetryRule:
    """How often and how far apart. The field's defaults: five retries, one hour."""

    count: int = 5
    period_seconds: int = 3600

    def __post_init__(self) -> None:
        if not 0 <= self.count <= MAX_RETRIES:
            raise ValueError(f"retries must be 0 to {MAX_RETRIES}, got {self.count}")
        if not MIN_PERIOD_SECONDS <= self.period_seconds <= MAX_PERIOD_SECONDS:
            raise ValueError(
                f"period must be {MIN_PERIOD_SECONDS} to {MAX_PERIOD_SECONDS} s, got {self.period_seconds}"
            )


def next_attempt(
    attempts: int, rule: RetryRule, validity_until: datetime, now: datetime, chance: float
) -> datetime | None:
    """Return when to try again after ``attempts`` tries (1 or more), the last one just now; None: give up.

    ``chance`` is in [0, 1). Counted from this try alone: the time of an earlier one may be of a clock that was wrong, and
    a clock set back by a day must neither make a message wait for a day nor give it up.
    """
    if attempts > rule.count:
        return None
    period = timedelta(seconds=rule.period_seconds)
    due = now + period * (1 + JITTER * chance)
    return due if due <= validity_until else None
