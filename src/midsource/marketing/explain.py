"""Why: of one person, the whole story of their message; of a delivery, where its messages wait and for what.

Everything is read from rows that were written when it happened: log, totals, parts, link events, orders. A story is a
list of sentences for people and a mapping of the same facts for programs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from midsource.marketing import deliveries, recipients
from midsource.marketing.deliveries import Delivery
from midsource.marketing.targeting import switched_off
from midsource.model.delivery import DeliveryState
from midsource.model.message import MessageState, Reason
from midsource.policy.checks import spoken
from midsource.policy.exclusion import ORDER, Switch
from midsource.store.database import Connection, scalar

SHOWN_DOMAINS = 15
SHOWN_EVENTS = 5
WAITING = (MessageState.PENDING, MessageState.DEFERRED, MessageState.UNCERTAIN)


@dataclass(frozen=True, slots=True)
class Story:
    """Sentences in order, and the facts they were made of."""

    lines: tuple[str, ...]
    facts: dict[str, Any]


def explain_person(conn: Connection, delivery_id: int, email: str) -> Story:
    """Tell what became of ``delivery_id`` for everybody who has ``email``. Raises NotFound."""
    delivery = deliveries.get(conn, delivery_id)
    people = recipients.by_email(conn, email)
    lines: list[str] = []
    facts: list[dict[str, Any]] = []
    for person in people:
        row = conn.execute(
            "select id, state, reason, attempts, revision, event_at, reply, message_id from broad_log "
            "where delivery_id = %s and recipient_id = %s order by id",
            (delivery_id, person.id),
        ).fetchone()
        who = f"{email} (recipient {person.id})"
        if row is None:
            lines.append(f"{who} is not in the target of delivery {delivery_id}{_target_of(delivery)}.")
            facts.append({"recipient": person.id, "targeted": False})
            continue
        lines += [f"{who} is message {row[0]} of delivery {delivery_id}.", *_fate(conn, delivery, row)]
        facts.append({
            "recipient": person.id, "targeted": True, "message": row[0], "state": MessageState(row[1]).label,
            "reason": Reason(row[2]).label, "attempts": row[3], "event_at": row[5].isoformat(), "reply": row[6],
            "message_id": row[7],
        })  # fmt: skip
    return Story(tuple(lines), {"delivery": delivery_id, "people": facts})


def explain_delivery(conn: Connection, delivery_id: int, now: datetime) -> Story:
    """Tell where the messages of a delivery are, why they wait, at what rate they go, and when they will be gone."""
    delivery = deliveries.get(conn, delivery_id)
    counts = _counts(conn, delivery_id)
    waiting = _waiting_by_domain(conn, delivery_id)
    state = DeliveryState(delivery.state)
    lines = [f"Delivery {delivery_id} {delivery.label!r} is {state.label} ({int(state)})."]
    if delivery.error:
        lines.append(f"It failed: {delivery.error}")
    if delivery.targeted is not None:
        lines.append(f"{delivery.targeted} people targeted, {delivery.excluded} excluded{_reasons(conn, delivery_id)}.")
    lines += _link(conn, delivery)
    if counts:
        lines.append("Messages: " + ", ".join(f"{n} {MessageState(s).label}" for s, n in counts.items()) + ".")
    lines += [f"{domain}: {n} {MessageState(s).label}{f' ({why})' if why else ''}." for domain, s, n, why in waiting]
    rate, eta = _pace(delivery, counts, now)
    if rate is not None and eta is not None:
        lines.append(f"About {rate:.0f} messages a second; done in about {spoken(eta)}.")
    facts = {
        "delivery": delivery_id, "state": state.label, "error": delivery.error,
        "messages": {MessageState(s).label: n for s, n in counts.items()},
        "waiting": [{"domain": d, "state": MessageState(s).label, "n": n, "why": why} for d, s, n, why in waiting],
        "rate_per_second": rate, "eta_seconds": eta, "unconfirmed_order": delivery.ordered if delivery.is_unconfirmed else None,
    }  # fmt: skip
    return Story(tuple(lines), facts)


def _fate(conn: Connection, delivery: Delivery, row: tuple[Any, ...]) -> list[str]:
    """Tell one log row: excluded, not handed over yet, or what the mid last said."""
    log_id, number, reason, attempts, revision, event_at, reply, message_id = row
    state = MessageState(number)
    if state is MessageState.IGNORED:
        why = reply or _exclusion(Reason(reason), switched_off(conn))
        return [f"Excluded at {event_at:%Y-%m-%d %H:%M:%S} UTC: {Reason(reason).label} ({why}). Nothing was sent."]
    lines = [_part_of(conn, delivery, log_id)]
    if revision == 0:
        waits = (
            "" if DeliveryState(delivery.state).sends else f"; the delivery is {DeliveryState(delivery.state).label}"
        )
        return [*lines, f"The mid has reported nothing about it yet{waits}."]
    said = f": {reply}" if reply else ""
    because = f" ({Reason(reason).label})" if reason else ""
    lines.append(
        f"{state.label.capitalize()}{because} after {attempts} attempts, {event_at:%Y-%m-%d %H:%M:%S} UTC{said}"
    )
    if state is MessageState.DEFERRED:
        lines.append(f"It is tried again until the validity of {spoken(delivery.validity_seconds)} is over.")
    if state is MessageState.UNCERTAIN:
        lines.append(
            f"The body went out and no reply was recorded; the delivery's policy is {delivery.uncertain_policy}."
        )
    if message_id:
        lines.append(f"Message-ID {message_id}.")
    return lines


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
    return f"Part {part} is stored and not yet taken by {delivery.account} ({attempts} attempts)."


def _target_of(delivery: Delivery) -> str:
    words = [f" list {delivery.target_list!r}" if delivery.target_list else ""]
    words.append(f" condition {delivery.target_expression!r}" if delivery.target_expression else "")
    chosen = " and".join(word for word in words if word)
    return f" (its target:{chosen})" if chosen else ""


def _link(conn: Connection, delivery: Delivery) -> list[str]:
    """Tell what waits on this side of the link, the order under way, and the last failures."""
    row = conn.execute(
        "select count(*), count(*) filter (where state = 'acknowledged'), max(attempts) from upload_part "
        "where delivery_id = %s and state <> 'split'",
        (delivery.id,),
    ).fetchone()
    lines = []
    if row is not None and row[0] > row[1]:
        lines.append(f"{row[0] - row[1]} of {row[0]} parts are not yet taken by {delivery.account}.")
    if delivery.is_unconfirmed:
        lines.append(
            f"The order to {delivery.ordered} is not confirmed by {delivery.account}: the link is tried again."
        )
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


def _waiting_by_domain(conn: Connection, delivery_id: int) -> list[tuple[str, int, int, str]]:
    """Return (domain, state, messages, what the domain last answered one of them), the largest first."""
    rows = conn.execute(
        """
        select t.domain, t.state, t.n, coalesce((
            select l.reply from broad_log l
            where l.delivery_id = %(delivery)s and l.domain = t.domain and l.state = t.state and l.reply <> '' limit 1), '')
        from (select domain, state, sum(n)::bigint as n from broad_log_total
              where delivery_id = %(delivery)s and state = any(%(waiting)s)
              group by domain, state having sum(n) > 0 order by 3 desc, domain, state limit %(limit)s) t
        """,
        {"delivery": delivery_id, "waiting": [int(state) for state in WAITING], "limit": SHOWN_DOMAINS},
    ).fetchall()
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def _pace(delivery: Delivery, counts: dict[int, int], now: datetime) -> tuple[float | None, float | None]:
    """Return (messages a second since the start, seconds until none waits), where both can be said."""
    if delivery.started_at is None or delivery.finished_at is not None:
        return None, None
    done = sum(n for s, n in counts.items() if MessageState(s).is_final and s != MessageState.IGNORED)
    seconds = ((delivery.figures_at or now) - delivery.started_at).total_seconds()
    if done == 0 or seconds <= 0:
        return None, None
    rate = done / seconds
    return rate, sum(counts.get(s, 0) for s in WAITING) / rate
