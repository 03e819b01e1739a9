"""From bytes to command lines and messages: where a line and where a message end (RFC 5321 2.3.8, 4.5.2).

Strict CRLF: a bare CR or LF is a fault, in a command and in a message, because two servers that disagree about where a
message ends let a second one be smuggled in. Only ``<CRLF>.<CRLF>`` ends a message.

Limits: a line of more than ``MAX_LINE`` bytes is a fault as soon as it is known; a message of more than
``MAX_MESSAGE_BYTES`` is read to its end, so that the refusal comes where the peer expects it, and held in no memory.
"""

from __future__ import annotations

from enum import Enum, auto

MAX_LINE = 2048
"""Bytes of a command: RFC 5321 asks for 512, SMTPUTF8 paths and parameters need more."""
MAX_MESSAGE_BYTES = 10 * 1024 * 1024
"""Announced by SIZE, counted as on the wire; the demo's messages are below 100 kB."""

_END = b"\r\n.\r\n"


class Fault(Enum):
    """Why what arrived is no line or no message."""

    TOO_LONG = auto()
    BARE_LINE_END = auto()


class Framer:
    """The bytes not yet understood."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0  # bytes that hold no end: what arrives in small pieces is still searched only once
        self._has_overflowed = False

    def __len__(self) -> int:
        """Return the number of bytes waiting."""
        return len(self._buffer)

    def receive(self, data: bytes) -> None:
        """Take what arrived."""
        self._buffer += data

    def forget(self) -> None:
        """Throw away what waits."""
        self._buffer.clear()
        self._searched = 0

    def next_line(self) -> bytes | Fault | None:
        """Return a command line without its end, or None until it is whole."""
        buffer = self._buffer
        end = buffer.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(buffer)
            return Fault.TOO_LONG if len(buffer) > MAX_LINE else None
        line = bytes(buffer[: end + 1])
        del buffer[: end + 1]
        self._searched = 0
        if not line.endswith(b"\r\n") or line.find(b"\r") != end - 1:
            return Fault.BARE_LINE_END
        return line[:-2] if len(line) <= MAX_LINE else Fault.TOO_LONG

    def next_message(self) -> bytes | Fault | None:
        """Return a message without its final dot and unstuffed, or None until it is whole."""
        buffer = self._buffer
        if not self._searched and len(buffer) < 3 and b".\r\n".startswith(bytes(buffer)):
            return None  # perhaps the empty message, whose dot follows the end of the DATA line
        if not self._searched and buffer.startswith(b".\r\n"):
            del buffer[:3]
            return b""
        end = buffer.find(_END, max(0, self._searched - len(_END)))
        if end < 0:
            if len(buffer) > MAX_MESSAGE_BYTES:
                self._has_overflowed = True
                del buffer[: -len(_END)]
            self._searched = len(buffer)
            return None
        body = bytes(buffer[: end + 2])
        del buffer[: end + len(_END)]
        self._searched = 0
        is_too_long = self._has_overflowed or len(body) > MAX_MESSAGE_BYTES
        self._has_overflowed = False
        return Fault.TOO_LONG if is_too_long else _unstuffed(body)


def _unstuffed(body: bytes) -> bytes | Fault:
    line_ends = body.count(b"\r\n")
    if body.count(b"\n") != line_ends or body.count(b"\r") != line_ends:
        return Fault.BARE_LINE_END
    if body.startswith(b".") or b"\r\n." in body:
        return (b"\r\n" + body).replace(b"\r\n.", b"\r\n")[2:]
    return body
