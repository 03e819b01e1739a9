"""The list of deliveries: newest first, searched by label, filtered by what they are at and by account.

Everything of a page is read in three statements, whatever the number of deliveries on it; no content, no log row. A search
looks at the LOOKED newest deliveries below where it goes on, so that one that finds nothing ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from psycopg import sql
from psycopg.rows import class_row

from midsource.marketing import samples, waiting
from midsource.marketing.waiting import Wait
from midsource.model.delivery import DeliveryState
from midsource.policy import pace
from midsource.policy.pace import Forecast
from midsource.store.database import Connection, scalar
from midsource.web.console.pages.overview import DeliveryLine

PAGE_ROWS = 25
LOOKED = 20_000
"""Deliveries one search looks at: years of them, some 20 ms."""
MAX_LABEL = 200
S = DeliveryState
STAGES: dict[str, tuple[DeliveryState, ...]] = {
    "edited": (S.EDITED, S.TARGET_READY, S.PERSONALISATION, S.MESSAGE_FINALISED),
    "ready": (S.READY,),
    "running": (S.START_PENDING, S.IN_PROGRESS, S.RETRY),
    "paused": (S.PAUSE_REQUESTED, S.PAUSING, S.PAUSED),
    "failed": (S.PREPARATION_FAILED, S.FAILED),
    "stopped": (S.STOPPED,),
    "finished": (S.FINISHED,),
}
"""What a delivery is at, in the order of its life: the states one looks for together."""


@dataclass(frozen=True, slots=True)
class Filter:
    """What is looked for: part of the label, a stage, an account; '' does not filter. ``before``: below that id."""

    label: str = ""
    stage: str = ""
    account: str = ""
    before: int | None = None

    @property
    def is_set(self) -> bool:
        """Whether anything is filtered."""
        return bool(self.label or self.stage or self.account)


@dataclass(frozen=True, slots=True)
class ListedRow(DeliveryLine):
    """A delivery as this list reads it."""

    contact_at: datetime | None
    ordered_at: datetime | None
    targeted: int | None
    retry_period_seconds: int


@dataclass(frozen=True, slots=True)
class Listed:
    """A delivery with its pace and why it waits."""

    row: ListedRow
    forecast: Forecast
    waits: Sequence[Wait]


@dataclass(frozen=True, slots=True)
class DeliveryList:
    """Some deliveries, newest first. ``older``: the id that the next page goes on below; None: there is none older."""

    deliveries: Sequence[Listed]
    older: int | None
    accounts: Sequence[str]


_COLUMNS = sql.SQL(", ").join(sql.SQL("d.{}").format(sql.Identifier(field.name)) for field in fields(ListedRow))
_LOOKED = sql.SQL("""
    select id from delivery where (%(before)s::bigint is null or id < %(before)s) and proof_of is null
       and (%(account)s = '' or account = %(account)s) and (%(states)s::smallint[] is null or state = any(%(states)s))
     order by id desc limit %(looked)s
""")
_PAGE = sql.SQL("""
    with looked as ({})
    select {} from looked join delivery d using (id)
     where %(label)s = '' or strpos(lower(d.label), lower(%(label)s)) > 0
     order by id desc limit %(limit)s
""").format(_LOOKED, _COLUMNS)
_REACHED = sql.SQL("select min(id) from ({}) looked having count(*) = %(looked)s").format(_LOOKED)
"""The oldest looked at, where there may be older ones that were not."""


def page(conn: Connection, wanted: Filter, now: datetime) -> DeliveryList:
    """Read one page."""
    states = [int(state) for state in STAGES[wanted.stage]] if wanted.stage else None
    params = {
        "before": wanted.before, "account": wanted.account, "states": states, "label": wanted.label,
        "looked": LOOKED if wanted.label else PAGE_ROWS + 1, "limit": PAGE_ROWS + 1,
    }  # fmt: skip
    with conn.cursor(row_factory=class_row(ListedRow)) as cursor:
        found = cursor.execute(_PAGE, params, prepare=False).fetchall()
    rows = found[:PAGE_ROWS]
    older = rows[-1].id if len(found) > PAGE_ROWS else scalar(conn, _REACHED, params) if wanted.label else None
    accounts = conn.execute("select name, last_hello_at from external_account order by name limit 200").fetchall()
    ids = [row.id for row in rows if not row.is_final]
    parts, earlier = waiting.parts_of(conn, ids), samples.earlier(conn, ids)
    heard: dict[str, datetime | None] = dict(accounts)
    listed = [
        Listed(
            row,
            pace.forecast(
                samples.standing_of(
                    state=row.state, figures=row.figures, figures_at=row.figures_at, heard_at=heard.get(row.account),
                    retry_seconds=row.retry_period_seconds, earlier=earlier.get(row.id),
                ), now,
            ),
            waiting.causes(row, parts.get(row.id, (0, 0)), now),
        )
        for row in rows
    ]  # fmt: skip
    return DeliveryList(listed, older, [name for name, _ in accounts])
