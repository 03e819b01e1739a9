"""Delivery templates: list, edit with what the checks say, delete.

GET  /templates           templates
GET  /templates/edit      ``name=``, ``copy=`` begins a new one as this is; POST stores, or only checks (``check=``)
POST /templates/delete
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.mail.checks import Finding
from midsource.marketing import brands, templates
from midsource.marketing.templates import DeliveryTemplate
from midsource.model.durations import parse_duration
from midsource.model.errors import ConfigError, NotFound, UserError
from midsource.security import audit
from midsource.security.roles import Permission
from midsource.store.database import Connection
from midsource.web.console.frame import Frame, done, whole
from midsource.web.console.pages.beside import MISTAKES, beside
from midsource.web.console.pages.deletion import Deletion
from midsource.web.routing import Action, Form, Page, visitor_of

HERE = "templates"
FIELDS = ("name", "subject", "html", "text", "retry_count", "retry_period", "validity", "uncertain")
MAX_HEADERS = 20


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""
    pages = _Templates(frame)
    return [
        Page("/templates", pages.all),
        Page("/templates/edit", pages.one),
        Action("/templates/edit", pages.save, needs=Permission.DELIVER),
        *Deletion(frame, HERE, "template", "/templates", templates.get_template, templates.delete_template).routes(),
    ]


class _Templates:
    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def all(self, request: Request) -> Response:
        found = await self._frame.reader.read(templates.all_templates)
        return self._frame.page(request, "templates.html", HERE, templates=found)

    async def one(self, request: Request) -> Response:
        query = request.query_params
        name, copied = query.get("name", "").replace("\0", ""), query.get("copy", "").replace("\0", "")

        def read(conn: Connection) -> DeliveryTemplate:
            if not (name or copied):
                return templates.EMPTY
            found = templates.get_template(conn, name or copied)
            return found if name else replace(found, name="")

        template = await self._frame.reader.read(read)
        return await self._form(request, typed(template), {}, 200, stored=name)

    async def _form(
        self, request: Request, given: Mapping[str, str], problems: Mapping[str, str], status: int, *, stored: str
    ) -> Response:
        """Show the form, with what the checks find in the content as it was typed."""

        def read(conn: Connection) -> Sequence[Finding]:
            brand = brands.all_brands(conn)[:1]
            if not brand or not (given.get("html") or given.get("text")):
                return ()
            content = replace(
                templates.EMPTY,
                subject=given.get("subject", ""),
                html=given.get("html", ""),
                text=given.get("text", ""),
            )
            return templates.findings_of(conn, content, brand[0])

        found = await self._frame.reader.read(read)
        return self._frame.page(
            request, "template.html", HERE, status=status, given=given, problems=problems, stored=stored,
            findings=placed(found),
        )  # fmt: skip

    async def save(self, request: Request, form: Form) -> Response:
        visitor, stored = visitor_of(request.scope), form.get("stored", "")

        def change(conn: Connection) -> str:
            template = _read(form, _headers_of(conn, stored))
            if template.name != stored and _exists(conn, template.name):
                raise ConfigError([f"name: there is a template {template.name!r} already"], "choose another name")
            templates.save_template(conn, template)
            audit.record(conn, visitor, "template.save", template.name)
            return template.name

        if "check" in form:
            return await self._form(request, form, {}, 200, stored=stored)
        try:
            name = await self._frame.write(change)
        except MISTAKES as exc:
            return await self._form(request, form, beside(exc, FIELDS), 422, stored=stored)
        return done("/templates/edit", "template_saved", name=name)


def typed(template: DeliveryTemplate) -> dict[str, str]:
    """Return what a form shows of a template."""
    return {
        "name": template.name, "subject": template.subject, "html": template.html, "text": template.text,
        "retry_count": str(template.retry_count), "retry_period": shown_duration(template.retry_period_seconds),
        "validity": shown_duration(template.validity_seconds), "uncertain": template.uncertain_policy,
    }  # fmt: skip


def lines(text: str) -> str:
    """Return a text of a form with the line ends that files have."""
    return text.replace("\r\n", "\n")


def shown_duration(seconds: int) -> str:
    """Write a length of time as operators type it: ``5d``, ``90min``."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def placed(found: Sequence[Finding]) -> dict[str, list[Finding]]:
    """Return findings by the part of the message they are about: subject, html, text; under '' those of the whole."""
    by: dict[str, list[Finding]] = {}
    for finding in found:
        begins = finding.sentence.partition(" ")[0].rstrip(":").lower()
        by.setdefault(begins if begins in ("subject", "html", "text") else "", []).append(finding)
    return by


def _read(form: Form, headers: list[list[str]]) -> DeliveryTemplate:
    problems: list[str] = []
    seconds = {}
    for name in ("retry_period", "validity"):
        try:
            seconds[name] = parse_duration(form.get(name, ""))
        except UserError as exc:
            problems.append(f"{name}: {exc.cause}; {exc.remedy}")
    try:
        retries = whole(form.get("retry_count", "").strip(), "a number of retries")
    except UserError as exc:
        problems.append(f"retry_count: {exc.cause}")
    if form.get("uncertain") not in ("hold", "resend"):
        problems.append("uncertain: expected hold or resend")
    if problems:
        raise ConfigError(problems, "correct the template and try again")
    return DeliveryTemplate(
        name=form.get("name", "").strip(), subject=form.get("subject", "").strip(), html=lines(form.get("html", "")),
        text=lines(form.get("text", "")), headers=headers, retry_count=retries, retry_period_seconds=seconds["retry_period"],
        validity_seconds=seconds["validity"], uncertain_policy=form["uncertain"],
    )  # fmt: skip


def _headers_of(conn: Connection, stored: str) -> list[list[str]]:
    """Return the own headers of the stored template: the form does not show them, so they stay."""
    return templates.get_template(conn, stored).headers if stored and _exists(conn, stored) else []


def _exists(conn: Connection, name: str) -> bool:
    try:
        templates.get_template(conn, name)
    except NotFound:
        return False
    return True
