"""The options of a marketing instance, by the names the field knows (model/options.py, store/options.py).

Beside what every role has there are pointers, one an external account and stream. Setting a pointer moves it
(marketing/pointers.py); a jump forward leaves results out and must be confirmed. Every change is one row in
`workflow_journal`: who, old, new. Durable with the caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from midsource.marketing import gaps, pointers
from midsource.marketing.durations import RETRY_PERIOD_SECONDS, VALIDITY_SECONDS
from midsource.marketing.standing import OPTION_OF, WORKFLOW_OF, Gap
from midsource.marketing.standing import gap as gap_to
from midsource.model.errors import Conflict, NotFound, UserError
from midsource.model.options import (
    AUDIT_DELAY,
    BROAD_LOG_DELAY,
    JOB_LOG_DELAY,
    MAILBOX_FULL_DELAY,
    MARKETING_OPTIONS,
    PAUSED_PERIOD,
    REJECTS_DELAY,
    WORKFLOW_DELAY,
    Option,
)
from midsource.policy import position
from midsource.policy.retry import MAX_RETRIES
from midsource.store.database import Connection, scalar
from midsource.store.maintenance import settings
from midsource.store.options import KEPT_SECONDS, PAUSED_SECONDS, OptionTable, audited

BOUNDS = {
    "NmsMidSourcing_PrepareFlow": (1, 8),
    "NmsBroadcast_MidAnalyzeBatchSize": (50, 5_000),
    "NmsEmail_RetryCount": (0, MAX_RETRIES),
}
"""Uploads: as many as the client has connections; rows of a part: what the link takes, and what is worth a call; retries:
what a delivery may have.
"""
DELAYS = {
    "NmsEmail_RetryPeriod": RETRY_PERIOD_SECONDS,
    "NmsBroadcast_MsgValidityDuration": VALIDITY_SECONDS,
    BROAD_LOG_DELAY: KEPT_SECONDS,
    REJECTS_DELAY: KEPT_SECONDS,
    MAILBOX_FULL_DELAY: KEPT_SECONDS,
    JOB_LOG_DELAY: KEPT_SECONDS,
    WORKFLOW_DELAY: KEPT_SECONDS,
    AUDIT_DELAY: KEPT_SECONDS,
    PAUSED_PERIOD: PAUSED_SECONDS,
}
"""Options that are a length of time, with their bounds in seconds: those of a delivery, and how long cleanup keeps what."""


class NotConfirmed(Conflict):
    """The change leaves results out; ``cause`` says what, and ``--yes`` confirms it."""

    code = "MS-210"
    exit_code = 2

    def __init__(self, cause: str, remedy: str, gap: Gap) -> None:
        super().__init__(cause, remedy)
        self.gap = gap


@dataclass(frozen=True, slots=True)
class MarketingOptions(OptionTable):
    """Options, and the pointers of each external account."""

    def set_value(self, conn: Connection, name: str, value: str, *, by: str, now: datetime, yes: bool = False) -> str:
        """Set an option or move a pointer; return the sentence that says what changed.

        Raises UserError for a value that cannot be meant, NotFound for an unknown name, NotConfirmed for a pointer moved
        forward without ``yes``.
        """
        self._find(conn, name)
        stream = _stream_of(name)
        if stream is None:
            return OptionTable.set_value(self, conn, name, value, by=by, now=now, yes=yes)
        return _set_pointer(conn, stream, name.removeprefix(OPTION_OF[stream]), value, by=by, now=now, yes=yes)

    def _named(self, conn: Connection) -> list[tuple[Option, list[str]]]:
        accounts = [row[0] for row in conn.execute("select name from external_account order by name").fetchall()]
        found = []
        for option in self.known:
            prefix = option.name.removesuffix("<account>")
            found.append((option, [option.name] if prefix == option.name else [prefix + name for name in accounts]))
        return found

    def _pointer(self, name: str) -> tuple[str | None, str]:
        stream = _stream_of(name)
        return stream, name if stream is None else OPTION_OF[stream].rstrip("_")

    def _find(self, conn: Connection, name: str) -> Option:
        for option in self.known:
            prefix = option.name.removesuffix("<account>")
            if option.name == name:
                return option
            if prefix != option.name and name.startswith(prefix):
                if scalar(conn, "select 1 from external_account where name = %s", (name.removeprefix(prefix),)):
                    return option
                raise NotFound(f"{name}: there is no such external account", "see `midsource account list`")
        raise NotFound(f"there is no option {name!r}", "see `midsource option list`")


TABLE = MarketingOptions(MARKETING_OPTIONS, counts=BOUNDS, delays=DELAYS, forms=settings.FORMS)
list_options, view, get_value = TABLE.list_options, TABLE.view, TABLE.get_value
integer, seconds, set_value, revert = TABLE.integer, TABLE.seconds, TABLE.set_value, TABLE.revert


def _set_pointer(conn: Connection, stream: str, account: str, value: str, *, by: str, now: datetime, yes: bool) -> str:
    moment = position.parse(value)
    if moment > now:
        raise UserError(f"{value!r} lies in the future", f"now is {position.show(now)}; {position.ACCEPTED}")
    journal: list[str] = []
    lane = pointers.open_lanes(conn, account, stream, now, lambda _level, line: journal.append(line)).backlog
    line = f"{lane.option} set from {lane.shown} to {position.show(moment)} by {by}"
    if moment > lane.reached_at:
        gap = gap_to(conn, lane.account, lane.reached_at, moment)
        if not yes:
            said = f"setting {lane.option} forward to {position.show(moment)} {gap}"
            raise NotConfirmed(said, "repeat with --yes", gap)
        line = f"{line}: {gap}"
        gaps.record(conn, account, stream, "set by hand", lane.reached_at, moment)
    pointers.move(conn, account, stream, moment)
    conn.execute("update option set modified_by = %s where name = %s", (by, lane.option))
    return audited(conn, WORKFLOW_OF[stream], line)


def _stream_of(name: str) -> str | None:
    return next((stream for stream, prefix in OPTION_OF.items() if name.startswith(prefix)), None)
