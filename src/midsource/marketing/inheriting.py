"""What a delivery takes from where: its document first, then the template, the brand and the options of the instance."""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb

from midsource.marketing import options
from midsource.marketing.brands import get_brand
from midsource.marketing.delivery_file import Draft
from midsource.marketing.fields import all_fields
from midsource.marketing.lists import list_id
from midsource.marketing.segments import compile_condition, segment_expression
from midsource.marketing.templates import get_template
from midsource.model.errors import NotFound, UserError
from midsource.store.database import Connection

ACCOUNTS_NAMED = 50


def row_of(conn: Connection, draft: Draft) -> dict[str, Any]:
    """Return the columns of ``delivery`` that ``draft`` decides. Raises NotFound, UserError, ExpressionProblem."""
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
        "wave_percent": draft.waves and draft.waves.percent,
        "wave_messages": draft.waves and draft.waves.messages,
        "wave_period_seconds": draft.waves.period_seconds if draft.waves else 0,
        "recurrence": document.recurrence.schedule if document.recurrence else "",
        "recurrence_zone": document.recurrence.zone if document.recurrence else "UTC",
        "recurrence_open": document.recurrence.open if document.recurrence else 1,
        "recurrence_until": document.recurrence.until if document.recurrence else None,
        "uncertain_policy": _first(document.uncertain, template and template.uncertain_policy, "hold"),
    }


def _account(conn: Connection, name: str | None) -> str:
    known = [
        row[0]
        for row in conn.execute(
            "select name from external_account where active order by name limit %s", (ACCOUNTS_NAMED,)
        ).fetchall()
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
