"""The link API of a mid, ``/mid/v1``: what a marketing instance may ask. Paths and bodies: ``wire.schema``.

Endpoints read a bounded body on the event loop, then work in a bounded number of threads; inflating and receiving parts
has its own smaller number, because a part may inflate to 64 MB. The guard has found the account before; it reaches
nothing but its own rows. What is answered with 2xx is durable.
"""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar, cast

import msgspec
import structlog
from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from midsource import __version__
from midsource.config import InstanceConfig
from midsource.mid import deliveries, feed, hold, orders, reception, statistics
from midsource.mid.accounts import Account
from midsource.mid.cursor import Cursor, Forgotten, Gone
from midsource.model.clock import Clock
from midsource.model.errors import NotFound, UserError
from midsource.store import processes
from midsource.store.database import Database, scalar
from midsource.web import bodies, link_reconcile
from midsource.web.link_reconcile import Look
from midsource.web.waiting import FeedWaiters
from midsource.wire.hold import Known
from midsource.wire.rows import compress
from midsource.wire.schema import (
    MAX_BODY_BYTES,
    MAX_PAGE_ROWS,
    MAX_PART_BYTES,
    MAX_PART_RAW_BYTES,
    MAX_WAIT_SECONDS,
    PROTOCOL,
    Command,
    DeliverySpec,
    Finalise,
    Hello,
)

PREFIX = "/mid/v1"
PARTS_AT_ONCE = 2
"""Parts inflated and received at the same time: 64 MB each at most, and two cores are busy with it."""
MISSED_TURN_SECONDS = 0.05
"""Pause before looking again when another process is numbering the feed just now."""
_PART = re.compile(r"[0-9]{1,6}(\.[0-9]{1,4}){0,8}")
_STREAMS: dict[str, feed.Stream] = {"deliveries": "deliveries", "logs": "logs"}

T = TypeVar("T")
log = structlog.get_logger()


