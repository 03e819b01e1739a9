"""The pages of a mid: status, deliveries with their ledger totals and what waits, the marketing instances that submit.

GET /                                    processes, open deliveries, accounts, one line a problem
GET /deliveries                          deliveries of all accounts, newest first; ``before=ID``
GET /deliveries/{account}/{number}       one: ledger totals, dispatch batches, why messages wait
GET /accounts                            key ids, last seen, how far each has read its results

Read-only: what a delivery does is ordered by the marketing instance it belongs to.
"""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from midsource.store import processes
from midsource.store.database import Connection
from midsource.web.console.frame import Frame, number, whole
from midsource.web.console.pages import mid_dispatch, mid_view, workflow_view
from midsource.web.console.pages.mid_dispatch import Dispatch
from midsource.web.console.pages.mid_view import Line
from midsource.web.routing import Page


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""

    async def status(request: Request) -> Response:
        now = frame.clock.now()

        def read(conn: Connection) -> tuple[mid_view.Overview, workflow_view.Board]:
            return mid_view.overview(conn, now), workflow_view.board(conn, "mid", now)

        found, board = await frame.reader.read(read)
        return frame.page(request, "mid_status.html", "status", found=found, board=board, live=True)

    async def deliveries(request: Request) -> Response:
        before = number(request, "before")
        page = await frame.reader.read(partial(mid_view.lines, before=before))
        live = any(not line.is_final for line in page.deliveries)
        return frame.page(request, "mid_deliveries.html", "deliveries", page=page, before=before, live=live)

    async def delivery(request: Request) -> Response:
        account = request.path_params["account"]
        asked = whole(request.path_params["number"], "a delivery's number")

        def read(conn: Connection) -> tuple[Line, Dispatch, bool]:
            line = mid_view.line(conn, account, asked)
            return line, mid_dispatch.dispatch(conn, line), processes.any_alive(conn, "mta")

        line, found, has_mta = await frame.reader.read(read)
        return frame.page(
            request, "mid_delivery.html", "deliveries", line=line, dispatch=found, has_mta=has_mta,
            reasons=found.reasons(line, has_mta=has_mta), connections=frame.instance.connections_per_destination,
            live=not line.is_final,
        )  # fmt: skip

    async def accounts(request: Request) -> Response:
        found = await frame.reader.read(mid_view.accounts)
        return frame.page(request, "mid_accounts.html", "submitters", accounts=found, live=True)

    return [
        Page("/", status),
        Page("/deliveries", deliveries),
        Page("/deliveries/{account}/{number}", delivery),
        Page("/accounts", accounts),
    ]
