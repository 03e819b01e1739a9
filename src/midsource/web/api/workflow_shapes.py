"""The bodies of the API about technical workflows and what one orders from `cleanup`; the rules of shapes.py hold here too."""

from __future__ import annotations

from datetime import date, datetime

from pydantic import Field, StrictBool, StrictInt

from midsource.web.api.shapes import Shape, Text


class Workflow(Shape):
    """A technical workflow. ``failed`` is a flag beside the state."""

    name: str
    label: str
    state: str
    failed: bool
    schedule: str
    zone: str
    last_run: datetime | None
    last_success: datetime | None
    next_run: datetime | None
    next_ticks: list[datetime]
    consecutive_failures: int
    last_error: str
    waits: str
    """What it waits for after failures, until when, and what ends the wait; '' where it does not."""
    held_at: datetime | None
    held_by: str


class Run(Shape):
    """One run of a technical workflow. ``outcome`` null: it goes on."""

    id: int
    asked_at: datetime
    asked_by: str
    started_at: datetime | None
    finished_at: datetime | None
    outcome: str | None
    slices: int
    rows_read: int
    rows_written: int
    rows_refused: int
    window_from: str
    window_to: str
    error: str


class WorkflowDetail(Workflow):
    """A technical workflow with its latest runs, newest first."""

    runs: list[Run]


class JournalLine(Shape):
    """One line of a journal."""

    at: datetime
    level: str
    line: str


class RestartIn(Shape):
    """What to restart: by name, everything that failed, everything with a schedule."""

    names: list[Text] = Field(default=[], max_length=50)
    failed: StrictBool = False
    scheduled: StrictBool = False
    dry_run: StrictBool = False


class Restarted(Shape):
    """What was (or would be) restarted with the numbers of the runs, and what was left and why."""

    restarted: dict[str, int | None]
    left: dict[str, str]
    different: dict[str, str]
    """What is done differently from the last runs, where those failed alike."""
    problems: dict[str, str]


class ScheduleIn(Shape):
    """When a workflow is due. `valid_from`, `valid_to`: times in its zone, or with an offset; `between`: as in 22:00-06:00."""

    schedule: Text
    zone: Text = "UTC"
    valid_from: Text = ""
    valid_to: Text = ""
    runs_left: StrictInt | None = Field(default=None, ge=1, le=1_000_000)
    between: Text = ""
    dry_run: StrictBool = False


class Schedule(Shape):
    """When a workflow is due, and its next five ticks. `saved`: whether this request changed it."""

    schedule: str
    zone: str
    valid_from: datetime | None
    valid_to: datetime | None
    runs_left: int | None
    between: str
    next_ticks: list[datetime]
    saved: bool


class Killed(Shape):
    """What an unconditional stop ended: the run, null where there was none, and how many database sessions were cancelled."""

    run: int | None
    sessions: int


class Concurrency(Shape):
    """How many technical workflows ran at once: 288 cells of five minutes, and the names in the busiest of them."""

    day: date
    cells: list[int]
    busiest: list[str]


class RunAsked(Shape):
    """The run that was asked for."""

    run: int


class CleanupDone(Shape):
    """What a step of the cleanup did in the last run that took it up. ``outcome`` null: it goes on."""

    ended_at: datetime | None
    rows: int
    bytes: int
    seconds: float
    outcome: str | None
    error: str
    rows_before: int | None
    rows_after: int | None
    failures: int


class CleanupStep(Shape):
    """A step of the cleanup: what it would remove now, when it next finds something, and what it did last.

    ``rows`` stops at a million. ``option`` empty: how long things are kept is not set.
    """

    name: str
    removes: str
    option: str
    kept_seconds: int
    rows: int
    bytes: int
    next_at: datetime | None
    note: str
    last: CleanupDone | None


class CleanupIn(Shape):
    """Which step to do; empty: all."""

    step: Text = Field(default="", max_length=100, examples=["delivery_logs"])
