"""What somebody may do: permissions, the roles that bundle them, and the visitor of one request.

A permission is asked for by each route (web/routing.py) and each scope of an API key names one. A role is a bundle; an
operator has one or several. Nobody has a permission that is not named here: default deny.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Permission(StrEnum):
    """One thing that a visitor may do. The values are the scopes of API keys."""

    SEE = "see"
    """Read every page: deliveries, logs, people, workflows, options without secrets."""
    DELIVER = "deliver"
    """People and lists, templates, deliveries: create, prepare, proof, send, pause, resume, stop."""
    SUPERVISE = "supervise"
    """Technical workflows and processes: run now, start, pause, restart."""
    ADMINISTER = "administer"
    """Options, external accounts, operators, API keys, audit, erasing people."""
    METRICS = "metrics"
    """``/metrics``, for a scraper."""


class Role(StrEnum):
    """A bundle of permissions that operators have."""

    ADMIN = "admin"
    MANAGER = "manager"
    SUPERVISOR = "supervisor"
    READER = "reader"


PERMISSIONS: Mapping[Role, frozenset[Permission]] = {
    Role.ADMIN: frozenset(Permission),
    Role.MANAGER: frozenset({Permission.SEE, Permission.DELIVER}),
    Role.SUPERVISOR: frozenset({Permission.SEE, Permission.SUPERVISE}),
    Role.READER: frozenset({Permission.SEE}),
}


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who makes a request: an operator's session, an API key, or the holder of the home folder's token.

    ``csrf`` is what a form of this visitor must carry; '' for those that no browser acts for.
    """

    name: str
    permissions: frozenset[Permission]
    via: Literal["console", "api"]
    csrf: str = ""

    def may(self, permission: Permission) -> bool:
        """Tell whether this visitor has ``permission``."""
        return permission in self.permissions


def permissions_of(roles: Iterable[Role]) -> frozenset[Permission]:
    """Return everything that somebody with these roles may do."""
    return frozenset().union(*(PERMISSIONS[role] for role in roles))
