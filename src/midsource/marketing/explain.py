"""Why: of one person, the whole story of their message; of a delivery, where its messages wait and for what.

Everything is read from rows that were written when it happened: log, totals, parts, link events, orders. A story is a
list of sentences for people and a mapping of the same facts for programs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg.rows import class_row

from midsource.marketing import deliveries, planned, recipients, reconcile_reports, samples, slow_phases, waiting
from midsource.marketing.deliveries import Delivery
from midsource.marketing.delivery_log import COLUMNS, LogEntry, reason_label
from midsource.marketing.targeting import switched_off
from midsource.model.address import AddressProblem, EmailAddress
from midsource.model.delivery import DeliveryState
from midsource.model.errors import NotFound
from midsource.model.message import MessageState, Reason
from midsource.policy import pace
from midsource.policy.checks import spoken
from midsource.policy.exclusion import ORDER, Switch
from midsource.store.database import Connection, scalar

SHOWN_EVENTS = 5


@dataclass(frozen=True, slots=True)
class Story:
    """Sentences in order, and the facts they were made of."""

    lines: tuple[str, ...]
    facts: dict[str, Any]


def explain_person(conn: Connection, delivery_id: int, email: str) -> Story:
    """Tell what became of ``delivery_id`` for everybody who has, or had, the address ``email``. Raises NotFound."""
    delivery = deliveries.get(conn, delivery_id)
    people = _people(conn, email)
    lines: list[str] = []
    facts: list[dict[str, Any]] = []
    found = _log_rows(conn, delivery_id, people, email)
    if not people and not found:
        raise NotFound(
            f"nobody has the address {email!r}, and nobody in delivery {delivery_id} had it",
            "see `midsource recipients list`, and `midsource delivery logs`",
        )
    for person in people:
        if person not in {row.recipient_id for row in found}:
            lines.append(
                f"{email} (recipient {person}) is not in the target of delivery {delivery_id}{_target_of(delivery)}."
            )
            facts.append({"recipient": person, "targeted": False})
    for row in found:
        lines.append(f"{email} (recipient {row.recipient_id}) is message {row.id} of delivery {delivery_id}.")
        lines += [*_address_then(row, email, is_theirs=row.recipient_id in people), *_fate(conn, delivery, row)]
        facts.append(_facts(row))
    return Story(tuple(lines), {"delivery": delivery_id, "people": facts})


def _facts(row: LogEntry) -> dict[str, Any]:
    return {
        "recipient": row.recipient_id, "targeted": True, "message": row.id, "state": MessageState(row.state).label,
        "reason": reason_label(row.reason), "attempts": row.attempts, "event_at": row.event_at.isoformat(),
        "reply": row.reply, "message_id": row.message_id,
    }  # fmt: skip


def explain_message(conn: Connection, delivery_id: int, number: int) -> Story:
    """Tell what became of message ``number`` of the delivery's log. Raises NotFound."""
    delivery = deliveries.get(conn, delivery_id)
    found = _rows(conn, "id = %(number)s", {"delivery": delivery_id, "number": number})
    if not found:
        raise NotFound(f"there is no message {number} in delivery {delivery_id}", "see `midsource delivery logs`")
    row = found[0]
    whose = f"recipient {row.recipient_id}" if row.recipient_id else "a person who was erased"
    lines = (f"Message {number} of delivery {delivery_id} is for {whose}.", *_fate(conn, delivery, row))
    return Story(lines, {"delivery": delivery_id, "people": [_facts(row)]})


def _people(conn: Connection, email: str) -> list[int]:
    try:
        return [person.id for person in recipients.by_email(conn, email)]
    except NotFound:
        return []


def _log_rows(conn: Connection, delivery_id: int, people: list[int], email: str) -> list[LogEntry]:
    """Return the rows of these people or, where they have none, of whoever had this address when it was prepared.

    The second reads the whole log of the delivery (half a second for a million rows), and only if anybody of that domain
    is in it.
    """
    theirs = _rows(conn, "recipient_id = any(%(people)s)", {"delivery": delivery_id, "people": people})
    if theirs:
        return theirs
    address = email.strip()
    domain = address.rpartition("@")[2].lower()
    is_there = scalar(
        conn,
        "select exists (select from broad_log_total where delivery_id = %s and domain = any(%s))",
        (delivery_id, [domain, _domain_key(address), ""]),
    )
    return (
        _rows(conn, "lower(email) = lower(%(email)s)", {"delivery": delivery_id, "email": address}) if is_there else []
    )


def _rows(conn: Connection, condition: str, params: dict[str, Any]) -> list[LogEntry]:
    with conn.cursor(row_factory=class_row(LogEntry)) as cursor:
        return cursor.execute(
            f"select {COLUMNS} from broad_log where delivery_id = %(delivery)s and {condition} order by id limit %(limit)s",  # noqa: S608 - constants
            {**params, "limit": recipients.SAME_ADDRESS},
        ).fetchall()


