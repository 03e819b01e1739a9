"""What the sink holds: index, raw messages and counts as one thing.

``keep`` writes the raw messages, then their index lines, and only then returns: the caller may answer 250. A process
killed between the two leaves bytes in a body segment that nothing points to, never a line without its message.

What is kept is bounded by ``files.Bounds``; a search looks at ``SCAN_LINES`` lines at most and then hands back the
place to go on from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from midsource.model.clock import Clock
from midsource.sandbox.arrival import Arrival
from midsource.sandbox.bodies import Bodies
from midsource.sandbox.files import Bounds
from midsource.sandbox.index import Index
from midsource.sandbox.tally import Tally

MAX_PAGE = 500
SCAN_LINES = 100_000
"""Lines one search looks at, about a fifth of a second."""


class Line(msgspec.Struct, frozen=True):
    """One message for one recipient, as the index keeps it."""

    n: int
    at: datetime
    mail_from: str
    rcpt: str
    domain: str
    message_id: str
    id: str
    delivery: str
    subject: str
    size: int
    sha256: str
    personality: str
    answered: bool
    """Whether the sink meant to say 250; false where it hung up instead."""
    duplicate: bool
    """Whether the same message had arrived for the same recipient before."""
    tls: bool
    segment: int
    offset: int


class _Known(msgspec.Struct, frozen=True):
    """The part of a line that is counted."""

    rcpt: str
    domain: str
    message_id: str
    delivery: str
    personality: str
    answered: bool
    duplicate: bool
    segment: int


class _Truth(msgspec.Struct, frozen=True):
    """The part of a line that a ledger is compared with."""

    n: int
    message_id: str
    id: str
    rcpt: str
    answered: bool
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Query:
    """Which messages to show: all that match every field that is not empty, below number ``after``."""

    delivery: str = ""
    domain: str = ""
    text: str = ""
    """Occurs in recipient, sender, subject, Message-ID or token, whatever the case."""
    after: int | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Page:
    """Lines, newest first. ``after`` asks for the next page; None: there is nothing older."""

    lines: tuple[Line, ...]
    after: int | None


_encode = msgspec.json.Encoder().encode
_decode_line = msgspec.json.Decoder(Line).decode
_decode_known = msgspec.json.Decoder(_Known).decode
_decode_truth = msgspec.json.Decoder(_Truth).decode


class Inbox:
    """The messages of one folder. The event loop keeps; ``page``, ``line``, ``raw`` and ``truth`` may run in threads."""

    def __init__(self, folder: Path, clock: Clock, bounds: Bounds | None = None) -> None:
        self._clock = clock
        self._bodies = Bodies(folder, bounds or Bounds())
        self._index = Index(folder, bounds or Bounds())
        self.tally = Tally()
        self._index.replay(self._recall)

    def holds(self, message_id: str, rcpt: str) -> bool:
        """Whether this message has arrived for this recipient."""
        return self.tally.holds(message_id, rcpt)

    def keep(self, arrivals: Sequence[Arrival]) -> list[int]:
        """Keep messages; return for each the number of its first line. OSError: none is kept, refuse them."""
        places = self._bodies.append([one.body for one in arrivals])
        numbers: list[int] = []
        lines: list[Line] = []
        for arrival, place in zip(arrivals, places, strict=True):
            numbers.append(self._index.next_number + len(lines))
            lines += self._lines(arrival, place, numbers[-1])
        try:
            self._index.append([_encode(line) + b"\n" for line in lines])
        except OSError:
            for line in lines:
                if not line.duplicate:
                    self.tally.gone(line.message_id, line.rcpt)
            raise
        for line in lines:
            self._count(line)
        self._forget_surplus()
        return numbers

    def page(self, query: Query) -> Page:
        """Return the newest matching messages below ``query.after``."""
        needles = _needles(query)
        text = query.text.casefold()
        escaped = _encode(query.text).decode()[1:-1].casefold()
        found: list[Line] = []
        limit = max(1, min(query.limit, MAX_PAGE))
        scanned = 0
        for block in self._index.blocks(before=query.after):
            for raw in block:
                scanned += 1
                if not all(needle in raw for needle in needles):
                    continue
                if escaped and escaped not in raw.decode("utf-8", "replace").casefold():
                    continue
                line = _decode_line(raw)
                if text and not any(text in value.casefold() for value in _searchable(line)):
                    continue
                found.append(line)
                if len(found) == limit:
                    return Page(tuple(found), line.n if line.n > 1 else None)
            if block and scanned >= SCAN_LINES:
                oldest = _decode_line(block[-1]).n
                return Page(tuple(found), oldest if oldest > 1 else None)
        return Page(tuple(found), None)

    def line(self, number: int) -> Line | None:
        """Return the line of that number, or None where it is not kept."""
        raw = self._index.line(number)
        return _decode_line(raw) if raw else None

    def raw(self, line: Line) -> bytes | None:
        """Return the message exactly as it arrived, or None where only its line is kept."""
        return self._bodies.read(line.segment, line.offset, line.size)

    def truth(self, delivery: str = "") -> Iterator[bytes]:
        """Yield NDJSON, oldest first, in pieces of some hundred lines; of one delivery, or of all."""
        needles = _needles(Query(delivery=delivery))
        for block in self._index.blocks(newest_first=False):
            lines = [_encode(_decode_truth(raw)) for raw in block if all(needle in raw for needle in needles)]
            if lines:
                yield b"\n".join(lines) + b"\n"

    def clear(self) -> None:
        """Forget every message. Numbers go on."""
        self._index.clear()
        self._bodies.clear()
        self.tally = Tally()

    def close(self) -> None:
        """Close the files."""
        self._index.close()
        self._bodies.close()

    def _lines(self, arrival: Arrival, place: tuple[int, int], number: int) -> list[Line]:
        """Return the index lines of one message, one for each recipient, and remember it as held."""
        now = self._clock.now()
        facts = arrival.facts
        return [
            Line(
                n=number + i,
                at=now,
                mail_from=arrival.mail_from,
                rcpt=recipient.address,
                domain=recipient.domain,
                message_id=facts.message_id,
                id=facts.id,
                delivery=facts.delivery,
                subject=facts.subject,
                size=len(arrival.body),
                sha256=facts.sha256,
                personality=recipient.personality.kind.value,
                answered=arrival.answered,
                duplicate=not self.tally.arrived(facts.message_id, recipient.address),
                tls=arrival.encrypted,
                segment=place[0],
                offset=place[1],
            )
            for i, recipient in enumerate(arrival.recipients)
        ]

    def _recall(self, raw: bytes) -> None:
        known = _decode_known(raw)
        if not known.duplicate:
            self.tally.arrived(known.message_id, known.rcpt)
        self._bodies.found_in_index(known.segment)
        self._count(known)

    def _count(self, line: Line | _Known, sign: int = 1) -> None:
        self.tally.count(
            line.domain, line.delivery, line.personality, sign, first=not line.duplicate, answered=line.answered
        )

    def _forget_surplus(self) -> None:
        for raw in self._index.surplus() or ():
            known = _decode_known(raw)
            if not known.duplicate:
                self.tally.gone(known.message_id, known.rcpt)
            self._count(known, -1)


def _needles(query: Query) -> list[bytes]:
    """Return what a raw line must contain: quotes inside values are escaped, so a value cannot fake a field."""
    wanted = (("delivery", query.delivery), ("domain", query.domain.lower()))
    return [b'"%s":%s' % (name.encode(), _encode(value)) for name, value in wanted if value]


def _searchable(line: Line) -> tuple[str, ...]:
    return (line.rcpt, line.subject, line.mail_from, line.message_id, line.id)
