"""Outcomes that PostgreSQL takes in no form: kept apart, each alone, and tried again until it does.

Order of events: `mid.settle` finds the one outcome of a batch that is refused, tells it once more without its texts,
and when that is refused too puts it here, in the same transaction that records all others. Its message leaves its batch,
because it was tried: sending it again would be a second copy. Its ledger row stays as it was, so its delivery does not
finish and says what it waits for. `mid.settle.try_set_aside` tries again with back-off; who made room (a partition, a
constraint) need not do anything else.

Bounds: TRIES_A_TURN rows a turn; the wait doubles from FIRST_WAIT_SECONDS to a day.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from midsource.mid.records import Outcome
from midsource.store.database import Connection, scalar

TRIES_A_TURN = 100
"""Rows tried in one turn: more than one at all is a fault that hits everything, and then a few tell as much as all."""
FIRST_WAIT_SECONDS = 60

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Outcome).decode


@dataclass(frozen=True, slots=True)
class Aside:
    """An outcome set aside, and whose it is."""

    number: int
    process: str
    outcome: Outcome


def put(conn: Connection, process: str, outcome: Outcome, why: str) -> None:
    """Keep an outcome for later. Durable at the caller's commit."""
    conn.execute(
        "insert into outcome_aside (process, account_id, delivery_id, id, document, why, try_at) "
        "values (%s, %s, %s, %s, %s, %s, now() + make_interval(secs => %s))",
        (process, outcome.account_id, outcome.delivery_id, outcome.id, _encode(outcome), why, FIRST_WAIT_SECONDS),
    )


def due(conn: Connection) -> list[Aside]:
    """Return, locked, what may be tried again now; what another process is at is left out."""
    rows = conn.execute(
        "select number, process, document from outcome_aside where try_at <= now() order by try_at limit %s "
        "for update skip locked",
        (TRIES_A_TURN,),
    ).fetchall()
    return [Aside(number, process, _decode(bytes(document))) for number, process, document in rows]


def drop(conn: Connection, number: int) -> None:
    """Forget one that was recorded."""
    conn.execute("delete from outcome_aside where number = %s", (number,))


def put_off(conn: Connection, number: int, why: str) -> None:
    """Note one more try in vain."""
    conn.execute(
        "update outcome_aside set tries = tries + 1, why = %s, "
        "try_at = now() + make_interval(secs => least(86400, %s * 2 ^ least(tries, 20))) where number = %s",
        (why, FIRST_WAIT_SECONDS, number),
    )


def count(conn: Connection) -> int:
    """Return how many outcomes are set aside."""
    return int(scalar(conn, "select count(*) from outcome_aside"))
