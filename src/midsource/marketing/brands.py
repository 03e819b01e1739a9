"""Brands and delivery templates: rows that deliveries start from."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from midsource.model.errors import NotFound
from midsource.store.database import Connection

DEFAULT = "default"
"""Name of the brand and of the template that ``init`` makes."""


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


@dataclass(frozen=True, slots=True)
class DeliveryTemplate:
    """What a delivery inherits where its file says nothing."""

    name: str
    subject: str
    html: str
    text: str
    headers: list[list[str]]
    retry_count: int
    retry_period_seconds: int
    validity_seconds: int
    uncertain_policy: str


_BRAND = "name, from_name, from_address, reply_to, sender_domains, unsubscribe_url, mirror_url"
_TEMPLATE = "name, subject, html, text, headers, retry_count, retry_period_seconds, validity_seconds, uncertain_policy"


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
    """Store a brand, or replace the one of this name."""
    conn.execute(
        f"insert into brand ({_BRAND}) values (%s, %s, %s, %s, %s, %s, %s) on conflict (name) do update set "  # noqa: S608
        "from_name = excluded.from_name, from_address = excluded.from_address, reply_to = excluded.reply_to, "
        "sender_domains = excluded.sender_domains, unsubscribe_url = excluded.unsubscribe_url, mirror_url = excluded.mirror_url",
        (brand.name, brand.from_name, brand.from_address, brand.reply_to, brand.sender_domains, brand.unsubscribe_url, brand.mirror_url),
    )  # fmt: skip


def save_template(conn: Connection, template: DeliveryTemplate) -> None:
    """Store a template, or replace the one of this name; deliveries made before keep what they took."""
    conn.execute(
        f"insert into template ({_TEMPLATE}) values (%s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict (name) do update set "  # noqa: S608
        "subject = excluded.subject, html = excluded.html, text = excluded.text, headers = excluded.headers, "
        "retry_count = excluded.retry_count, retry_period_seconds = excluded.retry_period_seconds, "
        "validity_seconds = excluded.validity_seconds, uncertain_policy = excluded.uncertain_policy, modified_at = now()",
        (
            template.name, template.subject, template.html, template.text, Jsonb(template.headers), template.retry_count,
            template.retry_period_seconds, template.validity_seconds, template.uncertain_policy,
        ),
    )  # fmt: skip


def get_brand(conn: Connection, name: str) -> Brand:
    """Return the brand; raises NotFound naming what exists."""
    with conn.cursor(row_factory=class_row(Brand)) as cursor:
        brand = cursor.execute(f"select {_BRAND} from brand where name = %s", (name,)).fetchone()  # noqa: S608 - constant
    if brand is None:
        raise NotFound(f"there is no brand {name!r}", f"brands: {_names(conn, 'brand')}")
    return brand


def get_template(conn: Connection, name: str) -> DeliveryTemplate:
    """Return the template; raises NotFound naming what exists."""
    with conn.cursor(row_factory=class_row(DeliveryTemplate)) as cursor:
        template = cursor.execute(f"select {_TEMPLATE} from template where name = %s", (name,)).fetchone()  # noqa: S608
    if template is None:
        raise NotFound(f"there is no delivery template {name!r}", f"templates: {_names(conn, 'template')}")
    return template


def _names(conn: Connection, table: str) -> str:
    rows = conn.execute(f"select name from {table} order by name limit 20").fetchall()  # noqa: S608 - one of two constants
    return ", ".join(row[0] for row in rows) or "none; run `midsource init`"
