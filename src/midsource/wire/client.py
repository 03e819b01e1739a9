"""The marketing side of the link: one mid, one key, calls with limits; answers become values, failures sentences.

Every call has a time limit for the whole exchange (`wire.whole`), not only between two bytes, and a limit in bytes, before and after
decompression. Nothing is retried here: the caller knows what a repeat means. Redirects are not followed, TLS is verified
by the system's authorities, proxy variables of the environment are not read. An instance may be used by several threads.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeAlias, TypeVar
from urllib.parse import quote

import httpx2
import msgspec

from midsource.model.clock import Clock
from midsource.model.errors import RemoteRefused
from midsource.wire import failures
from midsource.wire.blocks import BlockPage, LedgerPage, LedgerSummary
from midsource.wire.encoding import BROKEN, inflate
from midsource.wire.hold import HoldAnswer, Known, KnownAnswer, ReleaseAnswer
from midsource.wire.schema import (
    MAX_BODY_BYTES,
    MAX_PAGE_BYTES,
    PROTOCOL,
    Command,
    CommandAnswer,
    DeliveryAnswer,
    DeliveryRow,
    DeliverySpec,
    FeedHead,
    Finalise,
    FinaliseAnswer,
    GoneBefore,
    Hello,
    LogRow,
    PartAnswer,
    Rewound,
)
from midsource.wire.statistics import Statistics
from midsource.wire.whole import WholeTransport

PRODUCT = "midsource"
"""What ``Hello.product`` must say."""
CONNECT_SECONDS = 5.0
CALL_SECONDS = 10.0
"""Small calls: a mid that needs longer is in trouble."""
PART_SECONDS = 30.0
"""A part commits in well under a second; 30 s is where proxies commonly cut (F03)."""
PAGE_SECONDS = 25.0
"""A feed page without waiting; with ``wait`` the wait comes on top."""
SLOWEST_BYTES_SECOND = 50_000
"""What is sent has this on top of the call's seconds: the largest part 40 s more, over a link of half a megabit."""
MAX_ANSWER_BYTES = MAX_BODY_BYTES
MAX_CONNECTIONS = 8
"""Three uploads, two polls, and the calls between."""
MAX_SKEW_SECONDS = 30.0
"""Clocks further apart than this are a finding (design 12)."""

RowT = TypeVar("RowT", LogRow, DeliveryRow)
AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True, slots=True)
class Page(Generic[RowT]):
    """One page of a feed: what it says about itself, and its rows."""

    head: FeedHead
    rows: list[RowT]


