"""A position in the change feed, as opaque text."""

from __future__ import annotations

import base64
import binascii
import struct
import uuid
from dataclasses import dataclass

from midsource.model.errors import Conflict, UserError
from midsource.wire.schema import GoneBefore, Rewound

_CURSOR = struct.Struct(">16sqi")


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """Everything up to batch ``seq`` was served; with a ``row`` above 0, of that batch only the rows up to it."""

    generation: uuid.UUID
    seq: int = 0
    row: int = 0

    def __str__(self) -> str:
        """Return the opaque text."""
        packed = _CURSOR.pack(self.generation.bytes, self.seq, self.row)
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read the opaque text; raises UserError."""
        try:
            packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            generation, seq, row = _CURSOR.unpack(packed)
        except (binascii.Error, ValueError, struct.error) as exc:
            raise UserError(f"{text[:80]!r} is no cursor of a feed", "give back the cursor of the last page") from exc
        if seq < 0 or row < 0:
            raise UserError(f"{text[:80]!r} is no cursor of a feed", "give back the cursor of the last page")
        return cls(uuid.UUID(bytes=generation), seq, row)


class Forgotten(Conflict):
    """What follows the cursor is not kept any more (`cleanup`); ``gone`` says up to when, and where to go on."""

    code = "MS-212"
    http_status = 410

    def __init__(self, gone: GoneBefore) -> None:
        super().__init__(
            f"results from before {gone.gone_before.isoformat()} are gone: they were kept for their time",
            "go on with what is kept; compare both sides for the rest",
        )
        self.gone = gone


class Gone(Conflict):
    """The cursor is of another generation or beyond the end; ``rewound`` says where the feed stands."""

    code = "MS-211"

    def __init__(self, rewound: Rewound) -> None:
        super().__init__(
            "the cursor is not of this database: it was restored, cloned or made anew",
            "read again from the oldest kept row",
        )
        self.rewound = rewound
