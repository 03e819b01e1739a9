"""The bodies of the API about findings, checks and supervisors."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StrictInt

from midsource.web.api.shapes import Shape, Text


def _whole(value: object) -> object:
    """JSON has one kind of number: 3600.0 is a whole one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Told = Literal["info", "warning", "error", "critical"]


class FindingShape(Shape):
    """Something a check sees, with what to do about it. ``closed_at`` null: it is open."""

    id: int
    check: str = Field(examples=["pointer.late"])
    subject: str = Field(description="What it is about; empty where there is only one.")
    severity: Told
    evidence: str
    cause: str
    remedy: str
    answers: list[str] = Field(description="Known failures it is about.", examples=[["F30"]])
    healable: bool
    treatment: str = Field(description="What the doctor would do; empty where it can do nothing.")
    opened_at: datetime
    seen_at: datetime
    changed_at: datetime
    closed_at: datetime | None
    times_seen: int
    muted_until: datetime | None
    muted_by: str


class CheckShape(Shape):
    """A check, and when it last looked."""

    name: str
    severity: Told = Field(description="The worst it says.")
    answers: list[str]
    looks_at: str
    remedy: str
    every_seconds: int = Field(description="0: at each look.")
    looked_at: datetime | None
    seconds: float | None
    found: int | None
    problem: str = Field(description="Why it could not look; empty where it could.")


class HealingShape(Shape):
    """What was done about a finding."""

    id: int
    at: datetime
    by: str
    what: str
    before: str
    after: str
    outcome: Literal["done", "failed"]
    can_undo: bool
    undone_at: datetime | None
    undone_by: str


class MuteIn(Shape):
    """For how long nobody is told; 0: tell again."""

    seconds: Annotated[StrictInt, BeforeValidator(_whole)] = Field(ge=0, le=90 * 86_400)


class Undone(Shape):
    """What undoing did."""

    said: str


class SupervisorIn(Shape):
    """A new supervisor."""

    name: Text = Field(min_length=1, max_length=63)
    channel: Literal["webhook", "syslog", "smtp"]
    address: Text = Field(min_length=1, max_length=1_000, examples=["https://alerts.example/hook"])
    severity: Literal["warning", "error", "critical"] = "warning"
    quiet: Text = Field("", max_length=11, examples=["22:00-07:00"])
    digest: Text = Field("", max_length=5, examples=["07:30"])
    zone: Text = Field("UTC", max_length=64, examples=["Europe/Paris"])
    language: Literal["en", "fr", "pt"] = "en"


class SupervisorShape(Shape):
    """A supervisor; the path of a webhook's address is not shown."""

    name: str
    channel: Literal["webhook", "syslog", "smtp"]
    address: str
    severity: Literal["warning", "error", "critical"]
    quiet_from: str
    quiet_to: str
    digest_at: str
    zone: str
    language: Literal["en", "fr", "pt"]
    muted_until: datetime | None
    failures: int = Field(description="Tries in vain since it was last told.")
    last_problem: str
    last_told_at: datetime | None
    waiting: int = Field(description="Changes it was not told yet.")


class SupervisorMade(SupervisorShape):
    """A supervisor with the secret that signs its webhooks, shown this once; empty for other channels."""

    secret: str


class SupervisorTold(Shape):
    """What a supervisor's side answered to a test."""

    answer: str
