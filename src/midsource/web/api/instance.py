"""The instance itself: its name, role and processes, and the record of who did what."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from midsource import __version__
from midsource.security import audit
from midsource.security.roles import Permission
from midsource.store import processes
from midsource.web.api import shapes
from midsource.web.api.operations import Api, Before, Limit, needs

TEXT = r"^[^\x00]*$"
Filter = Annotated[str, Query(max_length=200, pattern=TEXT)]


def router(api: Api) -> APIRouter:
    """Return the operations of this family."""
    made = APIRouter(tags=["instance"])

    @made.get("/instance", dependencies=[needs(Permission.SEE)])
    def show_instance() -> shapes.Instance:
        """Show this instance and its processes, as they last reported themselves."""
        with api.database.connection() as conn:
            found = processes.listing(conn)
        return shapes.Instance(
            name=api.instance.name, role=api.instance.role, version=__version__, now=api.clock.now(),
            processes=[shapes.Process.model_validate(row) for row in found],
        )  # fmt: skip

    @made.get("/audit", dependencies=[needs(Permission.ADMINISTER)])
    def read_audit(
        who: Filter = "", verb: Filter = "", subject: Filter = "", before: Before = None, limit: Limit = 50
    ) -> shapes.AuditPage:
        """Read who did what, newest first."""
        with api.database.connection() as conn:
            found = audit.page(conn, who=who, verb=verb, subject=subject, before=before, limit=limit)
        return shapes.AuditPage.model_validate(found)

    return made
