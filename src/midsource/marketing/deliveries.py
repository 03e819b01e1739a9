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
from psycopg.types.json import Jsonb

from midsource.mail.content import Content
from midsource.marketing import options
from midsource.marketing.brands import get_brand, get_template
from midsource.marketing.delivery_file import Draft, read_delivery_file
from midsource.marketing.fields import all_fields
from midsource.marketing.lists import list_id
from midsource.marketing.segments import compile_condition, segment_expression
from midsource.model import ids
from midsource.model.clock import Clock
from midsource.model.delivery import TRANSITIONS, DeliveryEvent, DeliveryState, states_accepting
from midsource.model.errors import Conflict, NotFound, UserError
from midsource.store.database import Connection, scalar

PAGE_ROWS = 100


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
    version: int

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
    draft = read_delivery_file(path)
    return _insert(conn, _row_of(conn, draft), clock)


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


def _row_of(conn: Connection, draft: Draft) -> dict[str, Any]:
    """Resolve what the file leaves to brand, template and options; check what it names."""
    document = draft.document
    brand = get_brand(conn, document.brand)
    template = get_template(conn, document.template) if document.template else None
    expression = document.target.expression or ""
    if document.target.segment:
        expression = segment_expression(conn, document.target.segment)
    compile_condition(expression, all_fields(conn))
    if document.target.list:
        list_id(conn, document.target.list)
    headers = {name: value for name, value in template.headers} if template else {}  # noqa: C416 - JSON pairs are lists
    return {
        "label": document.label,
        "brand": brand.name,
        "template": document.template,
        "account": _account(conn, document.account),
        "subject": _first(document.subject, template and template.subject, ""),
        "html": _first(draft.html, template and template.html, ""),
        "text": _first(draft.text, template and template.text, ""),
        "from_name": _first(document.sender.name, brand.from_name),
        "from_address": _first(document.sender.address, brand.from_address),
        "reply_to": document.sender.reply_to or brand.reply_to,
        "headers": Jsonb([[name, value] for name, value in (headers | document.headers).items()]),
        "target_list": document.target.list,
        "target_expression": expression,
        "contact_at": document.contact_at,
        "validity_seconds": _first(
            draft.validity_seconds,
            template and template.validity_seconds,
            options.seconds(conn, "NmsBroadcast_MsgValidityDuration"),
        ),
        "retry_count": _first(
            document.retry.count, template and template.retry_count, options.integer(conn, "NmsEmail_RetryCount")
        ),
        "retry_period_seconds": _first(
            draft.retry_period_seconds,
            template and template.retry_period_seconds,
            options.seconds(conn, "NmsEmail_RetryPeriod"),
        ),
        "uncertain_policy": _first(document.uncertain, template and template.uncertain_policy, "hold"),
    }


def _insert(conn: Connection, row: dict[str, Any], clock: Clock) -> int:
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


def _account(conn: Connection, name: str | None) -> str:
    known = [
        row[0]
        for row in conn.execute("select name from external_account where active order by name limit 50").fetchall()
    ]
    listed = ", ".join(known) or "none; add one with `midsource account add`"
    if name is None:
        if len(known) == 1:
            return str(known[0])
        raise UserError("the delivery file names no account", f'write account = "NAME"; active accounts: {listed}')
    if name not in known:
        raise NotFound(f"there is no active external account {name!r}", f"accounts: {listed}")
    return name


def _first(*values: Any) -> Any:
    """Return the first value that is given (not None); what is empty on purpose counts as given."""
    return next((value for value in values if value is not None), None)
