"""Who of a target gets no message, and why: the order of the field (spec: address qualification, then duplicates).

One table, ``ORDER``, says it. ``reason_for`` decides for one person (explain, tests); targeting makes the same decision
for a million by one SQL statement whose CASE is generated from the same table.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from midsource.model.message import Reason


class Fact(StrEnum):
    """What can be true of a person at targeting."""

    NO_ADDRESS = "no_address"
    UNMAILABLE = "unmailable"  # there is an address, and it cannot be one
    DENYLISTED = "denylisted"  # the address, its domain, or a complaint
    OPTED_OUT = "opted_out"
    QUARANTINED = "quarantined"
    DUPLICATE = "duplicate"  # a person before this one, not excluded, has the same address


class Switch(StrEnum):
    """What an instance may switch off (options of the field, 1 or 0)."""

    DENYLIST = "NmsBroadcast_RemoveBlackList"
    DUPLICATES = "NmsBroadcast_RemoveDuplicatesRecipients"


@dataclass(frozen=True, slots=True)
class Exclusion:
    """One rule: the fact, the reason it is recorded with, the switch that turns it off, the words of ``explain``."""

    fact: Fact
    reason: Reason
    switch: Switch | None
    why: str


ORDER: tuple[Exclusion, ...] = (
    Exclusion(Fact.NO_ADDRESS, Reason.NO_ADDRESS, None, "no address is known"),
    Exclusion(Fact.UNMAILABLE, Reason.BAD_ADDRESS, None, "the address cannot be mailed"),
    Exclusion(Fact.DENYLISTED, Reason.DENYLISTED, Switch.DENYLIST, "the address or its domain is on the denylist"),
    Exclusion(Fact.OPTED_OUT, Reason.DENYLISTED, Switch.DENYLIST, "the person has opted out"),
    Exclusion(Fact.QUARANTINED, Reason.QUARANTINED, None, "the address is in quarantine"),
    Exclusion(Fact.DUPLICATE, Reason.DUPLICATE, Switch.DUPLICATES, "somebody before has the same address"),
)
"""First match wins. Duplicates come last: a person who gets nothing takes no message from a twin."""


def applicable(switched_off: Collection[Switch] = ()) -> tuple[Exclusion, ...]:
    """Return the rules in force, in order."""
    return tuple(rule for rule in ORDER if rule.switch is None or rule.switch not in switched_off)


def exclusion_of(facts: Collection[Fact], switched_off: Collection[Switch] = ()) -> Exclusion | None:
    """Return the rule that excludes a person of whom ``facts`` hold, or None: the person gets the message."""
    return next((rule for rule in applicable(switched_off) if rule.fact in facts), None)


def reason_for(facts: Collection[Fact], switched_off: Collection[Switch] = ()) -> Reason:
    """Return the reason recorded for such a person; NONE where nothing excludes."""
    rule = exclusion_of(facts, switched_off)
    return Reason.NONE if rule is None else rule.reason
