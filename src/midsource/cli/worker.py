"""Composition of a worker: which jobs and technical workflows an instance of each role runs."""

from __future__ import annotations

from midsource.engine.work import JobKind, Works
from midsource.marketing.handover import hand_over
from midsource.marketing.orders import carry_order
from midsource.marketing.preparation import prepare
from midsource.workflows import WORKFLOWS


def works_of(role: str) -> Works:
    """Return what a worker of ``role`` runs. Adding a technical workflow is adding its module to ``workflows``."""
    jobs: tuple[JobKind, ...] = ()
    if role == "marketing":
        jobs = (JobKind("prepare", prepare), JobKind("handover", hand_over), JobKind("order", carry_order))
    return Works(jobs=jobs, workflows=tuple(module for module in WORKFLOWS if role in module.ROLES))
