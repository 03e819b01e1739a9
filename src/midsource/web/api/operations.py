"""What every operation of the API has: the permission it needs, what it is given, and how a page of a list looks.

An operation is a function of a router; ``needs(…)`` among its dependencies is what lets a visitor in, and ``app`` refuses
one that has none. Changes are recorded (security/audit.py) in the transaction that makes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request
from fastapi.params import Depends as Dependency

from midsource.config import Config, InstanceConfig
from midsource.model.clock import Clock
from midsource.model.errors import Unhealthy
from midsource.security import audit
from midsource.security.roles import Permission, Visitor
from midsource.store import processes
from midsource.store.database import Connection, Database
from midsource.web.api.shapes import ProblemShape
from midsource.web.routing import require, visitor_of

MAX_PAGE = 500
"""Rows of one page of a list."""
MAX_ID = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Api:
    """What operations work with."""

    config: Config
    instance: InstanceConfig
    database: Database
    clock: Clock

    @contextmanager
    def change(self, visitor: Visitor, verb: str, subject: object = "", **detail: object) -> Iterator[Connection]:
        """Open a transaction that ends with the record of what ``visitor`` did; nothing is kept if the block raises."""
        with self.database.transaction() as conn:
            yield conn
            audit.record(conn, visitor, verb, subject, **detail)

    def need_worker(self) -> None:
        """Raise Unhealthy where no worker is alive: what is asked for would lie there unseen."""
        with self.database.connection() as conn:
            if not processes.any_alive(conn, "worker"):
                raise Unhealthy(*processes.no_worker(self.instance.name))


@dataclass(frozen=True, slots=True)
class Needs:
    """Dependency: admits visitors that have ``permission``."""

    permission: Permission

    def __call__(self, request: Request) -> None:
        """Raise Forbidden unless the visitor may."""
        require(visitor_of(request.scope), self.permission)


def needs(permission: Permission) -> Dependency:
    """Return the dependency that an operation names what it needs with."""
    found = Depends(Needs(permission))
    assert isinstance(found, Dependency)
    return found


def refusals(conflict: str = "") -> dict[int | str, dict[str, Any]]:
    """Return how the document describes 404, and 409 where ``conflict`` says what it means."""
    told: dict[int | str, dict[str, Any]] = {404: {"model": ProblemShape, "description": "There is none."}}
    if conflict:
        told[409] = {"model": ProblemShape, "description": conflict}
    return told


def _visitor(request: Request) -> Visitor:
    return visitor_of(request.scope)


Caller = Annotated[Visitor, Depends(_visitor)]
"""Who makes the request."""
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Rows of the page.")]
After = Annotated[int, Query(ge=0, le=MAX_ID, description="Go on after this id: the last one of the page before.")]
Before = Annotated[int | None, Query(ge=1, le=MAX_ID, description="Go on before this id: the last of the page before.")]
Number = Annotated[int, Path(ge=1, le=MAX_ID, description="The delivery's number.")]
Name = Annotated[str, Path(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f/]+$")]
