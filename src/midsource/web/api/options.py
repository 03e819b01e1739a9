"""Options and pointers: list, show, set."""

from __future__ import annotations

from fastapi import APIRouter

from midsource.security.roles import Permission
from midsource.web.api import shapes
from midsource.web.api.operations import Api, Caller, Name, needs, refusals
from midsource.web.option_tables import table_of

NOT_FOUND = refusals()
CONFLICT = refusals("It would leave results out: confirm it.")


def router(api: Api) -> APIRouter:
    """Return the operations of this family."""
    made = APIRouter(tags=["options"])
    options = table_of(api.instance.role)

    @made.get("/options", dependencies=[needs(Permission.SEE)])
    def list_options() -> list[shapes.Option]:
        """List every option, pointers included."""
        with api.database.connection() as conn:
            return [shapes.Option.model_validate(found) for found in options.list_options(conn)]

    @made.get("/options/{name}", dependencies=[needs(Permission.SEE)], responses=NOT_FOUND)
    def show_option(name: Name) -> shapes.Option:
        """Show one option."""
        with api.database.connection() as conn:
            return shapes.Option.model_validate(options.view(conn, name))

    @made.put("/options/{name}", dependencies=[needs(Permission.ADMINISTER)], responses=CONFLICT)
    def set_option(name: Name, body: shapes.OptionIn, visitor: Caller) -> shapes.Said:
        """Set an option. A pointer moved forward says what it skips, and wants `confirm`."""
        with api.change(visitor, "option.set", name, value=body.value) as conn:
            said = options.set_value(conn, name, body.value, by=visitor.name, now=api.clock.now(), yes=body.confirm)
        return shapes.Said(said=said)

    return made
