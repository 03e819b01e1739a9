"""Options: the names an operator knows, with default, unit and meaning. Pointers are options made per external account.

A value is text, as the field shows it; ``unit`` says how to read it. Rows exist in the database only for values that
differ from the default; pointers always have one.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """One option. ``name`` may end in ``<account>`` for those made per external account."""

    name: str
    default: str
    unit: str
    description: str


LAST_DELIVERY = "NmsMidSourcing_LastDelivery_"
"""Pointer of `defaultMidSourcingDlv`, followed by the internal name of the external account (F30)."""
LAST_BROAD_LOG = "NmsMidSourcing_LastBroadLog_"
"""Pointer of `defaultMidSourcingLog`, likewise (F31)."""

MARKETING_OPTIONS = (
    Option("NmsMidSourcing_PrepareFlow", "3", "calls", "parallel uploads of delivery parts to one mid"),
    Option("NmsBroadcast_MidAnalyzeBatchSize", "2000", "rows", "recipients in one delivery part, before it adapts"),
    Option("NmsEmail_RetryCount", "5", "retries", "retries of a message refused for now, for new deliveries"),
    Option("NmsEmail_RetryPeriod", "3600s", "s", "least time between two tries, for new deliveries"),
    Option("NmsBroadcast_MsgValidityDuration", "5d", "d", "how long a new delivery is sent and tried again"),
    Option("NmsBroadcast_RemoveDuplicatesRecipients", "1", "0 or 1", "exclude all but one person of the same address"),
    Option("NmsBroadcast_RemoveBlackList", "1", "0 or 1", "exclude denylisted addresses and people who opted out"),
    Option(f"{LAST_DELIVERY}<account>", "", "time", "position of the delivery counters pulled from this mid"),
    Option(f"{LAST_BROAD_LOG}<account>", "", "time", "position of the delivery logs pulled from this mid"),
)
