"""Deliveries: create, list, show, prepare, send, pause, resume, stop, explain, and their logs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec
from fastapi import APIRouter, Header, Path, Query
from starlette.responses import StreamingResponse

from midsource.engine import jobs
from midsource.marketing import (
    deliveries,
    delivery_file,
    delivery_log,
    explain,
    link_journal,
    orders,
    reconcile_reports,
    statistics,
    totals,
)
from midsource.model.delivery import DeliveryState
from midsource.model.message import MessageState
from midsource.security import audit
from midsource.security.roles import Permission
from midsource.web.api import delivery_shapes as shapes
from midsource.web.api.idempotency import once
from midsource.web.api.operations import After, Api, Before, Caller, Limit, Number, needs, refusals

LINK_LINES = 20
NOT_FOUND = refusals()
CONFLICT = refusals("Not in its present state.")
SEE, DELIVER = needs(Permission.SEE), needs(Permission.DELIVER)
State = Annotated[str | None, Query(pattern="^(" + "|".join(state.label for state in MessageState) + ")$")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="The same key and body within a day get the first answer; another body gets 409.",
    ),
]


def router(api: Api) -> APIRouter:
    """Return the operations of this family."""
    made = APIRouter(tags=["deliveries"])

    @made.get("/deliveries", dependencies=[SEE])
    def list_deliveries(before: Before = None, limit: Limit = 50) -> shapes.DeliveryPage:
        """List deliveries, newest first."""
        with api.database.connection() as conn:
            found = deliveries.latest(conn, before=before, limit=limit)
        return shapes.DeliveryPage(deliveries=[_delivery(row) for row in found])

    @made.post("/deliveries", dependencies=[DELIVER], status_code=201, responses=CONFLICT)
    def create_delivery(body: shapes.DeliveryIn, visitor: Caller, key: Key = None) -> shapes.Created:
        """Create a delivery, as `delivery create` does. Nothing is prepared or sent."""
        asked = body.model_dump(mode="python", exclude_unset=True)
        html, text = asked.pop("html", None), asked.pop("text", None)
        with api.database.transaction() as conn, once(conn, visitor, key, body.model_dump_json()) as answer:
            if answer.found is None:
                number = deliveries.create(conn, delivery_file.draft_of(asked, html=html, text=text), api.clock)
                audit.record(conn, visitor, "delivery.create", number, label=body.label)
                answer.give(str(number))
        return shapes.Created(id=int(answer.text))

    @made.get("/deliveries/{number}", dependencies=[SEE], responses=NOT_FOUND)
    def show_delivery(number: Number) -> shapes.DeliveryDetail:
        """Show one delivery with its counts, findings, phases and failures of the link."""
        with api.database.connection() as conn:
            row = deliveries.get(conn, number)
            counts = totals.by_state(conn, number)
            link = link_journal.latest(conn, number, LINK_LINES)
        return shapes.DeliveryDetail(
            **_delivery(row).model_dump(), subject=row.subject, findings=row.findings, phases=row.phases, link=link,
            counts={state.label: counts.get(state, 0) for state in MessageState},
        )  # fmt: skip

    @made.get("/deliveries/{number}/explanation", dependencies=[SEE], responses=NOT_FOUND)
    def explain_delivery(
        number: Number, email: Annotated[str | None, Query(min_length=3, max_length=320)] = None
    ) -> shapes.Story:
        """Tell where its messages wait and why; with an address, the whole story of that person's copy."""
        with api.database.connection() as conn:
            if email:
                told = explain.explain_person(conn, number, email)
            else:
                told = explain.explain_delivery(conn, number, api.clock.now())
        return shapes.Story(story=list(told.lines), facts=msgspec.to_builtins(told.facts))

    _add_figures(made, api)
    _add_orders(made, api)
    _add_logs(made, api)
    return made


def _add_figures(made: APIRouter, api: Api) -> None:
    @made.get("/deliveries/{number}/statistics", dependencies=[SEE], responses=NOT_FOUND)
    def show_statistics(number: Number) -> shapes.DeliveryStatistics:
        """Tell what became of its messages by recipient domain, the largest first, as the mid last counted them."""
        wanted = _existing(api, number)
        with api.database.connection() as conn:
            return shapes.DeliveryStatistics.model_validate(statistics.as_dict(statistics.read(conn, wanted)))

    @made.get("/deliveries/{number}/reconciliations", dependencies=[SEE], responses=NOT_FOUND)
    def show_reconciliations(number: Number) -> shapes.Reconciliations:
        """Tell how the last comparisons of its log with the mid's ledger ended, newest first."""
        wanted = _existing(api, number)
        with api.database.connection() as conn:
            found = reconcile_reports.latest(conn, wanted)
        return shapes.Reconciliations(
            reports=[shapes.Reconciliation.model_validate(reconcile_reports.as_dict(report)) for report in found]
        )


