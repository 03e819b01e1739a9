"""The pages of an instance's console, put together; each family of pages is a module of ``pages`` with its ``routes``.

Each handler parses, reads or changes, renders. ``?lang=en|fr|pt`` chooses the language and keeps it in a cookie. The guard
of the web app (web/guard.py) finds out who asks, each route says what that visitor needs (web/routing.py), ``Face`` shows
refusals as pages. Pages refresh themselves while what they show can change: htmx asks for the same page every
REFRESH_SECONDS and takes over its ``#live`` part; without scripts the whole page is loaded again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from starlette.routing import BaseRoute

from midsource.config import Config, InstanceConfig, Role
from midsource.model.clock import Clock
from midsource.store.database import Database
from midsource.web.console.frame import Frame
from midsource.web.console.pages import (
    accounts,
    api_reference,
    audit,
    brands,
    cleanup,
    concurrency,
    delivery,
    findings,
    lists,
    login,
    maintenance,
    mid_pages,
    new_delivery,
    operators,
    options,
    people,
    people_import,
    previews,
    processes,
    sandbox,
    status,
    supervisors,
    templates,
    workflow_restart,
    workflow_schedule,
    workflows,
)

ACCESS = (login.routes, operators.routes, audit.routes, api_reference.routes)
"""Who may come in, what they did, and the API: the same on both roles."""
PRODUCTION = (
    workflow_restart.routes,
    workflow_schedule.routes,
    concurrency.routes,
    workflows.routes,
    findings.routes,
    supervisors.routes,
    maintenance.routes,
    cleanup.routes,
)
"""Technical workflows and what looks after an instance: each role has its own. Pages of one name come before those of any verb."""
PAGES: Mapping[Role, Sequence[Callable[[Frame], list[BaseRoute]]]] = {
    "marketing": (
        status.routes,
        new_delivery.routes,
        delivery.routes,
        *PRODUCTION,
        options.routes,
        accounts.routes,
        processes.routes,
        sandbox.routes,
        templates.routes,
        previews.routes,
        brands.routes,
        people_import.routes,
        people.routes,
        lists.routes,
        *ACCESS,
    ),
    "mid": (mid_pages.routes, *PRODUCTION, options.routes, processes.routes, *ACCESS),
}
"""The families of pages of each role."""


def console_routes(config: Config, instance: InstanceConfig, database: Database, clock: Clock) -> list[BaseRoute]:
    """Return the pages of ``instance``; nothing is opened before the first request."""
    frame = Frame.of(config, instance, database, clock)
    return [route for family in PAGES[instance.role] for route in family(frame)]
