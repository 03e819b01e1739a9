"""Supervisors: who is told of findings and failed workflows, by a channel that is not the system's own delivery.

A *webhook* gets signed JSON, *syslog* a line by UDP or TCP, *smtp* a mail by a relay. Each hears of what is at least its severity,
outside its quiet hours; what is critical it hears of at once. The secret that signs webhooks is encrypted with the key of the home
folder. Everything here is durable with the caller's transaction; who changes it is in the audit, written by the caller.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from enum import StrEnum
from pathlib import Path
from urllib.parse import parse_qsl

from midsource.model.address import AddressProblem, EmailAddress
from midsource.model.errors import Conflict, NotFound, UserError
from midsource.model.finding import Severity
from midsource.model.host import HostProblem, split_url
from midsource.model.schedule import parse_zone
from midsource.net import egress
from midsource.policy.telling import Quiet
from midsource.security import keys
from midsource.store.database import Connection, scalar

SECRET = "supervisor secret"  # noqa: S105 - the name of a purpose
"""Purpose of the home's key: what signs webhooks."""
MOST = 50
"""Supervisors of an instance: people and machines that are told, not subscribers."""
MUTE_MOST = timedelta(days=90)
DEFAULT_PORT = {"udp": 514, "tcp": 601, "smtp": 25}
LANGUAGES = ("en", "fr", "pt")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,62}")
_HOUR = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")


class Channel(StrEnum):
    """How a supervisor is told."""

    WEBHOOK = "webhook"
    SYSLOG = "syslog"
    SMTP = "smtp"


_FORMS = {
    Channel.SYSLOG: ("syslog server", "udp://logs.example:514 or tcp://logs.example:601", ("udp", "tcp")),
    Channel.SMTP: (
        "relay",
        "smtp://relay.example:25/?to=ops@example.com&from=midsource@example.com",
        ("smtp",),
    ),
}
"""What a channel's address names, how it is written, its schemes."""


@dataclass(frozen=True, slots=True)
class Supervisor:
    """One supervisor, without its secret. ``failures`` in a row since ``failed_since``, the last for ``last_problem``."""

    name: str
    channel: Channel
    address: str
    severity: Severity
    quiet: Quiet
    language: str
    active: bool
    muted_until: datetime | None
    muted_by: str
    failures: int
    failed_since: datetime | None
    last_problem: str
    last_told_at: datetime | None
    created_at: datetime
    created_by: str

    @property
    def shown(self) -> str:
        """Its address as lists show it: the path of a webhook may hold a token."""
        return egress.shown(self.address) if self.channel is Channel.WEBHOOK else self.address

    def hears(self, severity: Severity, now: datetime) -> bool:
        """Whether it is told of something of ``severity`` that happens at ``now``."""
        return self.active and not self.is_muted(now) and severity.rank >= self.severity.rank

    def is_muted(self, now: datetime) -> bool:
        """Whether it is told nothing for a time that is not over."""
        return self.muted_until is not None and self.muted_until > now


@dataclass(frozen=True, slots=True)
class Draft:
    """What an operator says about a new supervisor. ``quiet``: '22:00-07:00', '' for none; ``digest``: '07:30', '' at their end."""

    name: str
    channel: Channel
    address: str
    severity: Severity = Severity.WARNING
    quiet: str = ""
    digest: str = ""
    zone: str = "UTC"
    language: str = "en"


@dataclass(frozen=True, slots=True)
class Server:
    """Where syslog or a relay listens; ``sender`` and ``recipient`` are a relay's."""

    protocol: str
    host: str
    port: int
    sender: str = ""
    recipient: str = ""


_COLUMNS = (
    "name, channel, address, severity, quiet_from, quiet_to, digest_at, zone, language, active, muted_until, muted_by, failures, "
    "failed_since, last_problem, last_told_at, created_at, created_by"
)


def add(conn: Connection, home: Path, draft: Draft, by: str, now: datetime) -> str:
    """Store a supervisor and return the secret that signs its webhooks, shown this once ('' for the other channels).

    Raises UserError for what cannot be one, Conflict for a name that is taken.
    """
    if wrong := problems(draft):
        raise next(iter(wrong.values()))
    address = _checked_address(draft)
    if scalar(conn, "select count(*) from supervisor") >= MOST:
        raise UserError(f"there are {MOST} supervisors already", "remove one first; a list of people is one address")
    secret = secrets.token_urlsafe(32) if draft.channel is Channel.WEBHOOK else ""
    stored = keys.load(home).encrypt(SECRET, secret.encode()) if secret else None
    start, end = hours(draft.quiet) if draft.quiet else (None, None)
    made = conn.execute(
        "insert into supervisor (name, channel, address, severity, quiet_from, quiet_to, digest_at, zone, language, secret, created_at, created_by) "
        "values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict (name) do nothing",
        (
            *(draft.name, str(draft.channel), address, str(draft.severity), start, end),
            *(hour(draft.digest) if draft.digest else None, draft.zone, draft.language, stored, now, by),
        ),
    )
    if made.rowcount == 0:
        raise Conflict(f"there is a supervisor {draft.name!r} already", "remove it first, or take another name")
    return secret


def listing(conn: Connection) -> Sequence[Supervisor]:
    """Return every supervisor by name."""
    rows = conn.execute(f"select {_COLUMNS} from supervisor order by name limit {MOST}").fetchall()  # noqa: S608 - constants
    return [_supervisor(row) for row in rows]


def get(conn: Connection, name: str) -> Supervisor:
    """Return one; raises NotFound naming those there are."""
    known = listing(conn)
    for one in known:
        if one.name == name:
            return one
    names = ", ".join(one.name for one in known) or "none"
    raise NotFound(f"there is no supervisor {name!r}", f"supervisors: {names}; `midsource supervisor add` makes one")


