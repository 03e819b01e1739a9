"""When little is going on: the hours in which maintenance may act, on the wall clock of a named zone.

``02:00-05:00`` from two to five, ``22:30-01:00`` over midnight, ``00:00-24:00`` always. An hour that the zone skips or repeats
is judged by what the wall clock shows, so the window of such a night is an hour shorter or longer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from midsource.model.errors import UserError
from midsource.model.schedule import parse_zone

_FORM = re.compile(r"^(\d{2}):(\d{2})\s*-\s*(\d{2}):(\d{2})$")
DAY = 24 * 60
"""Minutes."""
STEP = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class LowActivity:
    """From minute ``begins`` to before minute ``ends`` of each local day; ``ends`` may lie on the next."""

    begins: int = 120
    ends: int = 300
    zone: str = "UTC"

    def is_open(self, now: datetime) -> bool:
        """Tell whether ``now`` lies inside."""
        local = now.astimezone(ZoneInfo(self.zone))
        minute = local.hour * 60 + local.minute
        return self.begins <= minute < self.ends or minute + DAY < self.ends

    def opens_at(self, now: datetime) -> datetime:
        """Return when it opens next: ``now`` where it is open."""
        return now if self.is_open(now) else self._walk(now, until_open=True)

    def closes_at(self, now: datetime) -> datetime:
        """Return when it closes, from ``now`` or from its next opening on; two days on where it never does."""
        return self._walk(self.opens_at(now), until_open=False)

    @property
    def minutes(self) -> int:
        """Return how long it is open on an ordinary day."""
        return self.ends - self.begins

    def _walk(self, moment: datetime, *, until_open: bool) -> datetime:
        """Return the first whole minute after ``moment`` at which the window is open, or not; two days on if none is."""
        moment = moment.astimezone(UTC).replace(second=0, microsecond=0)
        for _ in range(2 * DAY):
            moment += STEP
            if self.is_open(moment) is until_open:
                break
        return moment

    def __str__(self) -> str:
        """Return it as an operator writes it."""
        clock = [
            f"{minute // 60:02}:{minute % 60:02}"
            for minute in (self.begins, self.ends if self.ends <= DAY else self.ends - DAY)
        ]
        return f"{clock[0]}-{clock[1]}"


def parse(text: str, zone: str) -> LowActivity:
    """Return the window that ``text`` names. Raises UserError with the accepted form."""
    parse_zone(zone)
    match = _FORM.match(text.strip())
    minutes = [int(match[n]) * 60 + int(match[n + 1]) for n in (1, 3)] if match else []
    if not match or int(match[2]) > 59 or int(match[4]) > 59 or minutes[0] >= DAY or minutes[1] > DAY:
        raise UserError(f"{text[:40]!r} is no window of low activity", "write it as 02:00-05:00")
    if minutes[0] == minutes[1]:
        raise UserError(f"the window {text} is empty", "write it as 02:00-05:00, or 00:00-24:00 for always")
    return LowActivity(minutes[0], minutes[1] if minutes[1] > minutes[0] else minutes[1] + DAY, zone)
