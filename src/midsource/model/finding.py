"""Findings: what is wrong, for whom, with what remedy; and the rules by which they open, change and close by themselves.

A *check* looks at one thing and says what it *sees*; a *finding* is what is kept of that, one at a time for each (check,
subject). Rules, all in ``judge``:

- seen, and none is open: it *opens*.
- seen again: the same finding. More severe: it *worsens*; less severe, or other evidence: it *changes*; neither tells
  anybody but the page that shows it, worsening tells supervisors, too.
- not seen by a check that looked: a *clean look*. After ``CLEAN_LOOKS`` of them in a row it *closes*: what comes and goes
  between two looks is one finding that lasts, not many that flap.
- a check that failed, or was not asked, has not looked: its findings stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

CLEAN_LOOKS = 2
"""Five minutes apart in a worker: a finding closes at the latest ten minutes after its cause is gone."""
FAILED = "check.failed"
"""The finding that a check could not look; its subject is the check, and its clean look is a look of that check."""
MAX_TEXT = 600
"""Characters of evidence, cause and remedy: a sentence or two each."""
MAX_SUBJECT = 200


class Severity(StrEnum):
    """How bad, the least first."""

    INFO = "info"
    """Worth knowing; nothing needs to be done. Never told, and no reason for exit code 3."""
    WARNING = "warning"
    """Will hurt if nothing is done."""
    ERROR = "error"
    """Hurts now: something is late, stuck or wrong."""
    CRITICAL = "critical"
    """Stands still or loses something: told at once, also in quiet hours."""

    @property
    def rank(self) -> int:
        """The order: a higher one is worse."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a check saw about ``subject`` ('' where there is only one). Each text is a sentence or two for who must act."""

    severity: Severity
    evidence: str
    """What was measured, with its numbers."""
    cause: str
    """What that means, or what is behind it."""
    remedy: str
    """What to do, as a command where there is one."""
    subject: str = ""
    healable: bool = False
    """Whether the doctor can mend this one (doctor/treatments)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check saw, as it is kept and told."""

    check: str
    subject: str
    severity: Severity
    evidence: str
    cause: str
    remedy: str
    answers: tuple[str, ...] = ()
    """The known failures it is about: F30."""
    healable: bool = False

    @classmethod
    def of(cls, check: str, answers: tuple[str, ...], seen: Seen) -> Finding:
        """Return what is kept of something seen; texts are cut at their bounds."""
        return cls(
            check,
            seen.subject[:MAX_SUBJECT],
            seen.severity,
            seen.evidence[:MAX_TEXT],
            seen.cause[:MAX_TEXT],
            seen.remedy[:MAX_TEXT],
            answers,
            seen.healable,
        )

    @property
    def key(self) -> tuple[str, str]:
        """What it is about: one finding at a time is open for each."""
        return self.check, self.subject


@dataclass(frozen=True, slots=True)
class Standing:
    """A finding as its row has it. ``closed_at`` None: open. Muted: shown, but told to nobody until then."""

    id: int
    finding: Finding
    opened_at: datetime
    seen_at: datetime
    changed_at: datetime
    closed_at: datetime | None = None
    times_seen: int = 1
    clean_looks: int = 0
    muted_until: datetime | None = None
    muted_by: str = ""

    def is_muted(self, now: datetime) -> bool:
        """Whether nobody is told about it at ``now``."""
        return self.muted_until is not None and self.muted_until > now


class Event(StrEnum):
    """What a look makes of a finding."""

    OPENED = "opened"
    WORSENED = "worsened"
    CHANGED = "changed"
    SAME = "same"
    CLEAN = "clean"
    CLOSED = "closed"


TOLD = frozenset({Event.OPENED, Event.WORSENED, Event.CLOSED})
"""What supervisors hear of."""


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one finding. ``id`` None: it is to be made."""

    event: Event
    finding: Finding
    id: int | None = None


def judge(standing: Iterable[Standing], seen: Sequence[Finding], looked: Collection[str]) -> list[Change]:
    """Return what a look changes. ``standing``: the open ones; ``looked``: names of the checks that did look.

    Two of one key in ``seen`` are one: the worst.
    """
    worst: dict[tuple[str, str], Finding] = {}
    for finding in seen:
        known = worst.get(finding.key)
        if known is None or finding.severity.rank > known.severity.rank:
            worst[finding.key] = finding
    changes: list[Change] = []
    for row in standing:
        now_seen = worst.pop(row.finding.key, None)
        if now_seen is not None:
            changes.append(Change(_moved(row.finding, now_seen), now_seen, row.id))
        elif row.finding.check in looked or (row.finding.check == FAILED and row.finding.subject in looked):
            event = Event.CLOSED if row.clean_looks + 1 >= CLEAN_LOOKS else Event.CLEAN
            changes.append(Change(event, row.finding, row.id))
    return [*changes, *(Change(Event.OPENED, finding) for finding in worst.values())]


def _moved(before: Finding, after: Finding) -> Event:
    if after.severity.rank > before.severity.rank:
        return Event.WORSENED
    return Event.SAME if after == before else Event.CHANGED


def needs_somebody(findings: Iterable[Finding]) -> bool:
    """Tell whether any is above info: what exit code 3 and an absent supervisor (F106) go by."""
    return any(finding.severity is not Severity.INFO for finding in findings)


def age(span: timedelta) -> str:
    """Return a span as people say it: '35 s', '12 min', '5 h', '3 days'."""
    seconds = max(0.0, span.total_seconds())
    for size, word, limit in ((1, "s", 120), (60, "min", 7200), (3600, "h", 172_800)):
        if seconds < limit:
            return f"{seconds / size:.0f} {word}"
    return f"{seconds / 86_400:.0f} days"
