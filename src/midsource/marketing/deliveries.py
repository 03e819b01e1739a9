"""Deliveries on the marketing side: made from a file, shown, listed, moved from state to state.

A state changes only by ``transition``: one conditional update, the table of `model.delivery` in its WHERE. Whoever finds
no row was too late and hears the present state. ``version`` grows with every change, so a job that has read a delivery
can tell whether it still is what it read.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from psycopg import sql
from psycopg.rows import class_row

from midsource.mail.content import Content
from midsource.marketing import inheriting
from midsource.marketing.delivery_file import Draft, read_delivery_file
from midsource.model import ids
from midsource.model.clock import Clock
from midsource.model.delivery import TRANSITIONS, DeliveryEvent, DeliveryState, states_accepting
from midsource.model.errors import Conflict, NotFound
from midsource.policy.waves import Waves
from midsource.store.database import Connection, scalar

PAGE_ROWS = 100
EDITABLE = (DeliveryState.EDITED, DeliveryState.PREPARATION_FAILED)
"""What is written into it may change: nothing of it has been stored for the mid."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery, as its row has it. Times are aware and in UTC; None: not yet."""

    id: int
    label: str
    state: int
    brand: str
    template: str | None
    account: str
    subject: str
    html: str
    text: str
    from_name: str
    from_address: str
    reply_to: str | None
    headers: list[list[str]]
    target_list: str | None
    target_expression: str
    contact_at: datetime | None
    validity_seconds: int
    retry_count: int
    retry_period_seconds: int
    uncertain_policy: str
    created_at: datetime
    modified_at: datetime
    confirmed_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    targeted: int | None
    excluded: int | None
    to_deliver: int | None
    handed_over: int | None
    refused: int | None
    findings: list[dict[str, str]]
    phases: list[dict[str, Any]]
    error: str
    ordered: str | None
    ordered_at: datetime | None
    order_confirmed_at: datetime | None
    figures: dict[str, int]
    figures_at: datetime | None
    mid_revision: int
    message_key: str
    log_dropped_at: datetime | None
    version: int
    proof_of: int | None
    proof_number: int
    proof_people: list[int]
    proof_seeds: list[str]
    wave_percent: int | None
    wave_messages: int | None
    wave_period_seconds: int
    recurrence: str
    recurrence_zone: str
    recurrence_open: int
    recurrence_until: datetime | None
    recurrence_next_at: datetime | None
    made_of: int | None
    made_for: datetime | None

    @property
    def waves(self) -> Waves | None:
        """How its messages are cut into waves; None: they are all ready at once."""
        if not self.wave_period_seconds:
            return None
        return Waves(self.wave_percent, self.wave_messages, self.wave_period_seconds)

    @property
    def content(self) -> Content:
        """What its messages are rendered from."""
        return Content(
            subject=self.subject, html=self.html, text=self.text, from_name=self.from_name,
            from_address=self.from_address, reply_to=self.reply_to,
            headers=tuple((name, value) for name, value in self.headers),
        )  # fmt: skip

    @property
    def is_unconfirmed(self) -> bool:
        """Whether the last order has not reached the mid yet."""
        return self.ordered is not None and self.order_confirmed_at is None


_COLUMNS = sql.SQL(", ").join(sql.Identifier(field.name) for field in fields(Delivery))


def create_from_toml(conn: Connection, path: Path, clock: Clock) -> int:
    """Make a delivery from a file and return its id. Raises ConfigError with every problem, NotFound, UserError."""
    return create(conn, read_delivery_file(path), clock)


def create(conn: Connection, draft: Draft, clock: Clock) -> int:
    """Make a delivery and return its id. Raises NotFound, UserError where ``draft`` names what does not exist."""
    return insert(conn, inheriting.row_of(conn, draft), clock)


def change(conn: Connection, delivery_id: int, draft: Draft, version: int) -> None:
    """Replace what an operator wrote, while it is edited or its preparation failed; what is left out is inherited anew.

    Raises Conflict in any other state, and where somebody changed it since ``version`` was read; else as ``create``.
    """
    delivery = get(conn, delivery_id, lock=True)
    state = DeliveryState(delivery.state)
    if state not in EDITABLE or delivery.proof_of is not None or delivery.confirmed_at is not None:
        why = "a proof" if delivery.proof_of is not None else state.label if state not in EDITABLE else "to be sent"
        raise Conflict(f"delivery {delivery_id} is {why}: it cannot be edited any more", "create another")
    if delivery.version != version:
        raise Conflict(
            f"delivery {delivery_id} was changed by somebody else meanwhile",
            "look at it again, then repeat your change",
        )
    row = inheriting.row_of(conn, draft)
    for section, given in (("wave_", draft.document.wave), ("recurrence", draft.document.recurrence)):
        if given is None:  # the console's form has no fields for them
            row = {name: value for name, value in row.items() if not name.startswith(section)}
    conn.execute(
        sql.SQL("update delivery set {}, version = version + 1, modified_at = now() where id = %(id)s").format(
            sql.SQL(", ").join(sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in row)
        ),
        {**row, "id": delivery_id},
    )


