"""Read, list and set options by the names the field knows (model/options.py).

A value is checked at the door by its unit and bounds: a delay without unit is refused, because the field's option list holds
seconds and its wizard days. A value written behind our back that cannot be meant counts as the default, and one out of
bounds as the nearest bound, so that no option can stop the work that reads it. Setting a pointer moves it (marketing/pointers.py); a jump forward leaves results out and must be
confirmed. Every change is one row in `workflow_journal`: who, old, new. Durable with the caller's transaction.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from midsource.marketing import pointers
from midsource.marketing.durations import RETRY_PERIOD_SECONDS, VALIDITY_SECONDS, parse_duration, show_bounds
from midsource.marketing.standing import OPTION_OF, WORKFLOW_OF, Gap
from midsource.marketing.standing import gap as gap_to
from midsource.model.errors import Conflict, NotFound, UserError
from midsource.model.options import MARKETING_OPTIONS, Option
from midsource.policy import position
from midsource.policy.retry import MAX_RETRIES
from midsource.store.database import Connection, scalar

_NUMBER = re.compile(r"^[0-9]{1,9}$")
BOUNDS = {
    "NmsMidSourcing_PrepareFlow": (1, 8),
    "NmsBroadcast_MidAnalyzeBatchSize": (50, 5_000),
    "NmsEmail_RetryCount": (0, MAX_RETRIES),
}
"""Uploads: as many as the client has connections; rows of a part: what the link takes, and what is worth a call; retries:
what a delivery may have.
"""
DELAYS = {"NmsEmail_RetryPeriod": RETRY_PERIOD_SECONDS, "NmsBroadcast_MsgValidityDuration": VALIDITY_SECONDS}
"""Options that are a length of time, with their bounds in seconds: those of a delivery."""


class NotConfirmed(Conflict):
    """The change leaves results out; ``cause`` says what, and ``--yes`` confirms it."""

    code = "MS-210"
    exit_code = 2

    def __init__(self, cause: str, remedy: str, gap: Gap) -> None:
        super().__init__(cause, remedy)
        self.gap = gap


@dataclass(frozen=True, slots=True)
class OptionView:
    """One option as `option list` shows it. ``modified_by`` '': it has its default; 'pointer': it moved by itself."""

    name: str
    value: str
    default: str
    unit: str
    description: str
    modified_by: str = ""
    modified_at: datetime | None = None

    @property
    def stream(self) -> str | None:
        """The stream whose pointer this is; None for any other option."""
        return _stream_of(self.name)

    @property
    def base(self) -> str:
        """Its name in the table of options, without the account: what texts about it are called."""
        return self.name if self.stream is None else OPTION_OF[self.stream].rstrip("_")

    @property
    def is_default(self) -> bool:
        """Whether nobody has set it."""
        return self.stream is None and self.value == self.default


def list_options(conn: Connection, known: Sequence[Option] = MARKETING_OPTIONS) -> list[OptionView]:
    """Return every option, those made per external account once for each, in the order of the table of options."""
    rows = conn.execute("select name, value, modified_by, modified_at from option").fetchall()
    stored: dict[str, tuple[str, str, datetime]] = {row[0]: row[1:] for row in rows}
    accounts = [row[0] for row in conn.execute("select name from external_account order by name").fetchall()]
    views = []
    for option in known:
        per_account = option.name.endswith("<account>")
        prefix = option.name.removesuffix("<account>")
        names = [prefix + account for account in accounts] if per_account else [option.name]
        for name in names:
            value, by, at = stored.get(name, (option.default, "", None))
            views.append(OptionView(name, value, option.default, option.unit, option.description, by, at))
    return views


def view(conn: Connection, name: str) -> OptionView:
    """Return one option as lists show it. Raises NotFound for an unknown name."""
    _known(conn, name)
    return next(found for found in list_options(conn) if found.name == name)


def revert(conn: Connection, name: str, *, by: str) -> str:
    """Give an option its default again and return the sentence that says so. Raises NotFound, UserError for a pointer."""
    option = _known(conn, name)
    if _stream_of(name) is not None:
        raise UserError(f"{name} is a pointer and has no default", "set it to a time")
    old = get_value(conn, name)
    conn.execute("delete from option where name = %s", (name,))
    return _audited(conn, "options", f"{name} set from {old!r} to its default {option.default!r} by {by}")


def get_value(conn: Connection, name: str) -> str:
    """Return the value of an option, its default where none was set. Raises NotFound for an unknown name."""
    option = _known(conn, name)
    value = scalar(conn, "select value from option where name = %s", (name,))
    return option.default if value is None else str(value)


def integer(conn: Connection, name: str) -> int:
    """Return an option that counts something; a value broken behind our back gives the default."""
    text = get_value(conn, name)
    option = _known(conn, name)
    least, most = BOUNDS.get(name, (0, 10**9))
    return min(most, max(least, int(text if _NUMBER.match(text) else option.default)))


def seconds(conn: Connection, name: str) -> int:
    """Return an option that is a delay, in seconds; a value broken behind our back gives the default, or the nearest bound."""
    least, most = DELAYS[name]
    try:
        delay = parse_duration(get_value(conn, name))
    except UserError:
        delay = parse_duration(_known(conn, name).default)
    return min(most, max(least, delay))


def set_value(conn: Connection, name: str, value: str, *, by: str, now: datetime, yes: bool = False) -> str:
    """Set an option and return the sentence that says what changed.

    Raises UserError for a value that cannot be meant, NotFound for an unknown name, NotConfirmed for a pointer moved
    forward without ``yes``.
    """
    option = _known(conn, name)
    stream = _stream_of(name)
    if stream is not None:
        return _set_pointer(conn, stream, name.removeprefix(OPTION_OF[stream]), value, by=by, now=now, yes=yes)
    new = _checked(option, value)
    old = get_value(conn, name)
    if new == option.default:
        conn.execute("delete from option where name = %s", (name,))
    else:
        conn.execute(
            "insert into option (name, value, modified_by) values (%s, %s, %s) on conflict (name) do update set "
            "value = excluded.value, modified_by = excluded.modified_by, modified_at = now(), version = option.version + 1",
            (name, new, by),
        )
    return _audited(conn, "options", f"{name} set from {old!r} to {new!r} by {by}")


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
    pointers.move(conn, account, stream, moment)
    conn.execute("update option set modified_by = %s where name = %s", (by, lane.option))
    return _audited(conn, WORKFLOW_OF[stream], line)


def _audited(conn: Connection, workflow: str, line: str) -> str:
    conn.execute("insert into workflow_journal (workflow, level, line) values (%s, 'info', %s)", (workflow, line))
    return line


def _stream_of(name: str) -> str | None:
    return next((stream for stream, prefix in OPTION_OF.items() if name.startswith(prefix)), None)


def _known(conn: Connection, name: str) -> Option:
    for option in MARKETING_OPTIONS:
        prefix = option.name.removesuffix("<account>")
        if option.name == name:
            return option
        if prefix != option.name and name.startswith(prefix):
            if scalar(conn, "select 1 from external_account where name = %s", (name.removeprefix(prefix),)):
                return option
            raise NotFound(f"{name}: there is no such external account", "see `midsource account list`")
    raise NotFound(f"there is no option {name!r}", "see `midsource option list`")


def _checked(option: Option, value: str) -> str:
    """Return the value as it is kept, or raise UserError with the accepted form."""
    text = value.strip()
    if option.name in DELAYS:
        return _checked_delay(option, text)
    if option.unit == "0 or 1":
        if text not in ("0", "1"):
            raise UserError(f"{option.name} is 0 or 1, not {value!r}", "write 1 for yes, 0 for no")
        return text
    number = text.removesuffix(option.unit).strip()
    least, most = BOUNDS.get(option.name, (0, 10**9))
    if not _NUMBER.match(number) or not least <= int(number) <= most:
        raise UserError(
            f"{option.name} is a number of {option.unit} from {least} to {most}, not {value!r}",
            f"as in {option.default}",
        )
    return number


def _checked_delay(option: Option, text: str) -> str:
    if _NUMBER.match(text):
        raise UserError(
            f"{option.name} is a delay, and {text} has no unit", f"write {text}s, {text}h or {text}d, as you mean it"
        )
    bounds = DELAYS[option.name]
    try:
        delay = parse_duration(text)
    except UserError as exc:
        raise UserError(
            f"{text[:40]!r} is not a delay", f"write a number and s, min, h or d, as in {option.default}"
        ) from exc
    if not bounds[0] <= delay <= bounds[1]:
        raise UserError(f"{option.name} is {show_bounds(*bounds)}, not {text[:40]}", f"as in {option.default}")
    return text.replace(" ", "")
