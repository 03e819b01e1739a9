"""A request that creates something may be repeated: its key and body are kept with the first answer, for a day.

Both live in the transaction of the creation, so there is never one without the other; of two at the same time, the second
waits for the first and gets its answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from midsource.model.errors import Conflict
from midsource.security.roles import Visitor
from midsource.store.database import Connection

KEPT_HOURS = 24
FORGOTTEN_AT_ONCE = 100
"""Old keys removed by each new one: the table never grows beyond what a day brings."""


@dataclass(slots=True)
class Answer:
    """``found``: what the first request was answered, None for the first itself; ``text``: what to answer."""

    found: str | None = None
    text: str = ""

    def give(self, text: str) -> None:
        """Say what this first request is answered."""
        self.text = text


@contextmanager
def once(conn: Connection, visitor: Visitor, key: str | None, body: str) -> Iterator[Answer]:
    """Open the block that creates, unless ``answer.found`` says it was done. Raises Conflict for another body."""
    if key is None:
        yield Answer()
        return
    digest = hashlib.sha256(body.encode()).digest()
    names = {"who": visitor.name, "key": key, "digest": digest, "hours": KEPT_HOURS, "limit": FORGOTTEN_AT_ONCE}
    conn.execute(
        "delete from api_request where ctid = any(array(select ctid from api_request "
        "where at < now() - make_interval(hours => %(hours)s) limit %(limit)s))",
        names,
    )
    is_first = conn.execute(
        "insert into api_request (who, key, digest) values (%(who)s, %(key)s, %(digest)s) on conflict do nothing "
        "returning true",
        names,
    ).fetchone()
    if is_first:
        answer = Answer()
        yield answer
        conn.execute("update api_request set answer = %(answer)s where who = %(who)s and key = %(key)s",
                     {**names, "answer": answer.text})  # fmt: skip
        return
    row = conn.execute("select digest, answer from api_request where who = %(who)s and key = %(key)s", names).fetchone()
    if row is None or bytes(row[0]) != digest:
        raise Conflict(
            f"the Idempotency-Key {key[:40]!r} came with another body before",
            "use a new key for a new request, the same body for a repeated one",
        )
    yield Answer(found=row[1], text=row[1])
