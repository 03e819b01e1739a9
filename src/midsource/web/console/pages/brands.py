"""Brands and seed addresses: who writes, and who gets proofs.

GET  /brands           brands
GET  /brands/edit      ``name=``; POST stores
GET  /seeds            seed addresses; POST adds one; POST /seeds/remove
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.marketing import brands, seeds
from midsource.marketing.brands import Brand
from midsource.security import audit
from midsource.security.roles import Permission
from midsource.store.database import Connection
from midsource.web.console.frame import Frame, done
from midsource.web.console.pages.beside import MISTAKES, beside
from midsource.web.routing import Action, Form, Page, visitor_of

HERE = "templates"
FIELDS = ("name", "from_name", "from_address", "reply_to", "sender_domains", "unsubscribe_url", "mirror_url")


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages. Who may sign for a domain is the administrator's business (F74)."""
    pages = _Brands(frame)
    return [
        Page("/brands", pages.all),
        Page("/brands/edit", pages.one, needs=Permission.ADMINISTER),
        Action("/brands/edit", pages.save, needs=Permission.ADMINISTER),
        Page("/seeds", pages.seeds),
        Action("/seeds", pages.add_seed, needs=Permission.DELIVER),
        Action("/seeds/remove", pages.remove_seed, needs=Permission.DELIVER),
    ]


class _Brands:
    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def all(self, request: Request) -> Response:
        found = await self._frame.reader.read(brands.all_brands)
        return self._frame.page(request, "brands.html", HERE, brands=found)

    async def one(self, request: Request) -> Response:
        name = request.query_params.get("name", "").replace("\0", "")
        if not name:
            return self._form(request, {}, {}, 200)
        brand = await self._frame.reader.read(lambda conn: brands.get_brand(conn, name))
        return self._form(request, {**_typed(brand), "stored": name}, {}, 200)

    def _form(self, request: Request, given: Mapping[str, str], problems: Mapping[str, str], status: int) -> Response:
        return self._frame.page(request, "brand.html", HERE, status=status, given=given, problems=problems)

    async def save(self, request: Request, form: Form) -> Response:
        visitor = visitor_of(request.scope)
        domains = [domain.lower() for domain in re.split(r"[\s,;]+", form.get("sender_domains", "")) if domain]
        texts = {name: form.get(name, "").strip() for name in FIELDS if name != "sender_domains"}
        brand = Brand(**{**texts, "reply_to": texts["reply_to"] or None, "sender_domains": domains})  # type: ignore[arg-type]  # of one form

        def change(conn: Connection) -> None:
            brands.save_brand(conn, brand)
            audit.record(conn, visitor, "brand.save", brand.name, **asdict(brand))

        try:
            await self._frame.write(change)
        except MISTAKES as exc:
            return self._form(request, form, beside(exc, FIELDS), 422)
        return done("/brands", "brand_saved")

    async def seeds(self, request: Request) -> Response:
        return await self._seeds(request, {}, {}, 200)

    async def _seeds(
        self, request: Request, given: Mapping[str, str], problems: Mapping[str, str], status: int
    ) -> Response:
        found = await self._frame.reader.read(seeds.all_seeds)
        return self._frame.page(request, "seeds.html", HERE, status=status, seeds=found, given=given, problems=problems)

    async def add_seed(self, request: Request, form: Form) -> Response:
        visitor = visitor_of(request.scope)

        def change(conn: Connection) -> None:
            seeds.add_seed(conn, form.get("address", ""), form.get("label", ""))
            audit.record(conn, visitor, "seed.add", label=form.get("label", ""))

        try:
            await self._frame.write(change)
        except MISTAKES as exc:
            return await self._seeds(request, form, {"address": str(exc)}, 422)
        return done("/seeds", "seed_added")

    async def remove_seed(self, request: Request, form: Form) -> Response:
        visitor = visitor_of(request.scope)

        def change(conn: Connection) -> None:
            seeds.remove_seed(conn, form.get("address", ""))
            audit.record(conn, visitor, "seed.remove")

        await self._frame.write(change)
        return done("/seeds", "seed_removed")


def _typed(brand: Brand) -> dict[str, str]:
    shown = {name: getattr(brand, name) or "" for name in FIELDS if name != "sender_domains"}
    return {**shown, "sender_domains": "\n".join(brand.sender_domains)}
