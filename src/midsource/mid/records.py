"""The records of a journal, as values and as bytes: length, CRC-32, MessagePack.

A record that was cut, altered or is not ours ends the reading of its file: everything before it counts. Which of them it was
matters: a process that is killed leaves at most the beginning of a record at the end of its last file, and nothing behind it. Zeros, which a
file system leaves when the power goes, have the right checksum of an empty record; there is none.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

import msgspec

RECORD_BYTES = 65_536
"""No record comes near: a reply is at most 500 characters. A larger length in a file is a torn or foreign tail."""

_HEAD = struct.Struct("<II")
Key: TypeAlias = tuple[int, int, int]


class Start(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    """The body of this message begins to leave, under this lease."""

    account_id: int
    delivery_id: int
    id: int
    batch_id: int
    token: int

    @property
    def key(self) -> Key:
        """What the later records about this try name."""
        return (self.batch_id, self.token, self.id)


class Outcome(msgspec.Struct, frozen=True, array_like=True, tag="o"):
    """What came of one try. ``event`` and ``reason`` are of `model.message`; ``again_at``: when it is due again."""

    account_id: int
    delivery_id: int
    id: int
    batch_id: int
    token: int
    event: str
    reason: int
    reply: str
    stage: str
    event_at: datetime
    message_id: str
    counts_attempt: bool
    again_at: datetime | None
    destination: str

    @property
    def key(self) -> Key:
        """The key of its start."""
        return (self.batch_id, self.token, self.id)


class Withdrawn(msgspec.Struct, frozen=True, array_like=True, tag="w"):
    """A start whose final dot was never sent: the message did not leave."""

    batch_id: int
    token: int
    id: int


class Numbered(msgspec.Struct, frozen=True, array_like=True, tag="n"):
    """The outcomes before this record, back to the last of its kind, are batch ``number``."""

    number: int


class Applied(msgspec.Struct, frozen=True, array_like=True, tag="a"):
    """Batch ``number`` of ``segment`` is in PostgreSQL."""

    segment: int
    number: int


Record: TypeAlias = Start | Outcome | Withdrawn | Numbered | Applied
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


@dataclass(frozen=True, slots=True)
class Sealed:
    """Outcomes that are one transaction; (executor, segment, number) names them for ever."""

    segment: int
    number: int
    outcomes: tuple[Outcome, ...]


def frame(record: Record) -> bytes:
    """Return the record as it stands in a file."""
    payload = _encode(record)
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


class Ending(StrEnum):
    """How the reading of a file ended."""

    WHOLE = ""
    CUT = "cut"
    """Within what may be the beginning of a record."""
    ALTERED = "altered"
    FOREIGN = "foreign"
    """At a record that is as it was written, and none that this version knows."""


@dataclass(frozen=True, slots=True)
class Unframed:
    """What a file holds: its records, and how many bytes at its end are none, and why."""

    records: list[Record]
    torn_bytes: int
    ending: Ending


def unframe(data: bytes) -> Unframed:
    """Return what ``data`` holds, whatever it is. Raises nothing."""
    found: list[Record] = []
    at, ending = 0, Ending.WHOLE
    while not ending and at < len(data):
        ending, record, size = _next(data, at)
        if record is not None:
            found.append(record)
            at += size
    return Unframed(found, len(data) - at, ending)


def _next(data: bytes, at: int) -> tuple[Ending, Record | None, int]:
    """Return the record at ``at`` and its size, or why there is none."""
    if len(data) - at < _HEAD.size:
        return Ending.CUT, None, 0
    length, check = _HEAD.unpack_from(data, at)
    if not 0 < length <= RECORD_BYTES:
        return Ending.ALTERED, None, 0
    payload = data[at + _HEAD.size : at + _HEAD.size + length]
    if len(payload) < length:
        return Ending.CUT, None, 0
    if zlib.crc32(payload) != check:
        return Ending.ALTERED, None, 0
    try:
        return Ending.WHOLE, _decode(payload), _HEAD.size + length
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors, and so is text that is none
        return Ending.FOREIGN, None, 0
