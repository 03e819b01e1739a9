"""The records of a journal, as values and as bytes: length, CRC-32, MessagePack.

A record that was cut, altered or is not ours ends the reading of its file: everything before it counts.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from datetime import datetime
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


def unframe(data: bytes) -> tuple[list[Record], int]:
    """Return the records in ``data``, and how many bytes at its end are none."""
    found: list[Record] = []
    at = 0
    while at + _HEAD.size <= len(data):
        length, check = _HEAD.unpack_from(data, at)
        payload = data[at + _HEAD.size : at + _HEAD.size + length]
        if length > RECORD_BYTES or len(payload) < length or zlib.crc32(payload) != check:
            break
        found.append(_decode(payload))
        at += _HEAD.size + length
    return found, len(data) - at
