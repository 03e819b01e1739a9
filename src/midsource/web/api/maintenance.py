"""Database maintenance: what is wrong and due, what was done, and orders by name or of whatever is due."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter

from midsource.engine import admin
from midsource.model.maintenance import Act
from midsource.security.roles import Permission
from midsource.store.maintenance import actions, measuring, settings, status
from midsource.store.maintenance.orders import ordered
from midsource.web.api.maintenance_shapes import Maintenance, MaintenanceAction, MaintenanceOrder
from midsource.web.api.operations import Api, Before, Caller, Limit, needs, refusals
from midsource.workflows import database_maintenance

ACTS = {"vacuum": Act.VACUUM_ANALYZE, "reindex": Act.REINDEX}
SEE, SUPERVISE = needs(Permission.SEE), needs(Permission.SUPERVISE)


def router(api: Api) -> APIRouter:
    """Return the operations of this family."""
    made = APIRouter(tags=["database maintenance"])

    @made.get("/maintenance", dependencies=[SEE])
    def show_maintenance() -> Maintenance:
        """Measure the database: what is wrong, what it costs, what will be done; worst first."""
        with api.database.connection() as conn:
            found = status.read(conn, api.clock.now())
        return Maintenance.model_validate(status.as_dict(found))

    @made.get("/maintenance/actions", dependencies=[SEE])
    def list_maintenance_actions(before: Before = None, limit: Limit = 50) -> list[MaintenanceAction]:
        """List what maintenance did, what it advises and what is asked for, newest first."""
        with api.database.connection() as conn:
            found = actions.latest(conn, limit, before)
        return [_action(row) for row in found]

    @made.post(
        "/maintenance/orders", dependencies=[SUPERVISE], status_code=202, responses=refusals("The workflow is held.")
    )
    def order_maintenance(body: MaintenanceOrder, visitor: Caller) -> list[MaintenanceAction]:
        """Order vacuum or reindex at once, whatever the hour; in mode advise the statements are kept and not executed."""
        act = ACTS[body.act]
        with api.database.connection() as conn:
            chosen, _ = settings.read(conn)
            steps = ordered(measuring.measure(conn, api.clock.now()), chosen, act, body.relations, by=visitor.name)
        if body.advise or chosen.advises:
            with api.change(visitor, "maintenance.advise", api.instance.name, act=act, actions=len(steps)) as conn:
                actions.advise(conn, steps, visitor.name, None)
                return [_action(row) for row in actions.advised(conn)]
        if not steps:
            return []
        api.need_worker()
        with api.change(visitor, f"maintenance.{body.act}", api.instance.name, actions=len(steps)) as conn:
            ids = actions.ask(conn, [replace(step, why_not="") for step in steps], visitor.name)
            admin.run_now(conn, database_maintenance.NAME, visitor.name)
            return [_action(row) for row in actions.of(conn, ids)]

    return made


def _action(row: actions.ActionRow) -> MaintenanceAction:
    return MaintenanceAction.model_validate(status.action_as_dict(row))
