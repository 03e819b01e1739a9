"""Queries of the page of one recipient: what is known, lists, what keeps messages away, latest deliveries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from midsource.marketing import fields, recipients
from midsource.marketing.delivery_log import KNOWN_REASONS
from midsource.marketing.fields import FieldType
from midsource.marketing.recipients import Recipient
from midsource.model.message import MessageState, Reason
from midsource.store.database import Connection, scalar

DELIVERIES = 20


@dataclass(frozen=True, slots=True)
class Quarantine:
    """What is held against the address: 1 some errors, 3 in quarantine, 4 denylisted."""

    state: int
    reason: Reason
    errors: int
    since: datetime
    text: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """This person in one delivery. ``is_proof``: the message went to a seed address."""

    delivery: int
    label: str
    state: MessageState
    reason: Reason
    event_at: datetime
    is_proof: bool


@dataclass(frozen=True, slots=True)
class PersonStory:
    """Everything on the page."""

    person: Recipient
    own: Mapping[str, FieldType]
    lists: Sequence[tuple[int, str]]
    quarantine: Quarantine | None
    denylisted: str | None
    outcomes: Sequence[Outcome]


def reason_of(number: int) -> Reason:
    """Return the reason; one of a newer mid, which this version does not know, is none of ours."""
    return Reason(number) if number in KNOWN_REASONS else Reason.NONE


def story(conn: Connection, recipient_id: int) -> PersonStory:
    """Read one person; raises NotFound."""
    person = recipients.by_id(conn, recipient_id)
    key = scalar(conn, "select coalesce(email_key, '') from recipient where id = %s", (recipient_id,))
    row = conn.execute(
        "select state, reason, errors, since, text from quarantine where address_key = %s", (key,)
    ).fetchone()
    quarantine = None if row is None else Quarantine(row[0], reason_of(row[1]), *row[2:])
    denylisted = scalar(
        conn, "select entry from denylist where entry = any(%s) limit 1", ([key, f"@{key.rpartition('@')[2]}"],)
    )
    lists = conn.execute(
        "select l.id, l.name from list_member m join recipient_list l on l.id = m.list_id where m.recipient_id = %s "
        "order by l.name limit 100",
        (recipient_id,),
    ).fetchall()
    return PersonStory(
        person,
        fields.own_fields(conn),
        [(row[0], row[1]) for row in lists],
        quarantine,
        denylisted,
        _outcomes(conn, recipient_id),
    )


def _outcomes(conn: Connection, recipient_id: int) -> list[Outcome]:
    rows = conn.execute(
        "select l.delivery_id, d.label, l.state, l.reason, l.event_at, d.proof_of is not null from broad_log l "
        "join delivery d on d.id = l.delivery_id where l.recipient_id = %s order by l.delivery_id desc limit %s",
        (recipient_id, DELIVERIES),
    ).fetchall()
    return [Outcome(row[0], row[1], MessageState(row[2]), reason_of(row[3]), row[4], row[5]) for row in rows]
