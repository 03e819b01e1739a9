"""External accounts: list, test."""

from __future__ import annotations

from fastapi import APIRouter

from midsource.marketing import accounts, link_test
from midsource.security.roles import Permission
from midsource.web.api import shapes
from midsource.web.api.operations import Api, Name, needs, refusals

NOT_FOUND = refusals()


def router(api: Api) -> APIRouter:
    """Return the operations of this family."""
    made = APIRouter(tags=["external accounts"])

    @made.get("/accounts", dependencies=[needs(Permission.SEE)])
    def list_accounts() -> list[shapes.Account]:
        """List the external accounts."""
        with api.database.connection() as conn:
            return [shapes.Account.model_validate(found) for found in accounts.list_accounts(conn)]

    @made.post("/accounts/{name}/test", dependencies=[needs(Permission.SUPERVISE)], responses=NOT_FOUND)
    def try_account(name: Name) -> shapes.AccountTest:
        """Call the mid and say everything that is wrong with the link."""
        tested = link_test.run(api.database, api.config.home, name, api.clock)
        return shapes.AccountTest(
            ok=not tested.problems, problems=list(tested.problems), skew_seconds=tested.skew_seconds,
            version=tested.hello.version if tested.hello else None,
            steps=[shapes.Step.model_validate(step) for step in tested.steps],
        )  # fmt: skip

    return made
