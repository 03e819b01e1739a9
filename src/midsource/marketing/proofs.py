"""Proofs (the field: BAT): the messages of chosen people, sent to seed addresses, before a delivery goes to its target.

A proof is a delivery of its own (``proof_of``, numbered from 1) that goes the whole way: preparation, parts, mid, SMTP.
It takes the content as it stands when the proof is asked for, its subject begins with ``[proof N]``, and it is sent at
once. Each chosen person's message goes to each seed address: the log row carries the seed's address and the person's
number, so data come from the person and the envelope from the seed. Nothing of it counts in the delivery it was made of,
and no address but a seed address is ever in it.

Limits: MAX_MESSAGES messages; a proof of a proof is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from midsource.marketing import deliveries, orders, recipients, seeds
from midsource.marketing.deliveries import Delivery
from midsource.marketing.fields import all_fields
from midsource.marketing.lists import list_id
from midsource.marketing.segments import compile_condition
from midsource.marketing.targeting import Targeted
from midsource.model.address import AddressProblem, EmailAddress
from midsource.model.clock import Clock
from midsource.model.errors import Bug, Conflict, NotFound, UserError
from midsource.model.message import MessageState, Reason
from midsource.store.database import Connection, scalar

MAX_MESSAGES = 100
"""People times seeds: the field's control rule refuses a larger proof, which would be a delivery nobody approved."""
VALIDITY_SECONDS = 86_400
"""A proof that could not be delivered within a day is of no use."""
SHOWN = 50
_COPIED = (
    "brand", "template", "account", "html", "text", "from_name", "from_address", "reply_to",
    "retry_count", "retry_period_seconds", "uncertain_policy",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Proof:
    """One proof of a delivery as its page lists it."""

    id: int
    number: int
    state: int
    created_at: datetime
    people: int
    seeds: list[str]
    figures: dict[str, int]
    error: str


def send_proof(
    conn: Connection, delivery_id: int, *, people: Sequence[int], to: Sequence[str], by: str, clock: Clock
) -> int:
    """Make the next proof of a delivery and order it sent; return its id.

    ``people``: recipient ids, none: the first of the target. ``to``: seed addresses, none: all. Raises NotFound, UserError,
    Conflict for a proof of a proof or a seed that is the chosen person's own address.
    """
    delivery = deliveries.get(conn, delivery_id, lock=True)  # held: numbers are given one after another
    if delivery.proof_of is not None:
        raise Conflict(f"delivery {delivery_id} is a proof itself", f"make one of delivery {delivery.proof_of}")
    chosen = _people(conn, delivery, people)
    addresses = _seeds(conn, to)
    if len(chosen) * len(addresses) > MAX_MESSAGES:
        raise UserError(
            f"{len(chosen)} people and {len(addresses)} seed addresses make {len(chosen) * len(addresses)} messages",
            f"a proof has at most {MAX_MESSAGES}: choose fewer",
        )
    _refuse_own_addresses(conn, chosen, addresses)
    last = scalar(conn, "select coalesce(max(proof_number), 0) from delivery where proof_of = %s", (delivery_id,))
    number = int(last) + 1
    row: dict[str, Any] = {name: getattr(delivery, name) for name in _COPIED}
    row |= {
        "label": f"[proof {number}] {delivery.label}"[:200],
        "subject": f"[proof {number}] {delivery.subject}",
        "headers": Jsonb(delivery.headers),
        "validity_seconds": min(delivery.validity_seconds, VALIDITY_SECONDS),
        "proof_of": delivery_id,
        "proof_number": number,
        "proof_people": chosen,
        "proof_seeds": addresses,
    }
    made = deliveries.insert(conn, row, clock)
    orders.order(conn, made, "start", by, clock.now())
    return made


def proofs_of(conn: Connection, delivery_id: int) -> list[Proof]:
    """Return the proofs of a delivery, newest first, at most SHOWN."""
    rows = conn.execute(
        "select id, proof_number, state, created_at, cardinality(proof_people), proof_seeds, figures, error "
        "from delivery where proof_of = %s order by proof_number desc limit %s",
        (delivery_id, SHOWN),
    ).fetchall()
    return [Proof(*row) for row in rows]


def first_of_target(conn: Connection, delivery: Delivery, *, among: int | None = None) -> int | None:
    """Return the first person of a delivery's target that has an address, None where there is nobody.

    ``among``: looked for among so many people only, for a page that must not read a million for somebody rare.
    """
    condition = compile_condition(delivery.target_expression, all_fields(conn))
    member = sql.SQL("")
    if delivery.target_list is not None:
        member = sql.SQL("join list_member m on m.recipient_id = r.id and m.list_id = %(list)s")
    params = {"list": list_id(conn, delivery.target_list) if delivery.target_list else None, **condition.params}
    found = scalar(
        conn,
        sql.SQL("select r.id from {} r {} where r.email_key is not null and {} order by r.id limit 1").format(
            _people_among(among), member, condition.where
        ),
        params,
    )
    return None if found is None else int(found)


def target(conn: Connection, delivery: Delivery, now: datetime) -> Targeted:
    """Write the log rows and totals of a proof, as `targeting.target` does for others. Durable with the caller's transaction.

    A seed address that is in quarantine or on the denylist is excluded with that reason; what would exclude the person
    (opted out, in quarantine) does not: nothing is sent to the person.
    """
    rows = conn.execute(
        _TARGET,
        {
            "delivery": delivery.id, "people": delivery.proof_people, "seeds": delivery.proof_seeds, "now": now,
            "denylisted": int(Reason.DENYLISTED), "quarantined": int(Reason.QUARANTINED),
            "pending": int(MessageState.PENDING), "ignored": int(MessageState.IGNORED),
        },
    ).fetchall()  # fmt: skip
    excluded: dict[Reason, int] = {}
    to_deliver = 0
    for state, reason, n in rows:
        if state == MessageState.PENDING:
            to_deliver += n
        else:
            excluded[Reason(reason)] = excluded.get(Reason(reason), 0) + n
    targeted = to_deliver + sum(excluded.values())
    if targeted > MAX_MESSAGES:
        raise Bug(f"proof {delivery.id} has {targeted} messages", "report it")
    return Targeted(targeted, to_deliver, excluded)


_TARGET = """
with copy as (
    select row_number() over (order by p.n, s.n) as id, r.id as recipient_id, s.address as email,
           split_part(s.address, '@', 2) as domain,
           case when da.entry is not null or dd.entry is not null or q.state = 4 then %(denylisted)s::smallint
                when q.state = 3 then %(quarantined)s::smallint else 0 end as reason
    from unnest(%(people)s::bigint[]) with ordinality p (id, n)
    join recipient r on r.id = p.id
    cross join unnest(%(seeds)s::text[]) with ordinality s (address, n)
    left join quarantine q on q.address_key = s.address
    left join denylist da on da.entry = s.address
    left join denylist dd on dd.entry = '@' || split_part(s.address, '@', 2)
), written as (
    insert into broad_log (delivery_id, id, recipient_id, email, domain, state, reason, event_at)
    select %(delivery)s, id, recipient_id, email, domain,
           case when reason = 0 then %(pending)s::smallint else %(ignored)s::smallint end, reason, %(now)s
    from copy
    returning domain, state, reason
)
insert into broad_log_total (delivery_id, domain, state, reason, n)
select %(delivery)s, domain, state, reason, count(*) from written group by domain, state, reason
returning state, reason, n
"""


def _people_among(among: int | None) -> sql.Composable:
    if among is None:
        return sql.SQL("recipient")
    return sql.SQL("(select * from recipient order by id limit {})").format(sql.Literal(among))


def _people(conn: Connection, delivery: Delivery, given: Sequence[int]) -> list[int]:
    if not given:
        first = first_of_target(conn, delivery)
        if first is None:
            raise UserError(f"nobody is in the target of delivery {delivery.id}", "choose a person for the proof")
        return [first]
    chosen = list(dict.fromkeys(given))[:MAX_MESSAGES]
    for number in chosen:
        recipients.by_id(conn, number)
    return chosen


def _seeds(conn: Connection, given: Sequence[str]) -> list[str]:
    known = [seed.address for seed in seeds.all_seeds(conn)]
    if not known:
        raise UserError("there is no seed address yet", "add one: `midsource seed add ADDRESS`")
    if not given:
        return known
    chosen = []
    for address in given:
        try:
            key = EmailAddress.parse(address.strip()).key
        except AddressProblem as exc:
            raise UserError(f"{address.strip()[:80]!r} is not an address ({exc})", "write it as name@domain") from exc
        if key not in known:
            raise NotFound(f"{address.strip()[:80]!r} is no seed address", f"seed addresses: {', '.join(known[:20])}")
        chosen.append(key)
    return list(dict.fromkeys(chosen))


def _refuse_own_addresses(conn: Connection, people: Sequence[int], addresses: Sequence[str]) -> None:
    row = conn.execute(
        "select email_key from recipient where id = any(%s) and email_key = any(%s) limit 1",
        (list(people), list(addresses)),
    ).fetchone()
    if row is not None:
        raise Conflict(
            f"the seed address {row[0]!r} is the chosen person's own",
            "choose another person, or leave that seed address out: a proof never goes to a recipient",
        )
