"""Seed addresses (the field: adresses de contrôle): who proofs are sent to. Colleagues' addresses, on top of any target."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from midsource.model.address import AddressProblem, EmailAddress
from midsource.model.errors import NotFound, UserError
from midsource.store.database import Connection, scalar

MAX_SEEDS = 100
"""Addresses of one instance: a proof goes to 100 at most (the field's limit), so more could never be used at once."""
MAX_LABEL_CHARS = 100


@dataclass(frozen=True, slots=True)
class SeedAddress:
    """One address and whose it is."""

    address: str
    label: str
    created_at: datetime


def all_seeds(conn: Connection) -> list[SeedAddress]:
    """Return the seed addresses in order."""
    rows = conn.execute(
        "select address, label, created_at from seed_address order by address limit %s", (MAX_SEEDS,)
    ).fetchall()
    return [SeedAddress(*row) for row in rows]


def add_seed(conn: Connection, address: str, label: str = "") -> str:
    """Add an address, or give it another label; return it as it is kept. Raises UserError."""
    try:
        key = EmailAddress.parse(address.strip()).key
    except AddressProblem as exc:
        raise UserError(f"{address.strip()[:80]!r} is not an address ({exc})", "write it as name@domain") from exc
    if len(label) > MAX_LABEL_CHARS or not label.isprintable():
        raise UserError("the label cannot be one", f"use up to {MAX_LABEL_CHARS} printable characters")
    others = scalar(conn, "select count(*) from seed_address where address <> %s", (key,))
    if others >= MAX_SEEDS:
        raise UserError(f"there are {others} seed addresses, which is the limit", "remove one first")
    conn.execute(
        "insert into seed_address (address, label) values (%s, %s) on conflict (address) do update set label = excluded.label",
        (key, label.strip()),
    )
    return key


def remove_seed(conn: Connection, address: str) -> None:
    """Remove an address; raises NotFound."""
    if not conn.execute("delete from seed_address where address = %s", (address,)).rowcount:
        raise NotFound(f"{address[:80]!r} is no seed address", "look at the list again")