def _domain_key(address: str) -> str:
    try:
        return EmailAddress.parse(address).domain
    except AddressProblem:
        return ""


def _address_then(row: LogEntry, email: str, *, is_theirs: bool) -> list[str]:
    if not is_theirs:
        return ["It had this address when the delivery was prepared, and has another one now."]
    if row.email and row.email.casefold() != email.strip().casefold():
        return [f"When the delivery was prepared the address was {row.email}."]
    return []


def explain_delivery(conn: Connection, delivery_id: int, now: datetime) -> Story:
    """Tell where the messages of a delivery are, why they wait, at what rate they go, and when they will be gone."""
    delivery = deliveries.get(conn, delivery_id)
    counts = _counts(conn, delivery_id)
    state = DeliveryState(delivery.state)
    parts = waiting.parts_of(conn, [delivery_id]).get(delivery_id, (0, 0))
    whole, groups = waiting.causes(delivery, parts, now), waiting.groups(conn, delivery)
    told = pace.forecast(samples.standing(conn, delivery), now)
    lines = [f"Delivery {delivery_id} {delivery.label!r} is {state.label} ({int(state)})."]
    if delivery.error:
        lines.append(f"It failed: {delivery.error}")
    if delivery.targeted is not None:
        lines.append(f"{delivery.targeted} people targeted, {delivery.excluded} excluded{_reasons(conn, delivery_id)}.")
    lines += [waiting.said(wait) for wait in whole]
    plans = planned.read(conn, delivery, now)
    lines += plans.lines()
    lines += _link(conn, delivery)
    if counts:
        lines.append("Messages: " + ", ".join(f"{n} {MessageState(s).label}" for s, n in counts.items()) + ".")
    lines += [_group(group) for group in groups]
    if delivery.figures_at is not None and not state.is_final:
        lines.append(f"Figures as of {delivery.figures_at:%Y-%m-%d %H:%M:%S} UTC.")
    lines += [line for line in (pace.sentence(told),) if line]
    slow = slow_phases.of_delivery(conn, delivery, now)
    lines += [f"Slow: {found.sentence}." for found in slow]
    compared = reconcile_reports.latest(conn, delivery_id, 1)
    lines += [f"Compared with the mid at {r.started_at:%Y-%m-%d %H:%M:%S} UTC: {r.sentence()}." for r in compared]
    facts = {
        "delivery": delivery_id, "state": state.label, "error": delivery.error,
        "messages": {MessageState(s).label: n for s, n in counts.items()},
        "waits_for": [wait.cause.value for wait in whole],
        "waiting": [
            {"domain": group.domain, "state": group.state.label, "reason": reason_label(group.reason), "n": group.n,
             "why": group.reply, "next_at": None if group.next_at is None else group.next_at.isoformat()}
            for group in groups
        ],
        "outlook": told.outlook.value, "rate_per_second": told.rate, "eta_seconds": told.seconds,
        "unconfirmed_order": delivery.ordered if delivery.is_unconfirmed else None,
        "planned": plans.as_dict(),
        "slow_phases": [found.as_dict() for found in slow],
        "reconciled": [reconcile_reports.as_dict(report) for report in compared],
    }  # fmt: skip
    return Story(tuple(lines), facts)


def _group(group: waiting.Group) -> str:
    reason = f", {reason_label(group.reason)}" if group.reason else ""
    reply = f" ({group.reply})" if group.reply else ""
    again = "" if group.next_at is None else f", tried again from {group.next_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"{group.domain}: {group.n} {group.state.label}{reason}{reply}{again}."


def _fate(conn: Connection, delivery: Delivery, row: LogEntry) -> list[str]:
    """Tell one log row in order: excluded or not, its part, what the mid said, what comes next."""
    state, reason = MessageState(row.state), Reason(row.reason)
    at = f"{row.event_at:%Y-%m-%d %H:%M:%S} UTC"
    if state is MessageState.IGNORED and reason is Reason.REFUSED_BY_MID:
        told = f"The mid refused this row alone at {at}: {row.reply}. Nothing was sent."
        return [_part_of(conn, delivery, row.id), told]
    if state is MessageState.IGNORED:
        why = row.reply or _exclusion(reason, switched_off(conn))
        return [f"Excluded at {at}: {reason.label} ({why}). Nothing was sent."]
    lines = [_part_of(conn, delivery, row.id)]
    if row.revision == 0:
        return [*lines, *_unreported(delivery, state, at)]
    said = f": {row.reply}" if row.reply else ""
    because = f" ({reason.label})" if reason else ""
    lines.append(f"{state.label.capitalize()}{because} after {_attempts(row.attempts)}, {at}{said}")
    if state is MessageState.DEFERRED:
        lines += _next_try(delivery, row)
    if state is MessageState.UNCERTAIN:
        lines.append(
            f"The body went out and no reply was recorded; the delivery's policy is {delivery.uncertain_policy}."
        )
    if row.message_id:
        lines.append(f"Message-ID {row.message_id}.")
    return lines


