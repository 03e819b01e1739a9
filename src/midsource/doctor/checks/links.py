"""Checks of the link to each mid: reachable, refusing, dispatch, clock, certificate, version, failures, accounts switched off."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from midsource import __version__
from midsource.doctor.check import MARKETING, Check
from midsource.doctor.facts import Facts, Said
from midsource.marketing import accounts
from midsource.model.errors import RemoteUnavailable
from midsource.model.finding import Seen, Severity, age
from midsource.store.database import Connection
from midsource.wire.client import MAX_SKEW_SECONDS

UNREACHABLE_FOR = timedelta(minutes=5)
"""A mid that is started anew is back within a minute; until then its silence is a warning."""
CERTIFICATE_WARNING = timedelta(days=21)
CERTIFICATE_ERROR = timedelta(days=3)
FAILURES_WITHIN = timedelta(minutes=30)
FAILURES_MANY = 20
"""In half an hour: back-off tops out at a minute, so this is a link that fails most of the time."""
SLOW_PARTS_MANY = 5
"""HTTP 408 on parts: each costs a repeat or a split."""


def unreachable(conn: Connection, facts: Facts, now: datetime) -> Iterator[Seen]:
    """Mids of active accounts that do not answer: a warning at once, an error after five minutes."""
    for said in _silent(facts, refused=False):
        last = accounts.get(conn, said.account).last_hello_at
        silent_for = None if last is None else now - last
        short = silent_for is not None and silent_for < UNREACHABLE_FOR
        when = "It has never answered" if silent_for is None else f"It last answered {age(silent_for)} ago"
        assert said.error is not None
        yield Seen(
            Severity.WARNING if short else Severity.ERROR,
            evidence=f"{said.account} at {said.url} does not answer. {when}.",
            cause=str(said.error),
            remedy=f"See that its machine, its web process and the network between are up; `midsource account test {said.account}` goes step by step.",
            subject=said.account,
        )


def refused(_conn: Connection, facts: Facts, _now: datetime) -> Iterator[Seen]:
    """Mids that answer, and refuse: a wrong key, another version, a server that is no mid."""
    for said in _silent(facts, refused=True):
        assert said.error is not None
        yield Seen(
            Severity.ERROR,
            evidence=f"{said.account} at {said.url} is not spoken with: it refuses this instance, or our key for it cannot be read.",
            cause=str(said.error),
            remedy=f"Mend what it names; `midsource account test {said.account}` goes step by step.",
            subject=said.account,
        )


def dispatch(conn: Connection, facts: Facts, _now: datetime) -> Iterator[Seen]:
    """Mids that take deliveries but do not send: no mta process lives there. An error while a delivery waits for it."""
    for said in facts.mids.values():
        if said.hello is None or said.hello.dispatch:
            continue
        row = conn.execute(
            "select count(*) from delivery where account = %s and state in (51, 55, 62)", (said.account,)
        ).fetchone()
        waiting = row[0] if row else 0
        yield Seen(
            Severity.ERROR if waiting else Severity.WARNING,
            evidence=f"{said.account} ({said.hello.instance}) sends nothing; {waiting} deliveries wait for it.",
            cause="No mta process of that mid lives.",
            remedy="On that machine: `midsource status`, then `midsource up` or `midsource start mta@NAME`.",
            subject=said.account,
        )


def clock(_conn: Connection, facts: Facts, _now: datetime) -> Iterator[Seen]:
    """Clocks of mids more than 30 s apart from this machine's."""
    for said in facts.mids.values():
        if abs(said.skew_seconds) > MAX_SKEW_SECONDS:
            yield Seen(
                Severity.WARNING,
                evidence=accounts.skew_sentence(said.skew_seconds),
                cause="One of the two machines keeps no time by NTP. Log dates are the mid's, scheduled starts this side's.",
                remedy="`timedatectl` on both machines; synchronise both to the same source.",
                subject=said.account,
            )


def certificate(_conn: Connection, facts: Facts, now: datetime) -> Iterator[Seen]:
    """TLS certificates of mids that end within 21 days; within three it is an error."""
    for said in facts.mids.values():
        if said.certificate_ends is None or said.certificate_ends - now > CERTIFICATE_WARNING:
            continue
        soon = said.certificate_ends - now < CERTIFICATE_ERROR
        yield Seen(
            Severity.ERROR if soon else Severity.WARNING,
            evidence=f"The certificate at {said.url} ends on {said.certificate_ends:%Y-%m-%d %H:%MZ}, in {age(said.certificate_ends - now)}.",
            cause="It was not renewed. After its end every call over the link is refused.",
            remedy="Renew it on the mid's web server and let that server read it again.",
            subject=said.account,
        )


