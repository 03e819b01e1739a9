"""By what a fault was seen from inside, and when everything ran again: read from where an operator would look.

*Seen* is the first line after a fault began in the link's journal, in a workflow's journal, among the jobs' errors or the
doctor's findings, or a process that the supervisor had to start again. *Healed*: every process runs as another life than
the one that was killed, both databases answer, the last call over the link succeeded, and no workflow carries a failure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg

from midsource.bench.lab.faults import Home
from midsource.bench.lab.plan import VICTIMS, Fault, Kind
from midsource.model.errors import MidsourceError

PROCESSES = ("sandbox@mid1", *[name for name in VICTIMS if name != "supervisor"])
WORDS = {
    Kind.LINK_CUT: "refused|no answer|nobody listens|cut",
    Kind.SLOW_LINK: "no answer|time|slow",
    Kind.CLOCK: "clock|skew",
    Kind.DISK: "disk|full|space",
    Kind.KILLED: "",
    Kind.POSTGRES: "",
}
"""What a line must say to be about a fault: another one, or a part answered 408, may have left a line at the same time."""
_FIRST = """
select at, line from ({}) told where at >= %(since)s and at < %(until)s and line ~* %(words)s order by at limit 1
"""
_LINK = _FIRST.format("select at, line from link_event")
_JOURNAL = _FIRST.format("select at, line from workflow_journal where level <> 'info'")
_FINDINGS = _FIRST.format("select opened_at as at, cause as line from finding")
_PLACES = (
    ("marketing", _LINK), ("marketing", _JOURNAL), ("mid1", _JOURNAL), ("marketing", _FINDINGS), ("mid1", _FINDINGS),
)  # fmt: skip
_SOUND = """
select not exists (select from workflow where failed or consecutive_failures > 0)
   and not exists (select from external_account where active and last_problem <> '')
"""
_SOUND_MID = "select not exists (select from workflow where failed or consecutive_failures > 0)"


@dataclass(frozen=True, slots=True)
class Sign:
    """When something was seen, and what it said."""

    at: datetime
    said: str


def pids(home: Home) -> dict[str, int]:
    """Return who runs now, PostgreSQL and the supervisor included; 0 or absent: not there."""
    found = home.running()
    for name in ("postgres", "supervisor"):
        try:
            found[name] = home.pid(name)
        except (MidsourceError, KeyError, ValueError):
            found[name] = 0
    return found


def seen(home: Home, fault: Fault, period: tuple[datetime, datetime], before: dict[str, int]) -> Sign | None:
    """Return the first sign of a fault within ``period`` (from when it began to now, or to when the next one did), or None."""
    if fault.kind in (Kind.KILLED, Kind.POSTGRES):  # whoever starts it again has seen it
        name = "postgres" if fault.kind is Kind.POSTGRES else fault.detail
        life = pids(home).get(name, 0)
        if life and life != before.get(name, 0):
            return Sign(period[1], f"{name} was started again as process {life}")
        return None
    signs = [
        Sign(at, line)
        for instance, statement in _PLACES
        for at, line in _ask(
            home, instance, statement, {"since": period[0], "until": period[1], "words": WORDS[fault.kind]}
        )
    ]
    return min(signs, key=lambda sign: sign.at, default=None)


def is_sound(home: Home, fault: Fault, before: dict[str, int]) -> bool:
    """Whether everything runs again after ``fault``, and no failure stands."""
    running = pids(home)
    if not all(running.get(name) for name in (*PROCESSES, "postgres", "supervisor")):
        return False
    struck = {Kind.KILLED: fault.detail, Kind.POSTGRES: "postgres"}.get(fault.kind)
    if struck and running.get(struck) == before.get(struck):
        return False
    try:
        return bool(home.rows("marketing", _SOUND)[0][0]) and bool(home.rows("mid1", _SOUND_MID)[0][0])
    except (psycopg.Error, MidsourceError):
        return False


def _ask(home: Home, instance: str, statement: str, params: dict[str, object]) -> list[tuple[datetime, str]]:
    try:
        return [(at, str(line)[:300]) for at, line in home.rows(instance, statement, params)]
    except (psycopg.Error, MidsourceError):
        return []  # the database is what is broken
