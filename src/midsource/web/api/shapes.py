"""The bodies of the API. Fields are added over time; none goes away or changes its meaning within ``v1``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool

MAX_CONTENT = 1_000_000
"""Characters of HTML or text."""


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character, which no text has")
    return text


Text = Annotated[str, AfterValidator(_without_nul)]


class Shape(BaseModel):
    """What all bodies have: answers come from rows as they are, requests with unknown fields are refused."""

    model_config = ConfigDict(from_attributes=True, extra="forbid", str_max_length=MAX_CONTENT)


class ProblemShape(Shape):
    """Why a request was refused: a stable code, the cause, the remedy. Each code has a page in the documentation."""

    code: str = Field(examples=["MS-120"])
    cause: str = Field(examples=["there is no delivery 7"])
    remedy: str = Field(default="", examples=["see the list of deliveries"])


class Recipient(Shape):
    """One person. ``fields`` holds the own fields."""

    id: int
    external_id: str | None
    email: str | None
    address_problem: str = Field(description="Why the address cannot be mailed; empty where it can.")
    first_name: str | None
    last_name: str | None
    language: str | None
    opted_out: bool
    fields: dict[str, Any]
    created_at: datetime
    modified_at: datetime


class RecipientPage(Shape):
    """People in order of id."""

    total: int = Field(description="People in all, of the list if one was named.")
    recipients: list[Recipient]


class Erased(Shape):
    """What an erasure did."""

    people: int
    log_rows: int = Field(description="Rows of delivery logs that hold the address no more.")


class Segment(Shape):
    """A condition over people, by name."""

    name: str
    expression: str
    created_at: datetime


class SegmentIn(Shape):
    """A segment to store."""

    name: Text = Field(min_length=1, max_length=200)
    expression: Text = Field(min_length=1, max_length=10_000, examples=["language = 'fr' and loyalty_points >= 100"])


class Condition(Shape):
    """A condition to try."""

    expression: Text = Field(min_length=1, max_length=10_000)


class Preview(Shape):
    """How many people a condition chooses, and the first of them: id, address, first and last name."""

    count: int
    examples: list[tuple[int, str | None, str | None, str | None]]


class Account(Shape):
    """An external account, without its key."""

    name: str
    label: str
    url: str
    active: bool
    last_hello_at: datetime | None
    last_problem: str


class Step(Shape):
    """One step of the test of a link."""

    name: str
    outcome: str
    seconds: float
    told: str
    problem: str


class AccountTest(Shape):
    """What calling the mid found, step by step. No problem: the link is fine."""

    ok: bool
    problems: list[str]
    version: str | None
    skew_seconds: float
    steps: list[Step]


class Option(Shape):
    """An option or a pointer. ``modified_by`` empty: it has its default."""

    name: str
    value: str
    default: str
    unit: str
    description: str
    modified_by: str
    modified_at: datetime | None


class OptionIn(Shape):
    """A new value, with its unit. ``confirm``: leave out what a pointer that moves forward skips."""

    value: Text = Field(max_length=1_000, examples=["180d"])
    confirm: StrictBool = False


class Said(Shape):
    """What was done, as a sentence."""

    said: str


class Process(Shape):
    """A process as it last reported itself."""

    name: str
    kind: str
    host: str
    pid: int
    started_at: datetime
    beat_at: datetime
    alive: bool


class Instance(Shape):
    """This instance."""

    name: str
    role: Literal["marketing", "mid"]
    version: str
    now: datetime
    processes: list[Process]


class AuditEntry(Shape):
    """Who did what, to what, when."""

    id: int
    at: datetime
    who: str
    via: str
    verb: str
    subject: str
    detail: Any


class AuditPage(Shape):
    """Entries, newest first; ``before`` goes on, null at the end."""

    entries: list[AuditEntry]
    before: int | None
