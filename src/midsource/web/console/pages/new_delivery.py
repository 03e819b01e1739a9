"""A delivery made in the console: the form of a new one, begun from a template, and of one that is still edited.

GET  /deliveries/new            ``template=``; POST makes it
GET  /deliveries/{id}/edit      POST changes it, unless somebody else did meanwhile

Both make the same document as `delivery create --file` reads (marketing/delivery_file.py) and go through the same checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.marketing import accounts, brands, deliveries, lists, segments, templates
from midsource.marketing.brands import Brand
from midsource.marketing.deliveries import EDITABLE, Delivery
from midsource.marketing.delivery_file import Draft, draft_of
from midsource.marketing.templates import DeliveryTemplate
from midsource.model.delivery import DeliveryState
from midsource.model.errors import ConfigError, Conflict
from midsource.security import audit
from midsource.security.roles import Permission
from midsource.store.database import Connection
from midsource.web.console.frame import Frame, done, whole
from midsource.web.console.pages.beside import MISTAKES, beside
from midsource.web.console.pages.templates import lines, shown_duration, typed
from midsource.web.routing import Action, Form, Page, visitor_of

HERE = "deliveries"
FIELDS = (
    "label", "account", "brand", "template", "subject", "html", "text", "contact_at", "validity", "uncertain", "sender_name",
    "sender_address", "sender_reply_to", "target_list", "target_segment", "target_expression", "retry_count", "retry_period",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choices:
    """What the form offers."""

    templates: Sequence[str]
    brands: Sequence[Brand]
    accounts: Sequence[str]
    lists: Sequence[str]
    segments: Sequence[str]


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages; they stand before those of one delivery, whose number 'new' is not."""
    pages = _Editing(frame)
    deliver = Permission.DELIVER
    return [
        Page("/deliveries/new", pages.new, needs=deliver),
        Action("/deliveries/new", pages.create, needs=deliver),
        Page("/deliveries/{number}/edit", pages.edit, needs=deliver),
        Action("/deliveries/{number}/edit", pages.change, needs=deliver),
    ]


class _Editing:
    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def new(self, request: Request) -> Response:
        name = request.query_params.get("template", "").replace("\0", "")

        def read(conn: Connection) -> DeliveryTemplate | None:
            return templates.get_template(conn, name) if name else None

        template = await self._frame.reader.read(read)
        return await self._form(request, {} if template is None else begun(template), {}, 200, None)

    async def create(self, request: Request, form: Form) -> Response:
        visitor = visitor_of(request.scope)

        def change(conn: Connection) -> int:
            made = deliveries.create(conn, draft(form), self._frame.clock)
            audit.record(conn, visitor, "delivery.create", made, label=form.get("label", ""))
            return made

        try:
            made = await self._frame.write(change)
        except MISTAKES as exc:
            return await self._form(request, form, beside(exc, FIELDS, expression="target_expression"), 422, None)
        return done(f"/deliveries/{made}", "delivery_made")

    async def edit(self, request: Request) -> Response:
        number = whole(request.path_params["number"], "a delivery's number")
        stored = await self._frame.reader.read(lambda conn: deliveries.get(conn, number))
        _refuse_uneditable(stored)
        return await self._form(request, written(stored), {}, 200, stored)

    async def change(self, request: Request, form: Form) -> Response:
        number, visitor = whole(request.path_params["number"], "a delivery's number"), visitor_of(request.scope)

        def change(conn: Connection) -> None:
            deliveries.change(conn, number, draft(form), whole(form.get("version", ""), "a version"))
            audit.record(conn, visitor, "delivery.change", number)

        try:
            await self._frame.write(change)
        except MISTAKES as exc:
            stored = await self._frame.reader.read(lambda conn: deliveries.get(conn, number))
            problems = beside(exc, FIELDS, expression="target_expression")
            return await self._form(request, form, problems, exc.http_status, stored)
        return done(f"/deliveries/{number}", "delivery_changed")

    async def _form(
        self,
        request: Request,
        given: Mapping[str, str],
        problems: Mapping[str, str],
        status: int,
        stored: Delivery | None,
    ) -> Response:
        choices = await self._frame.reader.read(_choices)
        return self._frame.page(
            request,
            "delivery_form.html",
            HERE,
            status=status,
            given=given,
            problems=problems,
            stored=stored,
            choices=choices,
        )


def begun(template: DeliveryTemplate) -> dict[str, str]:
    """Return what the form of a delivery begins with from a template."""
    shown = typed(template)
    return {**{name: shown[name] for name in shown if name != "name"}, "template": template.name}


def written(delivery: Delivery) -> dict[str, str]:
    """Return what the form shows of a stored delivery."""
    return {
        "label": delivery.label, "account": delivery.account, "brand": delivery.brand, "template": delivery.template or "",
        "subject": delivery.subject, "html": delivery.html, "text": delivery.text,
        "contact_at": delivery.contact_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M") if delivery.contact_at else "",
        "validity": shown_duration(delivery.validity_seconds), "uncertain": delivery.uncertain_policy,
        "sender_name": delivery.from_name, "sender_address": delivery.from_address,
        "sender_reply_to": delivery.reply_to or "", "target_list": delivery.target_list or "",
        "target_expression": delivery.target_expression, "retry_count": str(delivery.retry_count),
        "retry_period": shown_duration(delivery.retry_period_seconds), "version": str(delivery.version),
    }  # fmt: skip


def draft(form: Form) -> Draft:
    """Return the document that the form makes; what is left empty is inherited. Raises ConfigError."""
    problems: list[str] = []
    given = {name: form[name].strip() for name in FIELDS if form.get(name, "").strip()}
    document: dict[str, Any] = {
        name: given[name]
        for name in ("label", "account", "brand", "template", "subject", "validity", "uncertain")
        if name in given
    }
    for table in ("sender", "target", "retry"):
        document[table] = {
            name.removeprefix(f"{table}_"): value for name, value in given.items() if name.startswith(f"{table}_")
        }
    if "count" in document["retry"]:
        count = document["retry"]["count"]
        document["retry"]["count"] = int(count) if count.isascii() and count.isdigit() and len(count) < 10 else count
    if "contact_at" in given:
        try:
            document["contact_at"] = datetime.fromisoformat(given["contact_at"]).replace(tzinfo=UTC)
        except ValueError:
            problems.append(f"contact_at: expected a date and time, got {given['contact_at'][:40]!r}")
    bodies = {name: lines(form[name]) for name in ("html", "text") if name in form}
    try:
        made = draft_of(document, html=bodies.get("html"), text=bodies.get("text"))
    except ConfigError as exc:
        raise ConfigError([*problems, *exc.problems], exc.remedy) from exc
    if problems:
        raise ConfigError(problems, "correct the delivery and try again")
    return made


def _refuse_uneditable(stored: Delivery) -> None:
    if DeliveryState(stored.state) not in EDITABLE or stored.proof_of is not None:
        raise Conflict(f"delivery {stored.id} cannot be edited any more", "create another")


def _choices(conn: Connection) -> Choices:
    return Choices(
        [line.name for line in templates.all_templates(conn)],
        brands.all_brands(conn),
        [account.name for account in accounts.list_accounts(conn) if account.active],
        lists.names(conn),
        [segment.name for segment in segments.all_segments(conn)],
    )
