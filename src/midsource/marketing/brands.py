"""Brands: who writes. Kept by name, changed as a whole.

A delivery takes sender name and address when it is made; opt-out and mirror links and the allowed sender domains are read
when it is prepared and handed over.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.rows import class_row

from midsource.mail import headers as wire
from midsource.model.address import AddressProblem, EmailAddress
from midsource.model.errors import NotFound, UserError
from midsource.store.database import Connection

DEFAULT = "default"
"""Name of the brand and of the template that ``init`` makes."""
MAX_NAME_CHARS = 100
MAX_DOMAINS = 50
SHOWN = 200
"""Brands shown at once."""


@dataclass(frozen=True, slots=True)
class Brand:
    """Who writes: sender, the domains a sender address may have, where opt-out and mirror links lead."""

    name: str
    from_name: str
    from_address: str
    reply_to: str | None
    sender_domains: list[str]
    unsubscribe_url: str  # may hold {token}
    mirror_url: str = ""


_BRAND = "name, from_name, from_address, reply_to, sender_domains, unsubscribe_url, mirror_url"


def ensure_defaults(
    conn: Connection, *, from_name: str, from_address: str, unsubscribe_url: str, mirror_url: str = ""
) -> None:
    """Make the default brand and template where they are missing; what an operator changed stays."""
    domain = from_address.rpartition("@")[2].lower()
    conn.execute(
        f"insert into brand ({_BRAND}) values (%s, %s, %s, null, %s, %s, %s) on conflict do nothing",  # noqa: S608 - constant
        (DEFAULT, from_name, from_address, [domain], unsubscribe_url, mirror_url),
    )
    conn.execute("insert into template (name) values (%s) on conflict do nothing", (DEFAULT,))


def save_brand(conn: Connection, brand: Brand) -> None:
    """Store a brand, or replace the one of this name. Raises UserError for one that nothing could be sent with."""
    check(brand)
    conn.execute(
        f"insert into brand ({_BRAND}) values (%s, %s, %s, %s, %s, %s, %s) on conflict (name) do update set "  # noqa: S608
        "from_name = excluded.from_name, from_address = excluded.from_address, reply_to = excluded.reply_to, "
        "sender_domains = excluded.sender_domains, unsubscribe_url = excluded.unsubscribe_url, mirror_url = excluded.mirror_url",
        (brand.name, brand.from_name, brand.from_address, brand.reply_to, brand.sender_domains, brand.unsubscribe_url, brand.mirror_url),
    )  # fmt: skip


def get_brand(conn: Connection, name: str) -> Brand:
    """Return the brand; raises NotFound naming what exists."""
    with conn.cursor(row_factory=class_row(Brand)) as cursor:
        brand = cursor.execute(f"select {_BRAND} from brand where name = %s", (name,)).fetchone()  # noqa: S608 - constant
    if brand is None:
        raise NotFound(f"there is no brand {name!r}", f"brands: {_names(conn)}")
    return brand


def all_brands(conn: Connection) -> list[Brand]:
    """Return the brands by name, at most SHOWN."""
    with conn.cursor(row_factory=class_row(Brand)) as cursor:
        return cursor.execute(f"select {_BRAND} from brand order by name limit %s", (SHOWN,)).fetchall()  # noqa: S608


def check(brand: Brand) -> None:
    """Raise UserError, its cause beginning with the field's name, for a brand that nothing could be sent with."""
    if not brand.name.strip() or len(brand.name) > MAX_NAME_CHARS or not brand.name.isprintable():
        raise UserError(
            f"name: {brand.name[:120]!r} cannot be a brand's name", f"use 1 to {MAX_NAME_CHARS} printable characters"
        )
    if not brand.from_name.isprintable() or len(brand.from_name) > MAX_NAME_CHARS:
        raise UserError("from_name: it cannot stand in a header", f"use up to {MAX_NAME_CHARS} printable characters")
    _address("from_address", brand.from_address)
    if brand.reply_to:
        _address("reply_to", brand.reply_to)
    _domains(brand)
    for what, url in (("unsubscribe_url", brand.unsubscribe_url), ("mirror_url", brand.mirror_url)):
        if (url or what == "unsubscribe_url") and not (url.isprintable() and url.startswith(("https://", "http://"))):
            raise UserError(f"{what}: {url[:80]!r} is no web address", "begin it with https://")
        if url and "{token}" not in url:
            raise UserError(f"{what}: nothing in it says who comes", "write {token} where the person's token belongs")


def _address(what: str, given: str) -> None:
    try:
        wire.address(given)
        EmailAddress.parse(given)
    except (ValueError, AddressProblem) as exc:
        raise UserError(f"{what}: {given[:80]!r} is not an address ({exc})", "write it as name@domain") from exc


def _domains(brand: Brand) -> None:
    if not 0 < len(brand.sender_domains) <= MAX_DOMAINS:
        raise UserError(f"sender_domains: {len(brand.sender_domains)} domains", f"name 1 to {MAX_DOMAINS}")
    for domain in brand.sender_domains:
        try:
            EmailAddress.parse(f"x@{domain}")
        except AddressProblem as exc:
            raise UserError(
                f"sender_domains: {domain[:80]!r} is not a domain ({exc})", "write it as brand.example"
            ) from exc
    own = brand.from_address.rpartition("@")[2].lower()
    if own not in brand.sender_domains:
        raise UserError(f"sender_domains: the sender's domain {own} is not among them", "add it, or change the sender")


def _names(conn: Connection) -> str:
    return ", ".join(brand.name for brand in all_brands(conn)[:20]) or "none; run `midsource init`"
