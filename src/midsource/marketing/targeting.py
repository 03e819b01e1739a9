"""Who gets a delivery: one statement that writes every targeted person's log row, excluded ones with their reason.

``INSERT … SELECT`` over list and condition numbers people densely from 1 (ranges of that id are parts and pages), decides
each exclusion by the CASE generated from `policy.exclusion`, and counts by what that very statement wrote. So
``targeted = to_deliver + excluded`` is a fact of the statement, checked again here before it commits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from psycopg import sql

from midsource.marketing import options
from midsource.marketing.deliveries import Delivery
from midsource.marketing.fields import all_fields
from midsource.marketing.lists import list_id
from midsource.marketing.segments import compile_condition
from midsource.model.errors import Bug
from midsource.model.ids import Month
from midsource.model.message import MessageState, Reason
from midsource.policy.exclusion import Fact, Switch, applicable
from midsource.store.database import Connection

STATEMENT_SECONDS = 600
"""A million people take about 10 s; this is for ten times that on a busy disk."""

_FACTS: Mapping[Fact, str] = {
    Fact.NO_ADDRESS: "r.email is null",
    Fact.UNMAILABLE: "(r.address_problem <> '' or r.email_key is null)",
    Fact.DENYLISTED: "(da.entry is not null or dd.entry is not null or q.state = 4)",
    Fact.OPTED_OUT: "r.opted_out",
    Fact.QUARANTINED: "q.state = 3",
}
"""Each fact as SQL over ``_PERSON``; DUPLICATE is decided among those whom nothing else excludes."""
_PERSON = """
    recipient r
    left join quarantine q on q.address_key = r.email_key
    left join denylist da on da.entry = r.email_key
    left join denylist dd on dd.entry = '@' || r.domain
"""


@dataclass(frozen=True, slots=True)
class Targeted:
    """What the statement wrote."""

    targeted: int
    to_deliver: int
    excluded: Mapping[Reason, int]


def switched_off(conn: Connection) -> tuple[Switch, ...]:
    """Return the exclusions this instance has switched off by option."""
    return tuple(switch for switch in Switch if options.get_value(conn, switch.value) == "0")


def target(conn: Connection, delivery: Delivery, now: datetime) -> Targeted:
    """Write the log rows and totals of ``delivery``, which has none yet. Durable with the caller's transaction."""
    conn.execute(f"set local statement_timeout = '{STATEMENT_SECONDS}s'")
    conn.execute("select ensure_month('broad_log', %s)", (int(str(Month.of_delivery(delivery.id))),))  # of an old draft
    condition = compile_condition(delivery.target_expression, all_fields(conn))
    members_of = None if delivery.target_list is None else list_id(conn, delivery.target_list)
    rows = conn.execute(
        _statement(condition.where, switched_off(conn), with_list=members_of is not None),
        {"delivery": delivery.id, "list": members_of, "now": now, **condition.params},
    ).fetchall()
    excluded: dict[Reason, int] = {}
    to_deliver = 0
    for state, reason, n in rows:
        if state == MessageState.PENDING:
            to_deliver += n
        else:
            excluded[Reason(reason)] = excluded.get(Reason(reason), 0) + n
    targeted = to_deliver + sum(excluded.values())
    written = conn.execute(
        "select count(*), coalesce(max(id), 0) from broad_log where delivery_id = %s", (delivery.id,)
    ).fetchone()
    if written != (targeted, targeted):
        raise Bug(f"delivery {delivery.id}: the log has {written} rows and ids, the target {targeted}")
    return Targeted(targeted, to_deliver, excluded)


def _statement(where: sql.Composed, off: Collection[Switch], *, with_list: bool) -> sql.Composed:
    rules = applicable(off)
    cases = sql.SQL(" ").join(
        sql.SQL("when {} then {}").format(sql.SQL(_FACTS[rule.fact]), sql.Literal(int(rule.reason)))
        for rule in rules
        if rule.fact is not Fact.DUPLICATE
    )
    duplicate = (
        "reason = 0 and row_number() over (partition by email_key, reason order by recipient_id) > 1"
        if any(rule.fact is Fact.DUPLICATE for rule in rules)
        else "false"
    )
    member = "join list_member m on m.recipient_id = r.id and m.list_id = %(list)s" if with_list else ""
    return sql.SQL(
        """
        with person as (
            select r.id as recipient_id, coalesce(r.email, '') as email, r.email_key, coalesce(r.domain, '') as domain,
                   case {cases} else 0 end as reason
            from {person} {member}
            where {where}
        ), judged as (
            select row_number() over (order by recipient_id) as id, recipient_id, email, domain,
                   case when {duplicate} then {duplicate_reason} else reason end as reason
            from person
        ), written as (
            insert into broad_log (delivery_id, id, recipient_id, email, domain, state, reason, event_at)
            select %(delivery)s, id, recipient_id, email, domain,
                   case when reason = 0 then {pending} else {ignored} end, reason, %(now)s
            from judged
            returning domain, state, reason
        )
        insert into broad_log_total (delivery_id, domain, state, reason, n)
        select %(delivery)s, domain, state, reason, count(*) from written group by domain, state, reason
        returning state, reason, n
        """
    ).format(
        cases=cases,
        person=sql.SQL(_PERSON),
        member=sql.SQL(member),
        where=where,
        duplicate=sql.SQL(duplicate),
        duplicate_reason=sql.Literal(int(Reason.DUPLICATE)),
        pending=sql.Literal(int(MessageState.PENDING)),
        ignored=sql.Literal(int(MessageState.IGNORED)),
    )