def _unreported(delivery: Delivery, state: MessageState, at: str) -> list[str]:
    """Tell a message of which the mid has said nothing: why it still waits, or how it ended on this side."""
    if state is MessageState.CANCELLED:
        return [f"Cancelled at {at}: the delivery was stopped before the mid sent it. Nothing was sent."]
    if state is MessageState.UNCERTAIN:
        return [f"Uncertain since {at}: the mid had taken it and no longer knows the delivery; it may have been sent."]
    now = DeliveryState(delivery.state)
    waits = "" if now.sends else f"; the delivery is {now.label}"
    lines = [f"The mid has reported nothing about it yet{waits}."]
    if delivery.contact_at is not None and delivery.started_at is None:
        lines.append(f"Its contact date is {delivery.contact_at:%Y-%m-%d %H:%M:%S} UTC.")
    if delivery.is_unconfirmed:
        lines.append(f"The order to {delivery.ordered} is not confirmed by {delivery.account} yet.")
    elif now is DeliveryState.READY:
        lines.append("Nobody has ordered to send it.")
    return lines


def _next_try(delivery: Delivery, row: LogEntry) -> list[str]:
    """Tell when a deferred message is tried again, as far as the ladder says it here (the mid adds up to a tenth)."""
    due = row.event_at + timedelta(seconds=delivery.retry_period_seconds)
    if not DeliveryState(delivery.state).sends:
        return [f"It is not tried again while the delivery is {DeliveryState(delivery.state).label}."]
    end = "" if delivery.started_at is None else (
        f", which is {delivery.started_at + timedelta(seconds=delivery.validity_seconds):%Y-%m-%d %H:%M:%S} UTC"
    )  # fmt: skip
    return [
        f"Retry {row.attempts} of {delivery.retry_count} comes not before {due:%Y-%m-%d %H:%M:%S} UTC.",
        f"It is tried again until the validity of {spoken(delivery.validity_seconds)} is over{end}.",
    ]


def _exclusion(reason: Reason, off: tuple[Switch, ...]) -> str:
    """Return the words of the rules that give this reason."""
    return " or ".join(rule.why for rule in ORDER if rule.reason is reason and rule.switch not in off) or reason.label


def _part_of(conn: Connection, delivery: Delivery, log_id: int) -> str:
    row = conn.execute(
        "select part, state, attempts, acknowledged_at from upload_part where delivery_id = %s "
        "and %s between first_id and last_id and state <> 'split' order by position limit 1",
        (delivery.id, log_id),
    ).fetchone()
    if row is None:
        return f"It is in no delivery part yet: the delivery is {DeliveryState(delivery.state).label}."
    part, state, attempts, acknowledged_at = row
    if state == "acknowledged":
        return f"Part {part} was taken by {delivery.account} at {acknowledged_at:%Y-%m-%d %H:%M:%S} UTC."
    return f"Part {part} is stored and not yet taken by {delivery.account} ({_attempts(attempts)})."


def _attempts(n: int) -> str:
    return f"{n} attempt{'' if n == 1 else 's'}"


def _target_of(delivery: Delivery) -> str:
    words = [f" list {delivery.target_list!r}" if delivery.target_list else ""]
    words.append(f" condition {delivery.target_expression!r}" if delivery.target_expression else "")
    chosen = " and".join(word for word in words if word)
    return f" (its target:{chosen})" if chosen else ""


def _link(conn: Connection, delivery: Delivery) -> list[str]:
    """Tell the problem of the link, and the last failures about this delivery."""
    lines = []
    problem = scalar(conn, "select last_problem from external_account where name = %s", (delivery.account,))
    if problem:
        lines.append(f"The link to {delivery.account} fails: {problem}")
    events = conn.execute(
        "select at, line from link_event where delivery_id = %s order by id desc limit %s", (delivery.id, SHOWN_EVENTS)
    ).fetchall()
    return [*lines, *(f"{at:%Y-%m-%d %H:%M:%S} UTC {line}" for at, line in reversed(events))]


def _counts(conn: Connection, delivery_id: int) -> dict[int, int]:
    rows = conn.execute(
        "select state, sum(n)::bigint from broad_log_total where delivery_id = %s group by state having sum(n) <> 0 order by state",
        (delivery_id,),
    ).fetchall()
    return {row[0]: row[1] for row in rows}


def _reasons(conn: Connection, delivery_id: int) -> str:
    rows = conn.execute(
        "select reason, sum(n)::bigint from broad_log_total where delivery_id = %s and state = %s "
        "group by reason having sum(n) <> 0 order by 2 desc",
        (delivery_id, int(MessageState.IGNORED)),
    ).fetchall()
    return " (" + ", ".join(f"{n} {Reason(reason).label}" for reason, n in rows) + ")" if rows else ""