def get(conn: Connection, delivery_id: int, *, lock: bool = False) -> Delivery:
    """Return the delivery, with ``lock`` held against other writers until the transaction ends; raises NotFound."""
    statement = sql.SQL("select {} from delivery where id = %s {}").format(
        _COLUMNS, sql.SQL("for update" if lock else "")
    )
    with conn.cursor(row_factory=class_row(Delivery)) as cursor:
        found = cursor.execute(statement, (delivery_id,)).fetchone()
    if found is None:
        recent = ", ".join(str(delivery.id) for delivery in latest(conn, limit=5)) or "none"
        raise NotFound(
            f"there is no delivery {delivery_id}", f"latest deliveries: {recent}; see `midsource delivery list`"
        )
    return found


def latest(conn: Connection, *, before: int | None = None, limit: int = PAGE_ROWS) -> list[Delivery]:
    """Return deliveries, newest first; ``before`` is the id that ended the page before."""
    statement = sql.SQL(
        "select {} from delivery where %(before)s::bigint is null or id < %(before)s order by id desc limit %(limit)s"
    )
    with conn.cursor(row_factory=class_row(Delivery)) as cursor:
        return cursor.execute(statement.format(_COLUMNS), {"before": before, "limit": min(limit, PAGE_ROWS)}).fetchall()


def transition(conn: Connection, delivery_id: int, event: DeliveryEvent) -> DeliveryState:
    """Move the delivery by ``event`` and return its new state. Raises Conflict where the state refuses it, NotFound."""
    moves = sql.SQL(" ").join(
        sql.SQL("when {} then {}").format(sql.Literal(int(state)), sql.Literal(int(TRANSITIONS[state][event])))
        for state in states_accepting(event)
    )
    row = conn.execute(
        sql.SQL(
            "update delivery set state = case state {} end, version = version + 1, modified_at = now() "
            "where id = %s and state = any(%s) returning state"
        ).format(moves),
        (delivery_id, [int(state) for state in states_accepting(event)]),
    ).fetchone()
    if row is not None:
        return DeliveryState(row[0])
    state = DeliveryState(get(conn, delivery_id).state)
    allowed = ", ".join(accepting.label for accepting in states_accepting(event))
    raise Conflict(
        f"delivery {delivery_id} is {state.label} ({int(state)}): {event.value.replace('_', ' ')} is not possible",
        f"it is in these states: {allowed}",
    )


def start_preparation(conn: Connection, delivery_id: int) -> None:
    """Make the delivery ready for a (new) preparation: what an earlier one left is removed. Enqueue ``prepare`` then.

    Raises Conflict once the mid has taken a part of it: what it holds cannot be taken back, a copy can be made.
    """
    get(conn, delivery_id, lock=True)
    taken = scalar(
        conn, "select count(*) from upload_part where delivery_id = %s and state = 'acknowledged'", (delivery_id,)
    )
    if taken:
        raise Conflict(
            f"the mid already holds {taken} parts of delivery {delivery_id}",
            "let it finish or stop it, and create another",
        )
    transition(conn, delivery_id, DeliveryEvent.PREPARE)
    for table in ("upload_part", "broad_log_total", "broad_log"):
        conn.execute(sql.SQL("delete from {} where delivery_id = %s").format(sql.Identifier(table)), (delivery_id,))
    conn.execute(
        "update delivery set targeted = null, excluded = null, to_deliver = null, handed_over = null, refused = null, "
        "findings = '[]', phases = '[]', error = '' where id = %s",
        (delivery_id,),
    )


def insert(conn: Connection, row: dict[str, Any], clock: Clock) -> int:
    """Store a new delivery of these columns under a new id, which is returned."""
    now = clock.now()
    serial = scalar(conn, "select nextval('delivery_serial')")
    row = {"id": ids.delivery_id(now, serial), "created_at": now, "modified_at": now, **row}
    conn.execute("select ensure_month('broad_log', %s)", (int(str(ids.Month.of(now))),))
    conn.execute(
        sql.SQL("insert into delivery ({}) values ({})").format(
            sql.SQL(", ").join(map(sql.Identifier, row)), sql.SQL(", ").join(map(sql.Placeholder, row))
        ),
        row,
    )
    return int(row["id"])