def version(_conn: Connection, facts: Facts, _now: datetime) -> Iterator[Seen]:
    """Mids of another version of midsource: a mid may be newer, not older, than the marketing instance."""
    for said in facts.mids.values():
        if said.hello is not None and said.hello.version != __version__:
            yield Seen(
                Severity.INFO,
                evidence=f"{said.account} runs midsource {said.hello.version}, this instance {__version__}.",
                cause="The halves were upgraded apart. Both speak the same protocol, so the link works.",
                remedy="Upgrade the mid first, then marketing.",
                subject=said.account,
            )


def failures(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Calls over the link that failed in the last half hour: 20 of one method and answer, or 5 parts answered with HTTP 408."""
    rows = conn.execute(
        "select account, method, http_code, count(*), max(line) from link_event where at > %s group by 1, 2, 3 order by 4 desc limit 50",
        (now - FAILURES_WITHIN,),
    ).fetchall()
    for account, method, code, count, line in rows:
        slow_parts = (method, code) == ("AppendDeliveryPart", 408)
        if count < (SLOW_PARTS_MANY if slow_parts else FAILURES_MANY):
            continue
        what = f"HTTP {code}" if code else "no answer"
        yield Seen(
            Severity.WARNING,
            evidence=f"{method} to {account} failed {count} times in 30 minutes: {what}. The last: {line}",
            cause="The mid or a proxy before it gives a part too little time: its database is slow, or the time-out short."
            if slow_parts
            else "The link works badly or not at all; each call is repeated with growing pauses, nothing is lost.",
            remedy="On the mid: `midsource maintenance status --role mid`; raise the read time-out of proxies to 60 s."
            if slow_parts
            else f"`midsource account test {account}` says at which step it fails.",
            subject=f"{account} {method} {code}",
        )


def switched_off(conn: Connection, _facts: Facts, _now: datetime) -> Iterator[Seen]:
    """External accounts that are switched off while deliveries use them."""
    rows = conn.execute(
        "select a.name, count(*), min(d.id) from external_account a join delivery d on d.account = a.name "
        "and d.state not in (0, 37, 85, 87, 95) where not a.active group by 1 order by 1 limit 50"
    ).fetchall()
    for name, count, first in rows:
        yield Seen(
            Severity.ERROR,
            evidence=f"The account {name} is switched off; {count} deliveries use it, the first is {first}.",
            cause="They are neither handed over nor read back until it is on again.",
            remedy="`midsource doctor --heal --only account.off` switches it on, or stop the deliveries.",
            subject=name,
            healable=True,
        )


def _silent(facts: Facts, *, refused: bool) -> list[Said]:
    return [
        said
        for said in facts.mids.values()
        if said.error is not None and isinstance(said.error, RemoteUnavailable) is not refused
    ]


CHECKS = (
    Check("mid.unreachable", unreachable, MARKETING, Severity.ERROR, ("F03", "F05", "F06", "F07", "F08"), "Test the account step by step."),
    Check("mid.refuses", refused, MARKETING, Severity.ERROR, ("F02", "F12", "F24", "F45"), "Store the right key or URL; upgrade the mid first."),
    Check("mid.dispatch", dispatch, MARKETING, Severity.ERROR, ("F78", "F83"), "Start the mta processes of that mid."),
    Check("mid.clock", clock, MARKETING, Severity.WARNING, ("F22",), "Synchronise both machines by NTP."),
    Check("mid.certificate", certificate, MARKETING, Severity.ERROR, ("F05", "F06"), "Renew the certificate of the mid's web server."),
    Check("mid.version", version, MARKETING, Severity.INFO, ("F24", "F45"), "Upgrade the mid first, then marketing."),
    Check("link.failures", failures, MARKETING, Severity.WARNING, ("F01", "F03", "F04"), "Test the account; look at the mid's database and at proxies."),
    Check("account.off", switched_off, MARKETING, Severity.ERROR, ("F09",), "Switch it on, or stop the deliveries."),
)  # fmt: skip