def secret_of(conn: Connection, home: Path, name: str) -> bytes:
    """Return what signs the webhooks of a supervisor. Raises Failed where the home has another key."""
    stored = scalar(conn, "select secret from supervisor where name = %s", (name,))
    return keys.load(home).decrypt(SECRET, bytes(stored)) if stored is not None else b""


def remove(conn: Connection, name: str) -> None:
    """Remove one, with what it was still to be told."""
    get(conn, name)
    conn.execute("delete from supervisor where name = %s", (name,))


def mute(conn: Connection, name: str, until: datetime | None, by: str, now: datetime) -> Supervisor:
    """Tell it nothing of what happens until then; None: from now on again. Raises UserError beyond 90 days."""
    get(conn, name)
    if until is not None and not now < until <= now + MUTE_MOST:
        raise UserError("a supervisor is muted for at most 90 days from now", "give a shorter time; it can be repeated")
    conn.execute("update supervisor set muted_until = %s, muted_by = %s where name = %s", (until, by, name))
    return get(conn, name)


def told(conn: Connection, name: str, now: datetime) -> None:
    """Note that it could be told: its failures are over."""
    conn.execute(
        "update supervisor set failures = 0, failed_since = null, last_problem = '', last_told_at = %s where name = %s",
        (now, name),
    )


def failed(conn: Connection, name: str, sentence: str, now: datetime) -> None:
    """Note that it could not be told, and why."""
    conn.execute(
        "update supervisor set failures = failures + 1, failed_since = coalesce(failed_since, %s), last_problem = %s where name = %s",
        (now, sentence[:600], name),
    )


def server(channel: Channel, address: str) -> Server:
    """Read the address of a syslog server (``udp://logs.example:514``) or a relay (``smtp://relay.example/?to=ops@example.com``).

    Raises UserError with the accepted form.
    """
    what, form, schemes = _FORMS[channel]
    try:
        parts = split_url(address)
    except HostProblem as exc:
        raise UserError(f"{address[:200]!r} is no {what} ({exc})", f"write it like {form}") from exc
    query = dict(parse_qsl(parts.query))
    recipient, sender = (query.pop("to", ""), query.pop("from", "")) if channel is Channel.SMTP else ("", "")
    port = parts.port if parts.port is not None else DEFAULT_PORT.get(parts.scheme, 0)
    beyond = parts.username or parts.path not in ("", "/") or query or parts.fragment
    fine = parts.scheme in schemes and port and not beyond and len(address) <= egress.MAX_URL
    if not fine or (channel is Channel.SMTP and not recipient):
        raise UserError(f"{address[:200]!r} is no {what}", f"write it like {form}")
    return Server(parts.scheme, parts.hostname or "", port, _mailbox(sender), _mailbox(recipient))


def hours(text: str) -> tuple[time, time]:
    """Read '22:00-07:00'. Raises UserError."""
    start, dash, end = text.partition("-")
    if not dash or hour(start) == hour(end):
        raise UserError(f"{text[:40]!r} are no quiet hours", "write them like 22:00-07:00")
    return hour(start), hour(end)


def hour(text: str) -> time:
    """Read '07:30'. Raises UserError."""
    match = _HOUR.fullmatch(text.strip())
    if match is None:
        raise UserError(f"{text[:40]!r} is no time of the day", "write it like 07:30")
    return time(int(match[1]), int(match[2]))


def problems(draft: Draft) -> dict[str, UserError]:
    """Return what is wrong with a draft by the name of its field, in their order; empty where it can be stored. Pure."""
    checks: Mapping[str, Callable[[Draft], object]] = {
        "name": _check_name,
        "address": _checked_address,
        "severity": _check_severity,
        "quiet": lambda one: one.quiet and hours(one.quiet),
        "digest": _check_digest,
        "zone": lambda one: parse_zone(one.zone),
        "language": _check_language,
    }
    found = {}
    for field, check in checks.items():
        try:
            check(draft)
        except UserError as exc:
            found[field] = exc
    return found


def _checked_address(draft: Draft) -> str:
    """Return the address to store: its host as it is looked up and named."""
    if draft.channel is Channel.WEBHOOK:
        return egress.check_url(draft.address)
    server(draft.channel, draft.address)
    return split_url(draft.address).geturl()


def _check_name(draft: Draft) -> None:
    if not _NAME.fullmatch(draft.name):
        raise UserError(
            f"{draft.name[:80]!r} cannot be a name",
            "use up to 63 letters, digits, '_', '.' and '-', starting with a letter",
        )


def _check_severity(draft: Draft) -> None:
    if draft.severity is Severity.INFO:
        raise UserError("what is for information is told to nobody", "choose warning, error or critical")


def _check_digest(draft: Draft) -> None:
    if draft.digest and not draft.quiet:
        raise UserError("a digest is of quiet hours, and there are none", "give quiet hours as well, like 22:00-07:00")
    if draft.digest:
        hour(draft.digest)


def _check_language(draft: Draft) -> None:
    if draft.language not in LANGUAGES:
        raise UserError(f"{draft.language[:40]!r} is no language of ours", f"choose {', '.join(LANGUAGES)}")


def _mailbox(text: str) -> str:
    try:
        return str(EmailAddress.parse(text)) if text else ""
    except AddressProblem as exc:
        raise UserError(f"{text[:80]!r} is no address ({exc})", "write it like ops@example.com") from exc


def _supervisor(row: Sequence[object]) -> Supervisor:
    name, channel, address, severity, start, end, digest, zone, *rest = row
    quiet = Quiet(start, end, digest, str(zone))  # type: ignore[arg-type]
    return Supervisor(name, Channel(str(channel)), address, Severity(str(severity)), quiet, *rest)  # type: ignore[arg-type]
