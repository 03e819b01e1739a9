"""What supervisors read: news of one or more changes as text in their language, and as a document for machines. Pure.

The frame is translated; evidence, cause and remedy are the finding's own sentences, as everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from midsource.model.finding import Severity

MAX_NEWS = 100
"""Changes in one message; more go with the next."""
DOCUMENT_VERSION = 1


class Kind(StrEnum):
    """What a message is."""

    CHANGES = "changes"
    DIGEST = "digest"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class News:
    """One change, as its notification has it."""

    id: int
    at: datetime
    kind: str
    severity: Severity
    subject: str
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sender:
    """The instance that says it, and in which language."""

    instance: str
    role: str
    language: str = "en"


@dataclass(frozen=True, slots=True)
class Letter:
    """One message to one supervisor."""

    kind: Kind
    subject: str
    text: str
    document: Mapping[str, Any]
    news: Sequence[News]
    severity: Severity


_WORDS: Mapping[str, Mapping[str, str]] = MappingProxyType({
    "en": {
        "opened": "opened", "worsened": "got worse", "closed": "is over", "workflow_failed": "workflow failed",
        "workflow_recovered": "workflow no longer failed", "cause": "Cause", "remedy": "What to do",
        "info": "info", "warning": "warning", "error": "error", "critical": "critical",
        "many": "{n} changes, the worst: {worst}", "digest": "what happened in quiet hours: {n} changes, the worst: {worst}",
        "failures": "failed {n} times in a row", "test": "this is a test: you will hear of findings of {instance} here",
        "foot": "Sent by midsource, instance {instance} ({role}). `midsource doctor` shows what is open.",
    },
    "fr": {
        "opened": "ouvert", "worsened": "s’aggrave", "closed": "est terminé", "workflow_failed": "workflow en échec",
        "workflow_recovered": "workflow plus en échec", "cause": "Cause", "remedy": "Que faire",
        "info": "information", "warning": "avertissement", "error": "erreur", "critical": "critique",
        "many": "{n} changements, le pire : {worst}", "digest": "pendant les heures calmes : {n} changements, le pire : {worst}",
        "failures": "{n} échecs de suite", "test": "ceci est un essai : les constats de {instance} vous seront signalés ici",
        "foot": "Envoyé par midsource, instance {instance} ({role}). `midsource doctor` montre ce qui est ouvert.",
    },
    "pt": {
        "opened": "aberto", "worsened": "agravou-se", "closed": "terminou", "workflow_failed": "workflow com falha",
        "workflow_recovered": "workflow já sem falha", "cause": "Causa", "remedy": "O que fazer",
        "info": "informação", "warning": "aviso", "error": "erro", "critical": "crítico",
        "many": "{n} mudanças, a pior: {worst}", "digest": "nas horas de silêncio: {n} mudanças, a pior: {worst}",
        "failures": "{n} falhas seguidas", "test": "isto é um teste: as constatações de {instance} chegarão aqui",
        "foot": "Enviado por midsource, instância {instance} ({role}). `midsource doctor` mostra o que está aberto.",
    },
})  # fmt: skip


def compose(sender: Sender, news: Sequence[News], now: datetime, *, digest: bool = False) -> Letter:
    """Return the message about ``news``, at least one; ``digest``: they waited for the end of quiet hours."""
    words = _WORDS[sender.language]
    worst = max((one.severity for one in news), key=lambda severity: severity.rank)
    if digest:
        title = words["digest"].format(n=len(news), worst=words[worst])
    elif len(news) > 1:
        title = words["many"].format(n=len(news), worst=words[worst])
    else:
        title = f"{words[worst]}: {news[0].subject} {words[news[0].kind]}"
    text = "\n\n".join(_paragraph(one, words) for one in news)
    kind = Kind.DIGEST if digest else Kind.CHANGES
    return Letter(kind, *_framed(sender, title, text), _document(kind, sender, title, news, worst, now), news, worst)


def trial(sender: Sender, now: datetime) -> Letter:
    """Return the message of `supervisor test`."""
    title = _WORDS[sender.language]["test"].format(instance=sender.instance)
    document = _document(Kind.TEST, sender, title, (), Severity.WARNING, now)
    return Letter(Kind.TEST, *_framed(sender, title, title), document, (), Severity.WARNING)


def line(one: News, language: str) -> str:
    """Return one change on one line, for syslog."""
    words = _WORDS[language]
    return f"{words[one.severity]}: {one.subject} {words[one.kind]}. {_evidence(one, words)}".strip()


def _framed(sender: Sender, title: str, text: str) -> tuple[str, str]:
    """Return subject and text with what says where they come from."""
    foot = _WORDS[sender.language]["foot"].format(instance=sender.instance, role=sender.role)
    return f"[midsource {sender.instance}] {title}", f"{text}\n\n-- \n{foot}\n"


def _document(
    kind: Kind, sender: Sender, title: str, news: Sequence[News], severity: Severity, now: datetime
) -> Mapping[str, Any]:
    return {
        "version": DOCUMENT_VERSION,
        "kind": str(kind),
        "instance": sender.instance,
        "role": sender.role,
        "sent_at": now.astimezone(UTC).isoformat(),
        "severity": str(severity),
        "title": title,
        "news": [
            {
                "id": one.id,
                "at": one.at.astimezone(UTC).isoformat(),
                "kind": one.kind,
                "severity": str(one.severity),
                "subject": one.subject,
                "workflow" if one.kind.startswith("workflow_") else "finding": dict(one.document),
            }
            for one in news
        ],
    }


def _paragraph(one: News, words: Mapping[str, str]) -> str:
    lines = [
        f"{words[one.severity].upper()}  {one.subject}  {words[one.kind]}  {one.at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
    ]
    lines.append(f"  {_evidence(one, words)}")
    if one.kind not in ("closed", "workflow_recovered"):
        lines += [f"  {words[name]}: {one.document[name]}" for name in ("cause", "remedy") if one.document.get(name)]
    return "\n".join(lines)


def _evidence(one: News, words: Mapping[str, str]) -> str:
    if one.kind.startswith("workflow_"):
        times = words["failures"].format(n=one.document.get("failures", 0))
        return f"{times}: {one.document.get('error') or '-'}"
    return str(one.document.get("evidence", ""))