LogPage: TypeAlias = Page[LogRow]
DeliveryPage: TypeAlias = Page[DeliveryRow]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds allowed for whole exchanges; what a body takes to be sent over the slowest link comes on top."""

    call: float = CALL_SECONDS
    part: float = PART_SECONDS
    page: float = PAGE_SECONDS


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: httpx2.Headers
    body: bytes


class MidClient:
    """Calls to one mid at ``url`` with ``key`` (``<key id>.<secret>``). Use as a context: connections are closed at the end.

    Every method raises ``LinkFailure`` (later may work) or ``RemoteRefused`` (it will not).
    """

    def __init__(
        self,
        url: str,
        key: str,
        clock: Clock,
        *,
        timeouts: Timeouts | None = None,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._clock = clock
        self._timeouts = timeouts or Timeouts()
        self._logs = msgspec.json.Decoder(LogRow)
        self._deliveries = msgspec.json.Decoder(DeliveryRow)
        self._head = msgspec.json.Decoder(FeedHead)
        try:
            self._http = httpx2.Client(
                headers={
                    "Authorization": f"Bearer {key}",
                    "X-Midsource-Protocol": str(PROTOCOL),
                    "Accept-Encoding": "zstd, gzip",
                    "Accept": "application/json, application/x-ndjson",
                },
                transport=WholeTransport(
                    clock,
                    verify or (ssl.create_default_context() if self.url.startswith("https:") else None),
                    httpx2.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=30.0),
                ),
                trust_env=False,
                follow_redirects=False,
            )
        except (UnicodeEncodeError, ValueError) as exc:
            raise RemoteRefused(
                "the key of this external account is no key", "store the key as the mid printed it"
            ) from exc

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def __enter__(self) -> MidClient:
        """Use as a context."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def hello(self) -> Hello:
        """Ask who the mid is; raises RemoteRefused for a server that is no mid or speaks no protocol of ours."""
        answer = self._call("GET", "hello", self._timeouts.call)
        try:
            hello = msgspec.json.decode(answer.body, type=Hello)
        except msgspec.DecodeError as exc:
            kind = answer.headers.get("content-type", "no content type").split(";")[0]
            raise failures.not_a_mid(self.url, f"HTTP {answer.status}, {kind}", answer.status) from exc
        if hello.product != PRODUCT:
            raise failures.not_a_mid(self.url, f"it says it is {hello.product!r}", answer.status)
        if PROTOCOL not in hello.protocols:
            spoken = ", ".join(map(str, hello.protocols)) or "none"
            raise RemoteRefused(
                f"the mid {hello.instance} {hello.version} speaks protocol {spoken}, this instance {PROTOCOL}",
                "upgrade the mid first, then marketing",
                status=426,
            )
        return hello

    def skew_seconds(self, remote_now: datetime) -> float:
        """Return by how much the mid's clock is ahead of ours, as far as an answer tells (its way back is not known)."""
        return (remote_now - self._clock.now()).total_seconds()

    def put_delivery(self, spec: DeliverySpec) -> DeliveryAnswer:
        """Create the twin of a delivery on the mid; a repeat of the same is answered alike."""
        return self._json("PUT", f"deliveries/{spec.id}", DeliveryAnswer, content=msgspec.json.encode(spec))

    def put_part(self, delivery_id: int, part: str, body: bytes, content_hash: str) -> PartAnswer:
        """Send one part (zstd of canonical NDJSON); the same content again gets the first answer."""
        answer = self._call(
            "PUT",
            f"deliveries/{delivery_id}/parts/{part}",
            self._timeouts.part,
            content=body,
            headers={
                "Content-Type": "application/x-ndjson",
                "Content-Encoding": "zstd",
                "X-Content-Hash": content_hash,
            },
        )
        return self._parse(answer, PartAnswer)

    def get_part(self, delivery_id: int, part: str) -> PartAnswer | None:
        """Ask what the mid took of a part; None: it does not hold it."""
        try:
            return self._json("GET", f"deliveries/{delivery_id}/parts/{part}", PartAnswer)
        except RemoteRefused as exc:
            if exc.status == 404 and not isinstance(exc, failures.NotAMid):
                return None
            raise

    def finalise(self, delivery_id: int, totals: Finalise) -> FinaliseAnswer:
        """Compare count and hash; agreed means that the delivery is ready on the mid."""
        content = msgspec.json.encode(totals)
        return self._json(
            "POST", f"deliveries/{delivery_id}/finalize", FinaliseAnswer, content=content, seconds=self._timeouts.part
        )

    def command(self, delivery_id: int, verb: str) -> CommandAnswer:
        """Give an order: start, pause, resume or stop; repeating one that holds is answered like the first."""
        content = msgspec.json.encode(Command(verb=verb))
        return self._json(
            "POST", f"deliveries/{delivery_id}/commands", CommandAnswer, content=content, seconds=self._timeouts.part
        )

    def reconcile(self, delivery_id: int, *, mend: bool = False) -> LedgerSummary:
        """Ask what the mid's ledger holds of a delivery, counted anew; with ``mend`` the mid corrects its counters by it."""
        path = f"deliveries/{delivery_id}/reconcile" + ("?mend=1" if mend else "")
        return self._json("GET", path, LedgerSummary, seconds=self._timeouts.page)

    def reconcile_blocks(self, delivery_id: int, first: int, count: int) -> BlockPage:
        """Ask for the sums of ``count`` blocks from ``first`` on (wire/blocks.py)."""
        path = f"deliveries/{delivery_id}/reconcile?first={first}&count={count}"
        return self._json("GET", path, BlockPage, seconds=self._timeouts.page)

    def reconcile_rows(self, delivery_id: int, blocks: Sequence[int]) -> LedgerPage:
        """Ask for every message of a few blocks."""
        path = f"deliveries/{delivery_id}/reconcile?rows={','.join(map(str, blocks))}"
        answer = self._call("GET", path, self._timeouts.page, limit=MAX_PAGE_BYTES * 2)
        return self._parse(answer, LedgerPage)

    def hold(self) -> HoldAnswer:
        """Ask whether the mid holds our messages because it was restored, and of which deliveries it wants to be told."""
        return self._json("GET", "hold", HoldAnswer)

    def tell_known(self, delivery_id: int, known: Known) -> KnownAnswer:
        """Tell a page of what the delivery log knows."""
        content = msgspec.json.encode(known)
        path = f"deliveries/{delivery_id}/known"
        return self._json("POST", path, KnownAnswer, content=content, seconds=self._timeouts.part)

    def release(self) -> ReleaseAnswer:
        """Let the mid dispatch again; it names as uncertain what may have been sent since its backup."""
        return self._json("POST", "hold/release", ReleaseAnswer, content=b"{}", seconds=self._timeouts.part)

    def statistics(self, delivery_id: int) -> Statistics:
        """Ask what became of a delivery's messages by recipient domain."""
        return self._json("GET", f"deliveries/{delivery_id}/statistics", Statistics, seconds=self._timeouts.page)

    def feed_logs(
        self, *, after: str, since: datetime | None, limit: int, wait: float = 0, held: str | None = None
    ) -> LogPage | Rewound | GoneBefore:
        """Read a page of outcomes: after a cursor, or from a time, or (neither) from the oldest kept.

        Asking after a cursor acknowledges everything before it, or before ``held`` where a page is read ahead.
        """
        return self._feed("logs", self._logs, after, since, limit, wait, held)

    def feed_deliveries(
        self, *, after: str, since: datetime | None, limit: int, wait: float = 0, held: str | None = None
    ) -> DeliveryPage | Rewound | GoneBefore:
        """Read a page of deliveries whose state or counters changed; ``held`` as for outcomes."""
        return self._feed("deliveries", self._deliveries, after, since, limit, wait, held)

    def _feed(
        self,
        stream: str,
        decoder: msgspec.json.Decoder[RowT],
        after: str,
        since: datetime | None,
        limit: int,
        wait: float,
        held: str | None,
    ) -> Page[RowT] | Rewound | GoneBefore:
        query = {"limit": str(limit)}
        if held is not None:
            query["held"] = held
        if after:
            query["after"] = after
        elif since is not None:
            query["since"] = since.isoformat()
        if wait >= 1:
            query["wait"] = str(int(wait))
        path = f"feed/{stream}?" + "&".join(f"{name}={quote(value)}" for name, value in query.items())
        answer = self._call("GET", path, self._timeouts.page + wait, limit=MAX_PAGE_BYTES * 2, passing=(409, 410))
        if answer.status == 409:
            return self._parse(answer, Rewound)
        if answer.status == 410:
            return self._parse(answer, GoneBefore)
        end = answer.body.find(b"\n") + 1 or len(answer.body)
        body = memoryview(answer.body)  # a page is megabytes: no copy of it
        try:
            head = self._head.decode(body[:end])
            rows = decoder.decode_lines(body[end:])
        except msgspec.DecodeError as exc:
            raise failures.not_a_mid(self.url, f"its feed cannot be read: {exc}", answer.status) from exc
        if head.rows != len(rows):
            raise failures.cut(self.url, f"{len(rows)} of {head.rows} rows came")
        return Page(head, rows)

    def _json(
        self, method: str, path: str, kind: type[AnswerT], *, content: bytes | None = None, seconds: float | None = None
    ) -> AnswerT:
        headers = {"Content-Type": "application/json"} if content is not None else {}
        answer = self._call(method, path, seconds or self._timeouts.call, content=content, headers=headers)
        return self._parse(answer, kind)

    def _parse(self, answer: _Answer, kind: type[AnswerT]) -> AnswerT:
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except msgspec.DecodeError as exc:
            kind_told = answer.headers.get("content-type", "no content type").split(";")[0]
            raise failures.not_a_mid(self.url, f"HTTP {answer.status}, {kind_told}", answer.status) from exc

    def _call(
        self,
        method: str,
        path: str,
        seconds: float,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int = MAX_ANSWER_BYTES,
        passing: tuple[int, ...] = (),
    ) -> _Answer:
        url = f"{self.url}/mid/v1/{path}"
        seconds += len(content or b"") / SLOWEST_BYTES_SECOND
        timeout = httpx2.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))
        try:
            with self._http.stream(method, url, content=content, headers=headers, timeout=timeout) as response:
                raw = self._read(response, limit)
                body = inflate(raw, response.headers.get("content-encoding", ""), limit)
                answer = _Answer(response.status_code, response.headers, body)
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, ssl.SSLError, OSError, UnicodeError) as exc:
            raise failures.from_transport(exc, self.url, seconds) from exc
        except BROKEN as exc:
            raise failures.cut(self.url, f"its answer is no valid compression: {exc}") from exc
        if 200 <= answer.status < 300 or answer.status in passing:
            return answer
        raise failures.from_answer(answer.status, answer.headers, answer.body, self.url)

    def _read(self, response: httpx2.Response, limit: int) -> bytes:
        """Read the raw body within its limit of bytes."""
        pieces: list[bytes] = []
        size = 0
        for piece in response.iter_raw():
            size += len(piece)
            if size > limit:
                raise RemoteRefused(
                    f"{self.url} answers with more than {limit} bytes", "check that it is a mid of this version"
                )
            pieces.append(piece)
        return b"".join(pieces)
