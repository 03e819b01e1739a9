"""People: list, show, erase; segments: list, create, try; templates: list, show."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from midsource.marketing import recipients, segments
from midsource.security.roles import Permission
from midsource.web.api import shapes
from midsource.web.api.operations import After, Api, Caller, Limit, needs, refusals

NOT_FOUND = refusals()
CONFLICT = refusals("A delivery to them is being prepared.")
SEE, DELIVER, ADMINISTER = needs(Permission.SEE), needs(Permission.DELIVER), needs(Permission.ADMINISTER)
TEXT = r"^[^\x00]*$"
Email = Annotated[str, Query(min_length=3, max_length=320, pattern=TEXT)]


def router(api: Api) -> APIRouter:
    """Return the operations of this family."""
    made = APIRouter(tags=["people"])

    @made.get("/recipients", dependencies=[SEE], responses=NOT_FOUND)
    def list_recipients(
        list_name: Annotated[str, Query(alias="list", max_length=200, pattern=TEXT)] = "",
        after: After = 0,
        limit: Limit = 50,
    ) -> shapes.RecipientPage:
        """List people in order of id, of one list if it is named."""
        with api.database.connection() as conn:
            return shapes.RecipientPage.model_validate(
                recipients.page(conn, list_name=list_name, after=after, limit=limit)
            )

    @made.get("/recipients/of-address", dependencies=[SEE], responses=NOT_FOUND)
    def find_recipients(email: Email) -> list[shapes.Recipient]:
        """Show everybody who has this address, however it is spelt."""
        with api.database.connection() as conn:
            return [shapes.Recipient.model_validate(person) for person in recipients.by_email(conn, email)]

    @made.delete("/recipients/of-address", dependencies=[ADMINISTER], responses=CONFLICT)
    def erase_recipients(email: Email, visitor: Caller) -> shapes.Erased:
        """Erase everybody who has this address: the person goes, delivery logs keep their row without the address."""
        with api.change(visitor, "recipient.erase") as conn:
            return shapes.Erased.model_validate(recipients.erase(conn, email))

    @made.get("/segments", dependencies=[SEE])
    def list_segments() -> list[shapes.Segment]:
        """List the stored segments."""
        with api.database.connection() as conn:
            return [shapes.Segment.model_validate(found) for found in segments.all_segments(conn)]

    @made.post("/segments", dependencies=[DELIVER], status_code=201)
    def create_segment(body: shapes.SegmentIn, visitor: Caller) -> shapes.Preview:
        """Store a condition under a name, in place of another of that name; answers whom it chooses now."""
        with api.change(visitor, "segment.create", body.name) as conn:
            segments.create_segment(conn, body.name, body.expression)
            return shapes.Preview.model_validate(segments.preview(conn, body.expression))

    @made.post("/segments/preview", dependencies=[SEE])
    def preview_segment(body: shapes.Condition) -> shapes.Preview:
        """Say how many people a condition chooses, and who the first are."""
        with api.database.connection() as conn:
            return shapes.Preview.model_validate(segments.preview(conn, body.expression))

    return made
