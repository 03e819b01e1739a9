"""The technical workflows by their internal names: labels in three languages, where they run, when by default, what they do.

The one source that modules of ``workflows/``, the console, the command line and the reference read. Names, labels and schedules
are the field's (spec/midsourcing 3.1) where it has them. A name here without a module is not built yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

MARKETING, MID = ("marketing",), ("mid",)
BOTH = ("marketing", "mid")


@dataclass(frozen=True, slots=True)
class Technical:
    """One technical workflow. ``schedule``: a text of model/schedule.py, in UTC until an operator names a zone."""

    name: str
    label: str
    labels: Mapping[str, str]
    """French and Portuguese, by code."""
    roles: tuple[str, ...]
    schedule: str
    does: str

    def label_in(self, language: str) -> str:
        """Return its label in a language of the console; in English where there is none."""
        return self.labels.get(language, self.label)


def _one(
    name: str, label: str, french: str, portuguese: str, roles: tuple[str, ...], schedule: str, does: str
) -> Technical:
    return Technical(name, label, MappingProxyType({"fr": french, "pt": portuguese}), roles, schedule, does)


_ALL = (
    _one(
        "defaultMidSourcingDlv", "Mid-sourcing (delivery counters)",
        "Mid-sourcing (compteurs des diffusions)", "Mid-sourcing (contadores dos deliveries)",
        MARKETING, "every 10 minutes", "delivery counters and states from each mid",
    ),
    _one(
        "defaultMidSourcingLog", "Mid-sourcing (delivery logs)",
        "Mid-sourcing (journaux de diffusion)", "Mid-sourcing (logs de delivery)",
        MARKETING, "7 * * * *", "delivery logs; at once while a delivery runs",
    ),
    _one(
        "defaultMidSourcingDlvStat", "Mid-sourcing (delivery statistics)",
        "Mid-sourcing (statistiques des diffusions)", "Mid-sourcing (estatísticas dos deliveries)",
        MARKETING, "17 * * * *", "delivery statistics by domain",
    ),
    _one(
        "tracking", "Tracking", "Tracking", "Tracking",
        MARKETING, "27 * * * *", "tracking logs, consolidation, indicators",
    ),
    _one(
        "deliverabilityUpdate", "Refresh for deliverability",
        "Mise à jour de la délivrabilité", "Atualização da entregabilidade",
        BOTH, "daily at 03:10", "bounce rules, MX rules and domains from a signed rule set",
    ),
    _one(
        "quarantineSync", "Quarantine synchronisation",
        "Synchronisation de la quarantaine", "Sincronização da quarentena",
        MARKETING, "every 10 minutes", "quarantine and opt-outs, both ways",
    ),
    _one(
        "deliveryIndicators", "Delivery indicators", "Indicateurs des diffusions", "Indicadores dos deliveries",
        MID, "every hour", "indicators of each delivery on the mid",
    ),
    _one(
        "bounceIntake", "Inbound mail", "Messages entrants", "Mensagens recebidas",
        MID, "every minute", "bounces and complaints to outcomes",
    ),
    _one(
        "reconcile", "Reconciliation", "Réconciliation", "Reconciliação",
        MARKETING, "37 * * * *", "both sides of every open delivery compared, differences repaired",
    ),
    _one(
        "deliveryMgt", "Jobs on deliveries", "Traitements sur les diffusions", "Tarefas dos deliveries",
        MARKETING, "every minute", "scheduled starts, waves, validity, expiry",
    ),
    _one(
        "cleanup", "Database cleanup", "Nettoyage de la base", "Limpeza da base de dados",
        BOTH, "daily at 04:00", "retention, each step on its own",
    ),
    _one(
        "databaseMaintenance", "Database maintenance", "Maintenance de la base", "Manutenção da base de dados",
        BOTH, "weekly on sunday at 02:00", "vacuum, analyze, and reindex concurrently what needs it",
    ),
    _one(
        "cleanupPausedWorkflows", "Paused workflows cleanup",
        "Nettoyage des workflows en pause", "Limpeza dos workflows em pausa",
        BOTH, "weekly on monday at 05:00", "warns about and ends workflows paused for too long",
    ),
    _one(
        "doctor", "Doctor", "Diagnostic", "Diagnóstico",
        BOTH, "every 5 minutes", "runs the checks, opens and closes findings, heals what is safe",
    ),
)  # fmt: skip

TECHNICAL: Mapping[str, Technical] = MappingProxyType({one.name: one for one in _ALL})


def label(name: str) -> str:
    """Return the English label of a technical workflow; '' for one that is not ours."""
    found = TECHNICAL.get(name)
    return found.label if found else ""
