"""``/metrics``: every figure of model/metrics.py as Prometheus text, gathered in bounded time and kept for a moment.

Order of events: a scrape comes with a key of scope ``metrics`` (or the home's token) · if the last look is older than KEPT_SECONDS, one
thread runs the measures of this role one after the other, each in a read-only transaction of its own with a
time limit · a measure that fails is missing, says so by ``midsource_measured``, and stops no other · the answer is that
look, together with what this process counted itself: requests and its pool of connections.

Bounds: STATEMENT_SECONDS a statement, GATHER_SECONDS a look, one look at a time. Database away: the process's own
figures are still answered, with status 200. Loopback is no credential: behind a proxy on this machine everybody
comes from there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import prometheus_client
import structlog
from anyio import CapacityLimiter, to_thread
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector, CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from midsource import __version__
from midsource.config import Config, InstanceConfig
from midsource.doctor import measures as of_doctor
from midsource.engine import measures as of_engine
from midsource.marketing import measures as of_marketing
from midsource.mid import measures as of_mid
from midsource.model.clock import Clock
from midsource.model.errors import Bug, MidsourceError
from midsource.model.metrics import METRICS, Sample, of_role
from midsource.security.roles import Permission
from midsource.store import measures as of_store
from midsource.store.database import Database
from midsource.store.measures import Measure
from midsource.web.problems import route_of
from midsource.web.routing import Page
from midsource.web.waiting import FeedWaiters

KEPT_SECONDS = 5.0
"""Two scrapers, or an impatient one, cost one look: figures are read every 15 to 60 s as a rule."""
STATEMENT_SECONDS = 2.0
"""Of one statement: a figure that takes longer to read would itself be a load."""
GATHER_SECONDS = 8.0
"""Of one look: what has not begun by then is left out. Scrapers give up after ten seconds."""
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 10.0, 30.0)
"""Seconds. 0.2 is what a console page may take, 30 where proxies cut."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})

_DECLARED = {metric.name: metric for metric in METRICS}

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # another series for each, that nobody reads

log = structlog.get_logger()


class Requests:
    """What this process counts about the requests it answers. One for an app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.answered = prometheus_client.Counter(
            *_declared("midsource_http_requests_total"), ["method", "route", "status"], registry=self.registry
        )
        self.seconds = prometheus_client.Histogram(
            *_declared("midsource_http_request_seconds"), ["route"], buckets=BUCKETS, registry=self.registry
        )
        self.under_way = prometheus_client.Gauge(
            *_declared("midsource_http_requests_under_way"), registry=self.registry
        )


class Counting:
    """ASGI middleware, outermost: counts each request by the route that answered it, never by its path."""

    def __init__(self, app: ASGIApp, *, requests: Requests) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and count when it is over."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500  # what the server answers when nothing was begun

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.perf_counter()
        self._requests.under_way.inc()
        try:
            await self._app(scope, receive, seen)
        finally:
            self._requests.under_way.dec()
            route = route_of(scope)
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._requests.answered.labels(method, route, str(status)).inc()
            self._requests.seconds.labels(route).observe(time.perf_counter() - began)


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    samples: tuple[Sample, ...]


class Metrics:
    """Endpoint of ``/metrics`` of one instance."""

    def __init__(
        self,
        config: Config,
        instance: InstanceConfig,
        database: Database,
        clock: Clock,
        requests: Requests,
        waiters: FeedWaiters,
    ) -> None:
        self._instance = instance
        self._database = database
        self._clock = clock
        self._waiters = waiters
        self._measures = measures_of(config, instance)
        self._thread = CapacityLimiter(1)
        self._lock = asyncio.Lock()
        self._last = _Look(float("-inf"), ())
        self._registry = requests.registry
        self._registry.register(_Figures(self._now_here, instance.role))

    def route(self) -> BaseRoute:
        """Return the route."""
        return Page("/metrics", self._answer, needs=Permission.METRICS)

    async def _answer(self, _request: Request) -> Response:
        async with self._lock:
            if self._clock.boot_seconds() - self._last.at >= KEPT_SECONDS:
                samples = await to_thread.run_sync(self._look, limiter=self._thread)
                self._last = _Look(self._clock.boot_seconds(), samples)
            text = prometheus_client.generate_latest(self._registry)
        return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST.partition("; charset")[0])

    def _now_here(self) -> Iterable[Sample]:
        """Return the last look, and what is known in this process at this moment."""
        yield from self._last.samples
        yield Sample("midsource_build_info", 1, (__version__, self._instance.role, self._instance.name))
        pool = self._database.pool_figures()
        for state in ("open", "idle", "most"):
            yield Sample("midsource_pool_connections", pool[state], (state,))
        yield Sample("midsource_pool_waiting", pool["waiting"])
        yield Sample("midsource_pool_failures_total", pool["failures"])
        if self._instance.role == "mid":
            yield Sample("midsource_feed_waiters", self._waiters.count())

    def _look(self) -> tuple[Sample, ...]:
        found: list[Sample] = []
        deadline = time.monotonic() + GATHER_SECONDS
        for part, measure in self._measures.items():
            began = time.monotonic()
            read = self._read(part, measure) if began < deadline else None
            found += read or ()
            found.append(Sample("midsource_measured", read is not None, (part,)))
            found.append(Sample("midsource_measure_seconds", time.monotonic() - began, (part,)))
        return tuple(found)

    def _read(self, part: str, measure: Measure) -> list[Sample] | None:
        try:
            with self._database.transaction(statement_seconds=STATEMENT_SECONDS) as conn:
                conn.execute("set transaction read only")
                return list(measure(conn, self._clock.now()))
        except MidsourceError as exc:
            log.warning("not_measured", action="not_measured", part=part, cause=str(exc))
        except Exception:  # a fault of ours in one figure must not take the others away
            log.exception("bug", action="bug", part=part)
        return None


def measures_of(config: Config, instance: InstanceConfig) -> Mapping[str, Measure]:
    """Return the measures of an instance by part; a part fails alone."""
    common: dict[str, Measure] = {
        "processes": of_store.living,
        "database": of_store.database,
        "upkeep": of_store.upkeep,
        "jobs": of_engine.jobs,
        "workflows": of_engine.workflows,
        "doctor": of_doctor.findings,
    }
    if instance.role == "marketing":
        return common | {
            "deliveries": of_marketing.deliveries,
            "parts": of_marketing.parts,
            "link": of_marketing.link,
            "pointers": of_marketing.pointers,
        }
    journals = config.home / "journal" / instance.name
    return common | {
        "deliveries": of_mid.deliveries,
        "dispatch": of_mid.dispatch,
        "feeds": of_mid.feeds,
        "journals": lambda conn, _now: of_mid.journals(conn, journals),
    }


class _Figures(Collector):
    """Hands samples to the library as families of their declaration; one that is not declared is a bug."""

    def __init__(self, samples: Callable[[], Iterable[Sample]], role: str) -> None:
        self._samples = samples
        self._role = role

    def collect(self) -> Iterator[Family]:
        """Yield a family for each figure of the role that has samples or may have some."""
        own = ("midsource_http_",)
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for metric in of_role(self._role):
            if not metric.name.startswith(own):
                kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
                families[metric.name] = kind(*_declared(metric.name), labels=metric.labels)
        for sample in self._samples():
            family = families.get(sample.name)
            if family is None:
                raise Bug(f"{sample.name} is no declared figure of a {self._role} instance")
            family.add_metric(sample.labels, float(sample.value))
        yield from families.values()


def _declared(name: str) -> tuple[str, str]:
    metric = _DECLARED[name]
    return name, metric.meaning
