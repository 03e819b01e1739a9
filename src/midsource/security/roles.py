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
    """Who asks for something: an operator's session, an API key, the holder of the home's token, a command, midsource itself.

    ``name`` is what the audit says: an operator's name, ``key:<id>``, ``home``, ``cli:<system user>``, ``system``. ``csrf`` is
    what a form of this visitor must carry; '' for those that no browser acts for.
    """

    name: str
    permissions: frozenset[Permission]
    via: Literal["console", "api", "cli", "system"]
    csrf: str = ""

    def may(self, permission: Permission) -> bool:
        """Tell whether this visitor has ``permission``."""
        return permission in self.permissions


STRANGER = Visitor("", frozenset(), "console")
"""Whoever is not signed in, on a page that is open to all."""
SYSTEM = Visitor("system", frozenset(Permission), "system")
"""What midsource does by itself and somebody may ask about."""


def at_command_line(user: str) -> Visitor:
    """Return whoever runs a command: the home folder's owner may do everything; ``user`` is the system's name of them."""
    return Visitor(f"cli:{user}", frozenset(Permission), "cli")


def permissions_of(roles: Iterable[Role]) -> frozenset[Permission]:
    """Return everything that somebody with these roles may do."""
    return frozenset().union(*(PERMISSIONS[role] for role in roles))
