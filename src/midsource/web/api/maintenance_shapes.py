"""The bodies of the API about database maintenance."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool

from midsource.web.api.shapes import Shape


class MaintenanceRemark(Shape):
    """One thing that is wrong. ``level`` now: it does not wait for the weekly run."""

    level: Literal["now", "soon", "note"]
    kind: str = Field(examples=["dead rows"])
    subject: str = Field(examples=["message_202603"])
    wrong: str
    costs: str
    remedy: str
    weight: float


class MaintenanceStep(Shape):
    """An action that is due, with its SQL; ``why_not`` is empty where it may begin now."""

    act: str
    relation: str
    reason: str
    read_bytes: int
    write_bytes: int
    gain_bytes: int
    seconds: float = Field(description="How long it takes at most, by expectation.")
    urgent: bool
    why_not: str
    sql: str


class MaintenanceAction(Shape):
    """What was done, is advised or asked for. Sizes in bytes, null where there is none."""

    id: int
    run_id: int | None
    asked_at: datetime
    asked_by: str = Field(description="Empty: the schedule.")
    act: str
    relation: str
    reason: str
    statement: str
    expected_bytes: int
    expected_gain: int
    outcome: Literal["asked", "advised", "running", "done", "skipped", "failed", "cut"]
    began_at: datetime | None
    ended_at: datetime | None
    seconds: float | None
    bytes_before: int | None
    bytes_after: int | None
    error: str


class Maintenance(Shape):
    """The state of a database's upkeep; ``remarks`` and ``plan`` in their order, ``actions`` newest first."""

    at: datetime
    urgent: bool
    mode: Literal["execute", "advise"]
    window: dict[str, Any] = Field(description="Hours of low activity, their zone, and when they begin next.")
    remarks: list[MaintenanceRemark]
    plan: list[MaintenanceStep]
    tables: list[dict[str, Any]]
    indexes: list[dict[str, Any]]
    server: dict[str, Any]
    forecasts: list[dict[str, Any]]
    actions: list[MaintenanceAction]
    unseen: list[str] = Field(description="What the database role may not see, and settings that cannot be meant.")
    pgstattuple: bool = Field(description="Whether bloat is measured; else it is estimated.")


class MaintenanceOrder(Shape):
    """An order; without relations whatever is due."""

    act: Literal["vacuum", "reindex"]
    relations: list[Annotated[str, Field(min_length=1, max_length=128)]] = Field(default=[], max_length=100)
    advise: StrictBool = Field(default=False, description="Keep the statements for the DBA; execute nothing.")
