"""Options: the names an operator knows, with default, unit and meaning. Pointers are options made per external account.

A value is text, as the field shows it; ``unit`` says how to read it. Rows exist in the database only for values that
differ from the default; pointers always have one. Each role has its own table: an option of both, as those of `cleanup`,
is set on each instance by itself and may have another default there.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """One option. ``name`` may end in ``<account>`` for those made per external account.

    ``written_by``: the technical workflow that alone writes it; "" for what an operator sets.
    """

    name: str
    default: str
    unit: str
    description: str
    written_by: str = ""


LAST_DELIVERY = "NmsMidSourcing_LastDelivery_"
"""Pointer of `defaultMidSourcingDlv`, followed by the internal name of the external account (F30)."""
LAST_BROAD_LOG = "NmsMidSourcing_LastBroadLog_"
"""Pointer of `defaultMidSourcingLog`, likewise (F31)."""
LAST_CLEANUP = "NmsCleanup_LastCleanup"
"""When the last run of `cleanup` ended that did all of its steps."""

BROAD_LOG_DELAY = "NmsCleanup_BroadLogPurgeDelay"
REJECTS_DELAY = "NmsCleanup_RejectsPurgeDelay"
MAILBOX_FULL_DELAY = "NmsCleanup_QuarantineMailboxFull"
JOB_LOG_DELAY = "NmsCleanup_JobLogPurgeDelay"
WORKFLOW_DELAY = "NmsCleanup_WorkflowResultPurgeDelay"
AUDIT_DELAY = "XtkCleanup_AuditTrailPurgeDelay"
OUTCOME_DELAY = "NmsCleanup_OutcomePurgeDelay"
UNPULLED_DELAY = "NmsCleanup_UnpulledPurgeDelay"
DELIVERY_DELAY = "NmsCleanup_DeliveryPurgeDelay"
PAUSED_PERIOD = "NmsServer_PausedWorkflowPeriod"
DISK_BUDGET = "NmsServer_DiskBudget"

WORKFLOW_OPTIONS = (
    Option(
        PAUSED_PERIOD, "7d", "d", "how long a technical workflow may be paused before it is warned about, and ended"
    ),
)
"""Of every instance: those of the technical workflows themselves."""

_CLEANUP = (
    Option(WORKFLOW_DELAY, "30d", "d", "how long runs and journals of technical workflows are kept"),
    Option(AUDIT_DELAY, "180d", "d", "how long the record of who did what is kept"),
    Option(LAST_CLEANUP, "", "time", "when cleanup last did all of its steps", written_by="cleanup"),
)

MAINTENANCE_MODE = "Maintenance_Mode"
MAINTENANCE_WINDOW = "Maintenance_Window"
MAINTENANCE_ZONE = "Maintenance_Zone"
NO_STATS = "XtkCleanup_NoStats"

_MAINTENANCE = (
    Option(MAINTENANCE_MODE, "execute", "execute or advise", "whether maintenance acts, or keeps its plan for the DBA"),
    Option(MAINTENANCE_WINDOW, "02:00-05:00", "hours", "when little is going on: maintenance acts then"),
    Option(MAINTENANCE_ZONE, "UTC", "time zone", "on whose clock these hours are meant"),
    Option(NO_STATS, "0", "0, 1 or 2", "1: maintenance neither vacuums nor analyses; 2: it analyses alone"),
)

AUTO_HEAL = "NmsDoctor_AutoHeal"

_DOCTOR = (Option(AUTO_HEAL, "1", "0 or 1", "whether the doctor mends by itself what is safe to mend"),)

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
    Option(BROAD_LOG_DELAY, "180d", "d", "how long delivery logs are kept after their deliveries ended"),
    Option(REJECTS_DELAY, "180d", "d", "how long the files of what imports refused are kept"),
    Option(MAILBOX_FULL_DELAY, "30d", "d", "how long a full mailbox stays in quarantine"),
    Option(JOB_LOG_DELAY, "90d", "d", "how long journals of jobs and failed calls over the link are kept"),
    *_CLEANUP,
    *_MAINTENANCE,
    *WORKFLOW_OPTIONS,
    *_DOCTOR,
)

MID_OPTIONS = (
    Option(BROAD_LOG_DELAY, "60d", "d", "how long the ledger of messages is kept after their deliveries ended"),
    Option(OUTCOME_DELAY, "14d", "d", "how long results are kept that every account has pulled"),
    Option(UNPULLED_DELAY, "60d", "d", "how long results are kept that an account has not pulled"),
    Option(DELIVERY_DELAY, "180d", "d", "how long counters of deliveries are kept whose ledger is gone"),
    Option(DISK_BUDGET, "0", "GB", "how large the database may grow before no new parts are taken; 0: as the disk is"),
    *_CLEANUP,
    *_MAINTENANCE,
    *WORKFLOW_OPTIONS,
    *_DOCTOR,
)
