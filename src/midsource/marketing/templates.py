"""Delivery templates: what a delivery starts from where its document says nothing. Kept by name, changed as a whole.

A delivery takes a copy when it is made: a template that changes afterwards changes no delivery.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from midsource.mail.checks import Finding, check_content
from midsource.mail.content import MAX_BODY_CHARS, MAX_HEADER_CHARS, Content
from midsource.marketing.brands import DEFAULT, Brand
from midsource.marketing.durations import RETRY_PERIOD_SECONDS, VALIDITY_SECONDS
from midsource.marketing.fields import all_fields
from midsource.model.durations import show_bounds
from midsource.model.errors import Conflict, NotFound, UserError
from midsource.policy.retry import MAX_RETRIES
from midsource.store.database import Connection, scalar

MAX_NAME_CHARS = 100
SHOWN = 200
"""Templates shown at once; the field has one for each brand and occasion."""


@dataclass(frozen=True, slots=True)
class DeliveryTemplate:
    """What a delivery inherits where its document says nothing."""

    name: str
    subject: str
    html: str
    text: str
    headers: list[list[str]]
    retry_count: int
    retry_period_seconds: int
    validity_seconds: int
    uncertain_policy: str


@dataclass(frozen=True, slots=True)
class TemplateLine:
    """A template as lists show it."""

    name: str
    subject: str
    modified_at: datetime


EMPTY = DeliveryTemplate(
    name="", subject="", html="", text="", headers=[], retry_count=5, retry_period_seconds=3_600,
    validity_seconds=432_000, uncertain_policy="hold",
)  # fmt: skip
"""What a new template begins as: the field's factory defaults."""
_TEMPLATE = "name, subject, html, text, headers, retry_count, retry_period_seconds, validity_seconds, uncertain_policy"


def save_template(conn: Connection, template: DeliveryTemplate) -> None:
    """Store a template, or replace the one of this name; deliveries made before keep what they took. Raises UserError."""
    check(template)
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


def check(template: DeliveryTemplate) -> None:
    """Raise UserError for a template that cannot be one: its name, its sizes, its figures. Its language is `findings_of`."""
    if not template.name.strip() or len(template.name) > MAX_NAME_CHARS or not template.name.isprintable():
        raise UserError(
            f"{template.name[:120]!r} cannot be a template's name", f"use 1 to {MAX_NAME_CHARS} printable characters"
        )
    for what, text, limit in (
        ("subject", template.subject, MAX_HEADER_CHARS),
        ("html", template.html, MAX_BODY_CHARS),
        ("text", template.text, MAX_BODY_CHARS),
    ):
        if len(text) > limit:
            raise UserError(f"{what} has {len(text)} characters", f"the limit is {limit}")
        if "\0" in text:
            raise UserError(f"{what} holds a NUL character", "remove it; a text has none")
    if not 0 <= template.retry_count <= MAX_RETRIES:
        raise UserError(f"{template.retry_count} retries", f"use 0 to {MAX_RETRIES}")
    for what, seconds, bounds in (
        ("retry period", template.retry_period_seconds, RETRY_PERIOD_SECONDS),
        ("validity", template.validity_seconds, VALIDITY_SECONDS),
    ):
        if not bounds[0] <= seconds <= bounds[1]:
            raise UserError(f"the {what} is {seconds}s", f"use {show_bounds(*bounds)}")


def get_template(conn: Connection, name: str) -> DeliveryTemplate:
    """Return the template; raises NotFound naming what exists."""
    with conn.cursor(row_factory=class_row(DeliveryTemplate)) as cursor:
        template = cursor.execute(f"select {_TEMPLATE} from template where name = %s", (name,)).fetchone()  # noqa: S608
    if template is None:
        known = ", ".join(line.name for line in all_templates(conn)[:20]) or "none; run `midsource init`"
        raise NotFound(f"there is no delivery template {name!r}", f"templates: {known}")
    return template


def all_templates(conn: Connection) -> list[TemplateLine]:
    """Return the templates by name, at most SHOWN."""
    rows = conn.execute("select name, subject, modified_at from template order by name limit %s", (SHOWN,)).fetchall()
    return [TemplateLine(*row) for row in rows]


def delete_template(conn: Connection, name: str) -> None:
    """Delete a template. Raises NotFound, or Conflict for the default one and for one that a delivery was made from."""
    get_template(conn, name)
    if name == DEFAULT:
        raise Conflict("the default template stays", "change it instead")
    if scalar(conn, "select exists (select from delivery where template = %s)", (name,)):
        raise Conflict(f"deliveries were made from the template {name!r}", "keep it, so that they can name it")
    conn.execute("delete from template where name = %s", (name,))


def findings_of(conn: Connection, template: DeliveryTemplate, brand: Brand) -> Sequence[Finding]:
    """Return what is wrong with the content of ``template``, sent in the name of ``brand``: errors first."""
    content = content_of(template, brand)
    return check_content(content, sender_domains=brand.sender_domains, fields=all_fields(conn))


def content_of(template: DeliveryTemplate, brand: Brand) -> Content:
    """Return the message that a delivery of this template and brand would have."""
    return Content(
        subject=template.subject, html=template.html, text=template.text, from_name=brand.from_name,
        from_address=brand.from_address, reply_to=brand.reply_to,
        headers=tuple((name, value) for name, value in template.headers),
    )  # fmt: skip