class Link:
    """The endpoints over one mid's database."""

    def __init__(
        self, instance: InstanceConfig, database: Database, clock: Clock, waiters: FeedWaiters, threads: CapacityLimiter
    ) -> None:
        self._instance = instance
        self._database = database
        self._clock = clock
        self._waiters = waiters
        self._threads = threads
        self._part_threads = CapacityLimiter(PARTS_AT_ONCE)

    def routes(self) -> list[Route]:
        """Return the routes, with their full paths."""
        delivery = PREFIX + "/deliveries/{delivery_id:int}"
        return [
            Route(PREFIX + "/hello", self.hello, methods=["GET"]),
            Route(delivery, self.put_delivery, methods=["PUT"]),
            Route(delivery + "/parts/{part}", self.put_part, methods=["PUT"]),
            Route(delivery + "/parts/{part}", self.get_part, methods=["GET"]),
            Route(delivery + "/finalize", self.finalise, methods=["POST"]),
            Route(delivery + "/commands", self.command, methods=["POST"]),
            Route(delivery + "/reconcile", self.reconcile, methods=["GET"]),
            Route(delivery + "/known", self.take_known, methods=["POST"]),
            Route(PREFIX + "/hold", self.look_at_hold, methods=["GET"]),
            Route(PREFIX + "/hold/release", self.release, methods=["POST"]),
            Route(delivery + "/statistics", self.statistics, methods=["GET"]),
            Route(PREFIX + "/feed/{stream}", self.read_feed, methods=["GET"]),
        ]

    async def hello(self, request: Request) -> Response:
        """Say who this mid is; the first thing an account test asks."""
        generation, dispatch = await self._in_thread(partial(self._self, _account(request).id))
        return _json(
            Hello(
                product="midsource",
                version=__version__,
                protocols=(PROTOCOL,),
                instance=self._instance.name,
                account=_account(request).name,
                generation=generation,
                now=self._clock.now(),
                transport=self._instance.transport,
                dispatch=dispatch,
            )
        )

    async def put_delivery(self, request: Request) -> Response:
        """Take the content of a delivery in."""
        spec = await self._body(request, DeliverySpec)
        if spec.id != _delivery_id(request):
            raise UserError(f"the body is delivery {spec.id}, the address another", "send it to its own address")
        answer = await self._in_thread(
            partial(deliveries.put_delivery, self._database, _account(request).id, spec, self._clock.now())
        )
        _told(request, "delivery_received", delivery=spec.id, created=answer.created)
        return _json(answer, 201 if answer.created else 200)

    async def put_part(self, request: Request) -> Response:
        """Take one part in."""
        number, part = _delivery_id(request), _part(request)
        content_hash = request.headers.get("x-content-hash", "")
        if not re.fullmatch(r"[0-9a-f]{64}", content_hash):
            raise UserError(
                "the header X-Content-Hash is missing or no SHA-256", "send the hash of the uncompressed lines"
            )
        body = await bodies.read(request, MAX_PART_BYTES)
        encoding = request.headers.get("content-encoding", "")
        account_id, now = _account(request).id, self._clock.now()

        def receive() -> Any:
            raw = bodies.inflate(body, encoding, MAX_PART_RAW_BYTES)
            return reception.put_part(self._database, account_id, number, part, raw, content_hash, now)

        answer = await to_thread.run_sync(receive, limiter=self._part_threads)
        _told(
            request,
            "part_received",
            delivery=number,
            part=part,
            accepted=answer.accepted,
            refused=len(answer.refused),
            repeated=answer.repeated,
        )
        return _json(answer)

    async def get_part(self, request: Request) -> Response:
        """Tell what was taken of a part, or 404."""
        wanted = (_account(request).id, _delivery_id(request), _part(request))
        return _json(await self._in_thread(partial(reception.get_part, self._database, *wanted)))

    async def finalise(self, request: Request) -> Response:
        """Compare what the sender believes with what is here."""
        claim = await self._body(request, Finalise)
        number = _delivery_id(request)
        answer = await self._in_thread(
            partial(reception.finalise, self._database, _account(request).id, number, claim, self._clock.now())
        )
        _told(request, "finalised", delivery=number, agreed=answer.agreed, messages=answer.messages)
        return _json(answer)

    async def command(self, request: Request) -> Response:
        """Carry out an order."""
        verb = (await self._body(request, Command)).verb
        number = _delivery_id(request)
        answer = await self._in_thread(
            partial(orders.command, self._database, _account(request).id, number, verb, self._clock.now())
        )
        _told(request, "ordered", delivery=number, verb=verb, state=answer.state)
        return _json(answer)

    async def look_at_hold(self, request: Request) -> Response:
        """Tell whether the account is held, because this mid was restored."""
        return _json(await self._in_thread(partial(hold.look, self._database, _account(request).id)))

    async def take_known(self, request: Request) -> Response:
        """Take what the delivery log knows of a delivery under way."""
        known = await self._body(request, Known)
        where = (self._database, _account(request).id, _delivery_id(request), known.rows, self._clock.now())
        return _json(await self._in_thread(partial(hold.take_known, *where, last=known.last)))

    async def release(self, request: Request) -> Response:
        """Dispatch the account's messages again."""
        answer = await self._in_thread(partial(hold.release, self._database, _account(request).id, self._clock.now()))
        _told(request, "released", released=answer.released, uncertain=answer.uncertain)
        return _json(answer)

    async def reconcile(self, request: Request) -> Response:
        """Tell what the ledger holds of a delivery: counted, in sums of blocks, or row by row."""
        return await self._looked(request, link_reconcile.wanted(request.query_params))

    async def statistics(self, request: Request) -> Response:
        """Tell what became of a delivery's messages by recipient domain."""
        return await self._looked(request, statistics.read)

    async def _looked(self, request: Request, look: Look) -> Response:
        where = (self._database, _account(request).id, _delivery_id(request), self._clock.now())
        encoding = _accepted(request.headers.get("accept-encoding", ""))
        body = await self._in_thread(lambda: _encoded(msgspec.json.encode(look(*where)), encoding))
        headers = {"Content-Encoding": encoding} if encoding else {}
        return Response(body, headers=headers | {"Vary": "Accept-Encoding"}, media_type="application/json")

    async def read_feed(self, request: Request) -> Response:
        """Serve a page; with ``wait`` only when there is one, or when the time is over."""
        ask, wait = _ask(request)
        account_id = _account(request).id
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        encoding = _accepted(request.headers.get("accept-encoding", ""))
        while True:
            try:
                page, body = await self._in_thread(partial(self._page, account_id, ask, encoding))
            except Gone as exc:
                await self._in_thread(partial(self._hold_if_behind, account_id, ask, exc.rewound.generation))
                return _json(exc.rewound, exc.http_status)
            except Forgotten as exc:
                return _json(exc.gone, exc.http_status)
            left = deadline - loop.time()
            if page.head.rows or str(page.cursor) != (ask.after or str(page.cursor)) or left <= 0:
                break
            if self._waiters.stopping or await request.is_disconnected():
                break
            if page.head.more:
                await asyncio.sleep(min(MISSED_TURN_SECONDS, left))
            else:
                await self._waiters.news(account_id, page.cursor.seq, left)
        headers = {"Content-Encoding": encoding} if encoding else {}
        return Response(body, headers=headers | {"Vary": "Accept-Encoding"}, media_type="application/x-ndjson")

    def _page(self, account_id: int, ask: feed.Ask, encoding: str) -> tuple[feed.Page, bytes]:
        page = feed.read_page(self._database, account_id, ask, self._clock.now())
        if ask.acknowledged:
            given = Cursor.parse(ask.acknowledged)
            # One from before this database was put back says nothing of the results that it makes now.
            if given.generation == page.cursor.generation and given.seq <= page.head.head_seq:
                feed.acknowledge(self._database, account_id, ask.stream, given, self._clock.now())
        return page, _encoded(msgspec.json.encode(page.head) + b"\n" + page.lines, encoding)

    def _hold_if_behind(self, account_id: int, ask: feed.Ask, generation: str) -> None:
        """Hold the account where it knows more of this very database's feed than the database does: it was put back."""
        if str(Cursor.parse(ask.after).generation) == generation:
            with self._database.transaction() as conn:
                hold.begin(conn, account_id)

    def _self(self, account_id: int) -> tuple[str, bool]:
        with self._database.connection() as conn:
            dispatch = processes.any_alive(conn, "mta") and not hold.is_held(conn, account_id)
            return str(scalar(conn, "select generation from instance")), dispatch

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await to_thread.run_sync(work, limiter=self._threads)

    async def _body(self, request: Request, kind: type[T]) -> T:
        body = await bodies.read(request, MAX_BODY_BYTES)
        return bodies.decode(bodies.inflate(body, request.headers.get("content-encoding", ""), MAX_BODY_BYTES), kind)


