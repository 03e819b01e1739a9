"""The bodies of the API about deliveries and what is asked of them; the rules of shapes.py hold here too."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field, StrictInt

from midsource.web.api.shapes import Shape, Text


class Delivery(Shape):
    """A delivery without its content. Times are UTC; null: not yet."""

    id: int
    label: str
    state: str
    state_number: int
    account: str
    brand: str
    template: str | None
    targeted: int | None
    excluded: int | None
    to_deliver: int | None
    handed_over: int | None
    refused: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    figures: dict[str, int] = Field(description="What the mid last said, by state of message.")
    figures_at: datetime | None = Field(description="The figures are as of then.")
    ordered: str | None = Field(description="The last order: start, pause, resume or stop.")
    order_confirmed: bool = Field(description="Whether the mid has confirmed that order.")
    error: str


class DeliveryDetail(Delivery):
    """A delivery with what became of each copy, by state, findings of the checks and phases of the preparation."""

    subject: str
    counts: dict[str, int] = Field(description="Rows of the delivery log by state.")
    findings: list[dict[str, Any]]
    phases: list[dict[str, Any]]
    link: list[str] = Field(description="The latest failures of the link, newest first.")


class DeliveryPage(Shape):
    """Deliveries, newest first."""

    deliveries: list[Delivery]


class SenderIn(Shape):
    """Who a delivery is from; what is left out comes from the brand."""

    name: Text | None = Field(default=None, max_length=200)
    address: Text | None = Field(default=None, min_length=3, max_length=320)
    reply_to: Text | None = Field(default=None, min_length=3, max_length=320)


class TargetIn(Shape):
    """Who a delivery is for: a list, a segment or an expression; nothing: everybody."""

    list: Text | None = Field(default=None, min_length=1, max_length=200)
    segment: Text | None = Field(default=None, min_length=1, max_length=200)
    expression: Text | None = Field(default=None, max_length=10_000)


class RetryIn(Shape):
    """How often and how far apart a deferred message is tried again."""

    count: StrictInt | None = Field(default=None, ge=0, le=100)
    period: Text | None = Field(default=None, max_length=20, examples=["1h"])


class WaveIn(Shape):
    """Send in waves: each of ``size`` (a share, or a number of messages), ``every`` so long."""

    size: Text = Field(max_length=20, examples=["20%", "5000"])
    every: Text = Field(max_length=20, examples=["1d"])


class RecurrenceIn(Shape):
    """Make a delivery of it at each tick; begins when it is sent."""

    schedule: Text = Field(min_length=1, max_length=200, examples=["weekly on monday at 09:00"])
    zone: Text = Field(default="UTC", min_length=1, max_length=200)
    open: int = Field(default=1, ge=1, le=100, description="How many of it may be under way at one time.")
    until: datetime | None = Field(default=None, description="With its zone; no tick from then on.")


class DeliveryIn(Shape):
    """A delivery to create; the same keys as in a delivery file. What is left out comes from the template."""

    label: Text = Field(min_length=1, max_length=200)
    account: Text | None = Field(default=None, min_length=1, max_length=200)
    brand: Text = Field(default="default", min_length=1, max_length=200)
    template: Text | None = Field(default=None, min_length=1, max_length=200)
    subject: Text | None = Field(default=None, max_length=2_000)
    html: Text | None = None
    text: Text | None = None
    contact_at: datetime | None = Field(default=None, description="With its zone; not sent before.")
    validity: Text | None = Field(default=None, max_length=20, examples=["5d"])
    uncertain: Literal["hold", "resend"] | None = None
    sender: SenderIn = SenderIn()
    target: TargetIn = TargetIn()
    retry: RetryIn = RetryIn()
    headers: dict[Text, Text] = Field(default={}, max_length=50)
    wave: WaveIn | None = None
    recurrence: RecurrenceIn | None = None


class Created(Shape):
    """The number of what was created."""

    id: int


class Asked(Shape):
    """What was asked for. The job carries it out; ask ``GET /jobs/{id}``. An empty job: it is done already."""

    id: int
    job: str


class Job(Shape):
    """Work that was asked for. ``outcome`` null: it goes on."""

    id: str
    kind: str
    subject: int
    asked_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    outcome: Literal["finished", "failed", "aborted"] | None
    error: str
    progress: dict[str, Any]
    slices: int


class LogRow(Shape):
    """What became of one copy."""

    id: int
    email: str
    status: str = Field(description="The field's word.")
    state: str = Field(description="The same with our own deferred and uncertain.")
    reason: str
    reply: str
    attempts: int
    uncertain: bool
    message_id: str
    event_at: datetime


class LogPage(Shape):
    """Rows of a delivery log in order of id."""

    rows: list[LogRow]


class Story(Shape):
    """An explanation: sentences, and the facts they stand on."""

    story: list[str]
    facts: dict[str, Any]


class Reconciliation(Shape):
    """One comparison of a delivery's log with its mid's ledger: what differed, and what was mended."""

    id: int
    delivery_id: int
    account: str
    asked_by: str
    dry_run: bool
    started_at: datetime
    finished_at: datetime | None
    blocks: int = Field(description="Ranges of a thousand messages compared by their hash.")
    differing: int = Field(description="Ranges in which at least one row differed.")
    rows: int = Field(description="Rows compared one by one.")
    missing: int
    behind: int = Field(description="Rows whose result had been skipped.")
    ahead: int = Field(description="Rows that claimed more than the mid ever knew.")
    changed: int
    repaired: int
    unexplained: int = Field(description="Rows that the mid does not know; they are kept.")
    unjudged: int
    moving_blocks: int
    lost: int = Field(description="People targeted who have no row on either side.")
    totals_wrong: int
    mid_counters_wrong: int
    delivery_wrong: bool
    seconds: float
    examples: list[dict[str, Any]]
    problem: str = Field(description="Why it could not be compared; empty where it could.")
    differences: int
    clean: bool
    settled: bool
    sentence: str


class Reconciliations(Shape):
    """The last comparisons of a delivery, newest first."""

    reports: list[Reconciliation]


class DomainStatistics(Shape):
    """Messages of one recipient domain by state. ``domain`` null: of all those not among the thousand largest."""

    domain: str | None
    messages: int
    sent: int
    failed: int
    pending: int
    cancelled: int
    deferred: int
    uncertain: int
    failed_because: dict[str, int]
    first_at: datetime | None = Field(description="The first try at any of them.")
    last_at: datetime | None = Field(description="The last change of any of them.")
    rate_per_second: float | None


class DeliveryStatistics(Shape):
    """Statistics by domain. ``read_at`` null: nothing was read yet."""

    read_at: datetime | None
    domains: int
    agrees: bool | None = Field(description="Whether they equal the log's totals; null where that cannot be told yet.")
    rows: list[DomainStatistics]
