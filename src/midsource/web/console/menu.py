"""The menu: what stands in it, where it leads, and which permission a visitor needs to be shown it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from midsource.config import Role
from midsource.security.roles import Permission, Visitor


@dataclass(frozen=True, slots=True)
class Entry:
    """One page of the menu. ``name`` is the last part of its text's key (``nav.<name>``) and what a page calls ``here``."""

    name: str
    path: str
    roles: frozenset[Role]
    needs: Permission = Permission.SEE


BOTH = frozenset[Role]({"marketing", "mid"})
MARKETING = frozenset[Role]({"marketing"})
MID = frozenset[Role]({"mid"})

MENU: Sequence[tuple[str, Sequence[Entry]]] = (
    (
        "campaigns",
        (
            Entry("status", "/", BOTH),
            Entry("deliveries", "/deliveries", BOTH),
            Entry("templates", "/templates", MARKETING),
            Entry("recipients", "/recipients", MARKETING),
        ),
    ),
    (
        "production",
        (
            Entry("workflows", "/workflows", BOTH),
            Entry("findings", "/findings", BOTH),
            Entry("supervisors", "/supervisors", BOTH),
            Entry("maintenance", "/maintenance", BOTH),
            Entry("cleanup", "/cleanup", BOTH),
            Entry("options", "/options", BOTH),
            Entry("accounts", "/accounts", MARKETING),
            Entry("submitters", "/accounts", MID),
            Entry("processes", "/processes", BOTH),
            Entry("sandbox", "/sandbox", MARKETING),
        ),
    ),
    (
        "administration",
        (
            Entry("operators", "/operators", BOTH, Permission.ADMINISTER),
            Entry("keys", "/keys", BOTH, Permission.ADMINISTER),
            Entry("audit", "/audit", BOTH, Permission.ADMINISTER),
            Entry("api", "/api/v1/docs", BOTH),
        ),
    ),
)
"""Groups in order, each with its entries; ``group.<name>`` is the text of a group."""


def menu_of(visitor: Visitor | None, role: Role) -> list[tuple[str, list[Entry]]]:
    """Return the groups that ``visitor`` may see on an instance of ``role``; strangers see none."""
    if visitor is None:
        return []
    shown = [
        (group, [entry for entry in entries if role in entry.roles and visitor.may(entry.needs)])
        for group, entries in MENU
    ]
    return [(group, entries) for group, entries in shown if entries]
