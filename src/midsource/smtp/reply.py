"""Bytes from a server into replies (RFC 5321 4.2), every bound inside.

Feed whatever arrived; whole replies come out, in order. Lines may end in CRLF or, tolerated because real servers do it,
in a bare LF. A continuation line with another code than the last is tolerated too: the last line's code is the reply's.
Anything that is no reply at all (no three digits, a first digit outside 2 to 5, a line or a reply beyond the limits)
raises `Garbled`: after it the position in the conversation is unknown, so the connection cannot be used any further.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from midsource.model.outcome import MAX_REPLY_TEXT, Reply


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a server may say before it is not a mail server any more."""

    line_bytes: int = 2048  # RFC 5321 4.5.3.1.5 says 512; providers' texts with links reach about 900
    reply_lines: int = 100  # the longest EHLO answers have about 25
    buffered_bytes: int = 65536  # one read of everything outstanding; replies in flight are never more than ten


class Garbled(ValueError):
    """What came is not an SMTP reply; says what it was, in one clause."""


_LINE = re.compile(rb"([2-5]\d\d)(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:[ :]+|$)")  # RFC 2034 4; the colon is Yahoo's and others'
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_SEEN_REPLIES = 64
"""Distinct reply lines remembered per connection: servers say the same few things thousands of times."""

_SEEN_BYTES = 128
"""Longer lines are not remembered: they carry queue ids or reasons, and 64 of them are the memory a peer may take."""


class ReplyParser:
    """Collects bytes and gives replies; ``last_lines`` holds the lines of the newest one (EHLO keywords need them)."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._rest = b""
        self._lines: list[str] = []
        self._seen: dict[bytes, Reply] = {}
        self.last_lines: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Show what waits for its end."""
        return f"ReplyParser({len(self._lines)} lines, {len(self._rest)} bytes waiting)"

    @property
    def has_rest(self) -> bool:
        """Whether bytes or lines wait for the end of their reply."""
        return bool(self._rest or self._lines)

    def feed(self, data: bytes) -> None:
        """Add bytes; raises Garbled when more is buffered than a conversation can need."""
        self._rest = self._rest + data if self._rest else data
        if len(self._rest) > self._limits.buffered_bytes:
            raise Garbled(f"more than {self._limits.buffered_bytes} bytes at once")

    def next_reply(self) -> Reply | None:
        """Return the next whole reply, None until more bytes arrive; raises Garbled."""
        while True:
            end = self._rest.find(b"\n")
            if end > self._limits.line_bytes or (end < 0 and len(self._rest) > self._limits.line_bytes):
                raise Garbled(f"a reply line longer than {self._limits.line_bytes} bytes")
            if end < 0:
                return None
            line = self._rest[:end]
            self._rest = self._rest[end + 1 :]
            if not self._lines and (known := self._seen.get(line)) is not None:
                self.last_lines = ()
                return known
            reply = self._take_line(line)
            if reply is not None:
                return reply

    def _take_line(self, line: bytes) -> Reply | None:
        match = _LINE.fullmatch(line.removesuffix(b"\r"))
        if match is None:
            raise Garbled(f"not a reply: {_readable(line[:80])!r}")
        code, mark, text = match.groups()
        self._lines.append(_readable(text or b""))
        if mark == b"-":
            if len(self._lines) >= self._limits.reply_lines:
                raise Garbled(f"a reply of more than {self._limits.reply_lines} lines")
            return None
        reply = reply_of(int(code), self._lines)
        self.last_lines = tuple(self._lines)
        if len(self._lines) == 1 and len(line) <= _SEEN_BYTES and len(self._seen) < _SEEN_REPLIES:
            self._seen[line] = reply
        self._lines.clear()
        return reply


def _readable(raw: bytes) -> str:
    """Return text fit for a log, a terminal and a database: UTF-8 where it is, no control characters."""
    return _CONTROL.sub(" ", raw.decode("utf-8", "replace")).strip()


def reply_of(code: int, lines: list[str]) -> Reply:
    """Return the reply: the enhanced code taken off each line, the texts joined by spaces and bounded."""
    enhanced = ""
    texts = []
    for line in lines:
        match = _ENHANCED.match(line)
        if match is None or match[1][0] != str(code)[0]:  # RFC 2034 4: the class must agree, else it is text
            texts.append(line)
            continue
        enhanced = enhanced or match[1]
        texts.append(line[match.end() :])
    return Reply(code, enhanced, " ".join(filter(None, texts))[:MAX_REPLY_TEXT])