def _add_orders(made: APIRouter, api: Api) -> None:
    @made.post("/deliveries/{number}/prepare", dependencies=[DELIVER], status_code=202, responses=CONFLICT)
    def prepare_delivery(number: Number, visitor: Caller) -> shapes.Asked:
        """Target, check, personalise and hand over; nothing is sent before it is told to."""
        api.need_worker()
        with api.change(visitor, "delivery.prepare", number) as conn:
            deliveries.start_preparation(conn, number)
            return shapes.Asked(id=number, job=jobs.ask(conn, "prepare", number, visitor.name))

    def ordered(number: int, visitor: Caller, verb: str) -> shapes.Asked:
        api.need_worker()
        name = "send" if verb == "start" else verb
        with api.change(visitor, f"delivery.{name}", number) as conn:
            made = orders.order(conn, number, verb, by=visitor.name, now=api.clock.now())
            return shapes.Asked(id=number, job=made.job)

    @made.post("/deliveries/{number}/send", dependencies=[DELIVER], status_code=202, responses=CONFLICT)
    def send_delivery(number: Number, visitor: Caller) -> shapes.Asked:
        """Confirm a delivery: it is prepared if it is not yet, then the mid sends it."""
        return ordered(number, visitor, "start")

    @made.post("/deliveries/{number}/pause", dependencies=[DELIVER], status_code=202, responses=CONFLICT)
    def pause_delivery(number: Number, visitor: Caller) -> shapes.Asked:
        """Pause it; while the link is cut the order shows as not confirmed."""
        return ordered(number, visitor, "pause")

    @made.post("/deliveries/{number}/resume", dependencies=[DELIVER], status_code=202, responses=CONFLICT)
    def resume_delivery(number: Number, visitor: Caller) -> shapes.Asked:
        """Go on with a paused delivery."""
        return ordered(number, visitor, "resume")

    @made.post("/deliveries/{number}/stop", dependencies=[DELIVER], status_code=202, responses=CONFLICT)
    def stop_delivery(number: Number, visitor: Caller) -> shapes.Asked:
        """Stop it for good: what is not sent yet is cancelled."""
        return ordered(number, visitor, "stop")


def _add_logs(made: APIRouter, api: Api) -> None:
    @made.get("/deliveries/{number}/log", dependencies=[SEE], responses=NOT_FOUND)
    def read_delivery_log(number: Number, state: State = None, after: After = 0, limit: Limit = 100) -> shapes.LogPage:
        """Read the delivery log in pages, in order of id."""
        rows = delivery_log.entries(api.database, _existing(api, number), state=_state(state), after=after)
        return shapes.LogPage(
            rows=[shapes.LogRow(**delivery_log.as_dict(row)) for row, _ in zip(rows, range(limit), strict=False)]
        )

    @made.get(
        "/deliveries/{number}/log.ndjson",
        dependencies=[SEE],
        response_class=StreamingResponse,
        responses={
            **NOT_FOUND,
            200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}, "description": "A row a line."},
        },
    )
    def stream_delivery_log(number: Number, state: State = None, after: After = 0) -> StreamingResponse:
        """Read the whole delivery log, one JSON object a line."""
        wanted = _existing(api, number)

        def lines() -> Iterator[bytes]:
            for row in delivery_log.entries(api.database, wanted, state=_state(state), after=after):
                yield msgspec.json.encode(delivery_log.as_dict(row)) + b"\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    @made.get("/jobs/{job}", dependencies=[SEE], responses=NOT_FOUND)
    def show_job(job: Annotated[str, Path(max_length=100, pattern=r"^[^\x00/]+$")]) -> shapes.Job:
        """Tell how far a job is."""
        with api.database.connection() as conn:
            return shapes.Job.model_validate(jobs.get(conn, job))


def _existing(api: Api, number: int) -> int:
    with api.database.connection() as conn:
        return deliveries.get(conn, number).id


def _state(label: str | None) -> MessageState | None:
    return next((state for state in MessageState if state.label == label), None)


def _delivery(row: deliveries.Delivery) -> shapes.Delivery:
    names = set(shapes.Delivery.model_fields) - {"state", "state_number", "order_confirmed"}
    return shapes.Delivery(
        **{name: getattr(row, name) for name in names},
        state=DeliveryState(row.state).label,
        state_number=row.state,
        order_confirmed=not row.is_unconfirmed,
    )
