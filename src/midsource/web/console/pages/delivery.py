"""The list of deliveries and the pages of one.

GET  /deliveries                          ``label``, ``stage``, ``account``, ``before=ID``
GET  /deliveries/{number}                 summary
GET  /deliveries/{number}/log             its log: ``state``, ``reason``, ``email`` (or its beginning), ``after``
POST /deliveries/{number}/log/export      the same rows as CSV
GET  /deliveries/{number}/messages/{id}   one person's story
GET  /deliveries/{number}/trail           what happened when: ``before``

Orders: delivery_orders.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute

from midsource.marketing import explain, log_export, log_search
from midsource.marketing.delivery_log import KNOWN_REASONS
from midsource.marketing.log_search import MAX_ADDRESS, LogPage, Wanted
from midsource.model.errors import Conflict, UserError
from midsource.model.message import MessageState
from midsource.security import audit
from midsource.security.roles import Permission
from midsource.store.database import Connection
from midsource.web.console.frame import Frame, number, whole
from midsource.web.console.pages import delivery_list, delivery_orders, delivery_trail, delivery_view
from midsource.web.console.pages.delivery_list import MAX_LABEL, STAGES, Filter
from midsource.web.console.pages.delivery_trail import Trail
from midsource.web.console.pages.delivery_view import DeliveryDetail
from midsource.web.console.pages.figures import behind
from midsource.web.routing import Action, Form, Page, visitor_of

LOG_STATES = tuple(MessageState)
LABELS = {int(state): state.label for state in LOG_STATES}
REASONS = tuple(sorted(KNOWN_REASONS - {0}))
EXPORTS_AT_ONCE = 2
"""Each reads pages of the log as fast as its reader takes them."""
HERE = "deliveries"


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""
    pages = _Deliveries(frame)
    return [
        Page("/deliveries", pages.deliveries),
        *delivery_orders.routes(frame),
        Page("/deliveries/{number}/log", pages.log),
        Action("/deliveries/{number}/log/export", pages.export, needs=Permission.DELIVER),
        Page("/deliveries/{number}/messages/{message}", pages.message),
        Page("/deliveries/{number}/trail", pages.trail),
        Page("/deliveries/{number}", pages.summary),
    ]


class _Deliveries:
    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._exports = 0

    async def deliveries(self, request: Request) -> Response:
        wanted = _filter(request)
        found = await self._frame.reader.read(partial(delivery_list.page, wanted=wanted, now=self._frame.clock.now()))
        changes = any(not listed.row.is_final for listed in found.deliveries)
        kept = {name: getattr(wanted, name) for name in ("label", "stage", "account") if getattr(wanted, name)}
        return self._frame.page(
            request,
            "deliveries.html",
            HERE,
            page=found,
            wanted=wanted,
            stages=STAGES,
            live=changes,
            kept=urlencode(kept),
        )

    async def summary(self, request: Request) -> Response:
        read = partial(delivery_view.story, delivery_id=_number(request), now=self._frame.clock.now())
        story = await self._frame.reader.read(read)
        lag = behind(story.row.counted, story.totals.states)
        return self._frame.page(
            request, "delivery.html", HERE, story=story, delivery=story.row, lag=lag,
            verbs=delivery_orders.possible(story), live=not story.row.is_final or lag > 0,
        )  # fmt: skip

    async def log(self, request: Request) -> Response:
        asked, wanted = _number(request), _wanted(request)

        def read(conn: Connection) -> tuple[DeliveryDetail, LogPage]:
            row = delivery_view.detail(conn, asked)
            return row, log_search.page(conn, asked, row.targeted or 0, wanted)

        row, found = await self._frame.reader.read(read)
        kept = {
            name: value
            for name, value in {"state": wanted.state, "reason": wanted.reason, "email": wanted.address}.items()
            if value not in (None, "")
        }
        return self._frame.page(
            request, "delivery_log.html", HERE, delivery=row, log=found, wanted=wanted, log_states=LOG_STATES,
            reasons=REASONS, labels=LABELS, kept=urlencode(kept),
        )  # fmt: skip

    async def export(self, request: Request, form: Form) -> Response:
        asked, visitor = _number(request), visitor_of(request.scope)
        state, reason = _state(form.get("state", "")), _reason(form.get("reason", ""))
        if self._exports >= EXPORTS_AT_ONCE:
            raise Conflict("other exports are being read", "wait until they are done, then export again")

        def note(conn: Connection) -> DeliveryDetail:
            row = delivery_view.detail(conn, asked)
            kind = {"state": state.label if state is not None else None, "reason": reason}
            audit.record(conn, visitor, "delivery.export", asked, **kind)
            return row

        row = await self._frame.write(note)
        return StreamingResponse(
            self._pieces(row.id, state, reason),
            media_type="text/csv; charset=utf-8",
            headers={"content-disposition": f'attachment; filename="delivery-{row.id}.csv"'},
        )

    def _pieces(self, delivery_id: int, state: MessageState | None, reason: int | None) -> Iterator[str]:
        self._exports += 1
        try:
            yield from log_export.pieces(self._frame.database, delivery_id, state=state, reason=reason)
        finally:
            self._exports -= 1

    async def message(self, request: Request) -> Response:
        asked, message = _number(request), whole(request.path_params["message"], "a message's number")

        def read(conn: Connection) -> tuple[DeliveryDetail, explain.Story]:
            return delivery_view.detail(conn, asked), explain.explain_message(conn, asked, message)

        row, story = await self._frame.reader.read(read)
        return self._frame.page(
            request, "delivery_message.html", HERE, delivery=row, story=story, facts=story.facts["people"][0]
        )

    async def trail(self, request: Request) -> Response:
        asked, before = _number(request), _moment(request.query_params.get("before", ""))

        def read(conn: Connection) -> tuple[DeliveryDetail, Trail]:
            row = delivery_view.detail(conn, asked)
            return row, delivery_trail.trail(conn, row, before)

        row, found = await self._frame.reader.read(read)
        return self._frame.page(
            request, "delivery_trail.html", HERE, delivery=row, trail=found, before=before,
            live=before is None and not row.is_final,
        )  # fmt: skip


def _number(request: Request) -> int:
    return whole(request.path_params["number"], "a delivery's number")


def _filter(request: Request) -> Filter:
    query = request.query_params
    stage = query.get("stage", "")
    if stage not in STAGES and stage:
        raise UserError(f"{stage[:40]!r} is no stage of a delivery", "choose one of the list")
    label, account = (query.get(name, "").strip().replace("\0", "")[:MAX_LABEL] for name in ("label", "account"))
    return Filter(label, stage, account, number(request, "before"))


def _wanted(request: Request) -> Wanted:
    query = request.query_params
    address = query.get("email", "").strip().replace("\0", "")[:MAX_ADDRESS]
    return Wanted(
        number(request, "after") or 0, _state(query.get("state", "")), _reason(query.get("reason", "")), address
    )


def _state(given: str) -> MessageState | None:
    if not given.strip():
        return None
    state = whole(given.strip(), "a state")
    if state not in {int(known) for known in LOG_STATES}:
        raise UserError(f"{state} is no state of a message", "choose one of the list")
    return MessageState(state)


def _reason(given: str) -> int | None:
    if not given.strip():
        return None
    reason = whole(given.strip(), "a reason")
    if reason not in REASONS:
        raise UserError(f"{reason} is no reason", "choose one of the list")
    return reason


def _moment(given: str) -> datetime | None:
    if not given:
        return None
    try:
        found = datetime.fromisoformat(given)
    except ValueError as exc:
        raise UserError(f"{given[:40]!r} is not a time", "go back and follow a link") from exc
    return found if found.tzinfo else found.replace(tzinfo=UTC)