def _json(value: msgspec.Struct, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _account(request: Request) -> Account:
    return cast("Account", request.state.account)


def _told(request: Request, action: str, **about: Any) -> None:
    """Log what an account did, by ids."""
    log.info(action, action=action, account=_account(request).name, **about)


def _delivery_id(request: Request) -> int:
    number: int = request.path_params["delivery_id"]
    if not 0 < number < 1 << 63:
        raise NotFound(f"there is no delivery {str(number)[:40]}", "")
    return number


def _part(request: Request) -> str:
    part: str = request.path_params["part"]
    if not _PART.fullmatch(part):
        raise UserError(f"{part[:40]!r} is no number of a part", "parts are 1, 2, … and pieces of them 2.1, 2.2, …")
    return part


def _ask(request: Request) -> tuple[feed.Ask, float]:
    """Read the query of a feed: (what is asked, seconds to wait)."""
    stream = _STREAMS.get(request.path_params["stream"])
    if stream is None:
        raise NotFound(f"there is no feed {request.path_params['stream'][:40]!r}", f"feeds: {', '.join(_STREAMS)}")
    query = request.query_params
    try:
        limit = int(query.get("limit", MAX_PAGE_ROWS))
        wait = min(max(float(query.get("wait", "0")), 0.0), MAX_WAIT_SECONDS)
        since = datetime.fromisoformat(query["since"]).astimezone(UTC) if _zoned(query.get("since", "")) else None
    except (ValueError, OverflowError) as exc:
        raise UserError(
            f"the query of the feed cannot be read ({exc})", "limit and wait are numbers, since a time"
        ) from exc
    return feed.Ask(stream, query.get("after", ""), since, limit, query.get("held")), wait


def _zoned(text: str) -> bool:
    if text and datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("since has no zone")
    return bool(text)


def _encoded(body: bytes, encoding: str) -> bytes:
    if encoding == "zstd":
        return compress(body)
    return gzip.compress(body, compresslevel=1) if encoding == "gzip" else body


def _accepted(header: str) -> str:
    """Return the encoding of the answer: zstd before gzip before none; a weight of 0 means no."""
    accepted = {
        name.strip()
        for name, _, weight in (part.partition(";") for part in header.lower().split(","))
        if weight.replace(" ", "") not in ("q=0", "q=0.0")
    }
    return next((name for name in ("zstd", "gzip") if name in accepted), "")
