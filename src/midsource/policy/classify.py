"""What an attempt means: for the message, and for the person's quarantine.

The reply's class decides what happens to the message: 2xx after the body is sent, 5xx is refused, 4xx is put off, and a
loss while the body was under way is lost (uncertain). The rules (``bounce_rules.toml``) decide why, and whether it is
held against the address. Three things are fixed here, because no table may undo them:

* what a server says before RCPT cannot be about a person, so it is *ours*; a refusal of the whole connection (banner,
  EHLO) moreover only puts the message off: another of our addresses may be welcome;
* faults of DNS, TLS and templates are ours (invariant 8: a fault of ours never blames a recipient);
* a refusal no rule knows fails the message with REFUSED and is not held against the address: the field's default,
  soft and unreachable, quarantined people for texts nobody had read. ``rule`` is then "", for the table to grow by.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from importlib import resources
from types import MappingProxyType
from typing import Any

from midsource.model.errors import ConfigError
from midsource.model.message import MessageEvent, Reason
from midsource.model.outcome import Attempt, Lost, Reply, Stage


class BounceKind(StrEnum):
    """What an answer counts towards the person's quarantine."""

    HARD = "hard"  # at once
    SOFT = "soft"  # one more
    IGNORED = "ignored"  # nothing


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an attempt came to. ``rule`` names the row that said why, "" where none did."""

    event: MessageEvent
    reason: Reason = Reason.NONE
    kind: BounceKind = BounceKind.IGNORED
    ours: bool = False
    rule: str = ""


@dataclass(frozen=True, slots=True)
class BounceRule:
    """One row of the table; all of its conditions must hold."""

    name: str
    reason: Reason
    kind: BounceKind
    examples: tuple[str, ...]
    source: str
    enhanced: str = "*"
    codes: frozenset[int] = frozenset()
    pattern: re.Pattern[str] | None = None
    ours: bool = False
    event: MessageEvent | None = None

    def matches(self, reply: Reply, text: str) -> bool:
        """Whether this row is about ``reply``, whose text without addresses is ``text``."""
        if self.codes and reply.code not in self.codes:
            return False
        if self.enhanced != "*" and not fnmatchcase(reply.enhanced, self.enhanced):
            return False
        return self.pattern is None or self.pattern.search(text) is not None


_ADDRESS = re.compile(r"[^\s<>()\[\]]+@[^\s<>()\[\]]+")


@dataclass(frozen=True, slots=True)
class BounceRules:
    """The table, first match wins."""

    rows: tuple[BounceRule, ...]

    def find(self, reply: Reply) -> BounceRule | None:
        """Return the first row about ``reply``, None where none is."""
        text = _ADDRESS.sub("*", reply.text)  # servers repeat the address: spam@b.example is not a word about spam
        return next((row for row in self.rows if row.matches(reply, text)), None)

    def below(self, first: BounceRules) -> BounceRules:
        """Return these with ``first`` (an operator's own) before them."""
        return BounceRules(first.rows + self.rows)


_BEFORE_CONVERSATION = frozenset({Stage.CONNECT, Stage.BANNER, Stage.EHLO, Stage.TLS})
_BEFORE_RCPT = _BEFORE_CONVERSATION | {Stage.MAIL}

_LOST: Mapping[Stage, Verdict] = MappingProxyType(
    {
        # Whose DNS failed is not known (a SERVFAIL may be either's): nobody is blamed.
        Stage.RESOLVE: Verdict(MessageEvent.PUT_OFF, Reason.UNREACHABLE, ours=True),
        Stage.CONNECT: Verdict(MessageEvent.PUT_OFF, Reason.UNREACHABLE, BounceKind.SOFT),
        Stage.BANNER: Verdict(MessageEvent.PUT_OFF, Reason.UNREACHABLE, BounceKind.SOFT),
        Stage.EHLO: Verdict(MessageEvent.PUT_OFF, Reason.UNREACHABLE, BounceKind.SOFT),
        Stage.TLS: Verdict(MessageEvent.PUT_OFF, Reason.UNREACHABLE, ours=True),
        Stage.MAIL: Verdict(MessageEvent.PUT_OFF, Reason.UNREACHABLE, BounceKind.SOFT),
        Stage.RCPT: Verdict(MessageEvent.PUT_OFF, Reason.UNREACHABLE, BounceKind.SOFT),
        Stage.DATA: Verdict(MessageEvent.PUT_OFF, Reason.UNREACHABLE, BounceKind.SOFT),
        Stage.BODY: Verdict(MessageEvent.LOST),
        Stage.RENDER: Verdict(MessageEvent.UNRENDERABLE, Reason.OURS, ours=True),
    }
)


_ACCEPTED = Verdict(MessageEvent.ACCEPTED)


def classify(attempt: Attempt, rules: BounceRules) -> Verdict:
    """Return what ``attempt`` means; never raises."""
    answer, stage = attempt.answer, attempt.stage
    if isinstance(answer, Lost):
        return _LOST[stage]
    if stage is Stage.BODY and answer.is_positive:
        return _ACCEPTED
    if answer.is_transient or answer.is_permanent:
        return _refusal(answer, stage, rules)
    return _LOST[stage]  # a 2xx or 3xx that answers nothing we asked: as good as none


def _refusal(reply: Reply, stage: Stage, rules: BounceRules) -> Verdict:
    row = rules.find(reply)
    event = MessageEvent.REFUSED if reply.is_permanent else MessageEvent.PUT_OFF
    if stage in _BEFORE_CONVERSATION:
        event = MessageEvent.PUT_OFF
    if row is None:
        reason = Reason.REFUSED if reply.is_permanent else Reason.UNREACHABLE
        kind = BounceKind.IGNORED if reply.is_permanent else BounceKind.SOFT
        row = BounceRule("", reason, kind, (), "")
    ours = row.ours or stage in _BEFORE_RCPT
    kind = row.kind
    if ours:
        kind = BounceKind.IGNORED
    elif kind is BounceKind.HARD and reply.is_transient:
        kind = BounceKind.SOFT  # the server itself says it may change
    return Verdict(row.event or event, row.reason, kind, ours, row.name)


def shipped_rules() -> BounceRules:
    """Return the table that comes with midsource."""
    return parse_rules(resources.files(__package__).joinpath("bounce_rules.toml").read_text("utf-8"))


def parse_rules(text: str, origin: str = "bounce_rules.toml") -> BounceRules:
    """Return the table in ``text``; raises ConfigError with every problem found, each naming its rule."""
    try:
        tables = tomllib.loads(text).get("rule", [])
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{origin}: {error}"], f"correct {origin}") from error
    problems: list[str] = []
    rows = []
    for number, table in enumerate(tables, 1):
        try:
            rows.append(_row(table))
        except (KeyError, ValueError, TypeError, re.error) as error:
            what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            problems.append(f"{origin}: rule {table.get('name', number)}: {what}")
    names = [row.name for row in rows]
    problems += [f"{origin}: rule {name}: there are two of it" for name in {n for n in names if names.count(n) > 1}]
    if problems:
        raise ConfigError(problems, f"correct {origin}")
    return BounceRules(tuple(rows))


_KEYS = frozenset({"name", "enhanced", "codes", "pattern", "reason", "kind", "ours", "event", "examples", "source"})
_REASONS = {
    reason.name: reason
    for reason in (
        Reason.USER_UNKNOWN,
        Reason.INVALID_DOMAIN,
        Reason.UNREACHABLE,
        Reason.ACCOUNT_DISABLED,
        Reason.MAILBOX_FULL,
        Reason.REFUSED,
    )
}
_EVENTS = {event.value: event for event in (MessageEvent.PUT_OFF, MessageEvent.REFUSED)}


def _row(table: Mapping[str, Any]) -> BounceRule:
    unknown = sorted(set(table) - _KEYS)
    if unknown:
        raise ValueError(f"unknown key {', '.join(unknown)}")
    if not table["examples"]:
        raise ValueError("it has no examples")
    if not {"enhanced", "codes", "pattern"} & set(table):
        raise ValueError("it has no condition: give enhanced, codes or pattern")
    if table["reason"] not in _REASONS:
        raise ValueError(f"reason must be one of {', '.join(_REASONS)}, got {table['reason']!r}")
    if "event" in table and table["event"] not in _EVENTS:
        raise ValueError(f"event must be one of {', '.join(_EVENTS)}, got {table['event']!r}")
    return BounceRule(
        name=table["name"],
        reason=_REASONS[table["reason"]],
        kind=BounceKind(table["kind"]),
        examples=tuple(table["examples"]),
        source=table["source"],
        enhanced=table.get("enhanced", "*"),
        codes=frozenset(table.get("codes", ())),
        pattern=re.compile(table["pattern"], re.IGNORECASE) if "pattern" in table else None,
        ours=table.get("ours", False),
        event=_EVENTS[table["event"]] if "event" in table else None,
    )


_REPLY = re.compile(r"([2-5]\d\d)[ -]?(?:([245]\.\d{1,3}\.\d{1,3})(?:\s+|$))?(.*)", re.DOTALL)


def reply_from_text(text: str) -> Reply:
    """Return the reply an operator or a rule's example quotes on one line; raises ValueError without a code."""
    match = _REPLY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a reply: {text[:80]!r}")
    code, enhanced, words = match.groups()
    return Reply(int(code), enhanced or "", words.strip())
