"""One line per recipient of every message the sink took: the truth the ledger is compared with.

NDJSON in segment files ``index-<number of the first line>.ndjson`` of ``Bounds.index_segment_lines`` lines. Lines are
numbered from 1 without a gap and never renumbered, also over ``clear``, so a number is a stable place to page from.
Beyond ``Bounds.index_lines`` the oldest segment is dropped whole. In memory only the offset of each line stays (4 bytes).

Durable: a line is with the operating system before its message is answered. At start a torn last line is cut off.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from midsource.sandbox.files import Appender, Bounds, read_at

BLOCK_LINES = 500
"""Lines read at a time while scanning, about 200 kB."""


@dataclass(slots=True)
class _Segment:
    path: Path
    first: int
    offsets: array[int] = field(default_factory=lambda: array("I"))
    size: int = 0

    def read(self, begin: int, end: int) -> list[bytes]:
        """Return lines by place in this segment; empty where the file is gone meanwhile."""
        start = self.offsets[begin]
        stop = self.offsets[end] if end < len(self.offsets) else self.size
        return read_at(self.path, start, stop - start).splitlines()[: end - begin]


class Index:
    """The segments of one folder. The event loop appends; any thread may read."""

    def __init__(self, folder: Path, bounds: Bounds) -> None:
        self._folder = folder
        self._bounds = bounds
        self._segments: list[_Segment] = []
        self._open: Appender | None = None
        self.next_number = 1

    def replay(self, on_line: Callable[[bytes], None]) -> None:
        """Find what an earlier process left, cut a torn end off, and show each line once, oldest first."""
        for path in sorted(self._folder.glob("index-*.ndjson")):
            segment = _Segment(path, int(path.stem.partition("-")[2]))
            with path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    segment.offsets.append(segment.size)
                    segment.size += len(line)
                    on_line(line)
            os.truncate(path, segment.size)
            self._segments.append(segment)
            self.next_number = segment.first + len(segment.offsets)

    def append(self, lines: Sequence[bytes]) -> None:
        """Write lines (each ends with a line feed), numbered from ``next_number``; OSError: none is kept."""
        if self._open is None:
            self._begin()
        assert self._open is not None
        segment = self._segments[-1]
        start = self._open.append(b"".join(lines))
        segment.size = self._open.size  # before the offsets: a reader in a thread must never see an offset beyond it
        for line in lines:
            segment.offsets.append(start)
            start += len(line)
        self.next_number += len(lines)
        if len(segment.offsets) >= self._bounds.index_segment_lines:
            self.close()

    def surplus(self) -> list[bytes] | None:
        """Drop the oldest segment if there are too many lines; return its lines."""
        if len(self._segments) < 2 or self.next_number - self._segments[0].first <= self._bounds.index_lines:
            return None
        oldest = self._segments.pop(0)
        lines = oldest.read(0, len(oldest.offsets))
        oldest.path.unlink(missing_ok=True)
        return lines

    def line(self, number: int) -> bytes | None:
        """Return one line, or None where there is none of that number."""
        segments = self._segments[:]
        place = bisect_right(segments, number, key=lambda one: one.first) - 1
        if place < 0 or not 0 <= number - segments[place].first < len(segments[place].offsets):
            return None
        begin = number - segments[place].first
        found = segments[place].read(begin, begin + 1)
        return found[0] if found else None

    def blocks(self, *, before: int | None = None, newest_first: bool = True) -> Iterator[list[bytes]]:
        """Yield the lines with a number below ``before``, up to ``BLOCK_LINES`` at a time, in the order asked for."""
        segments = self._segments[::-1] if newest_first else self._segments[:]
        for segment in segments:
            length = len(segment.offsets)
            if before is not None:
                length = min(length, before - segment.first)
            bounds = list(pairwise([*range(0, max(length, 0), BLOCK_LINES), length])) if length > 0 else []
            for begin, end in reversed(bounds) if newest_first else bounds:
                lines = segment.read(begin, end)
                yield lines[::-1] if newest_first else lines

    def clear(self) -> None:
        """Forget every line; numbers go on, also over a restart."""
        self.close()
        for segment in self._segments:
            segment.path.unlink(missing_ok=True)
        self._segments.clear()
        self._begin()

    def close(self) -> None:
        """Close the segment being written."""
        if self._open:
            self._open.close()
            self._open = None

    def _begin(self) -> None:
        last = self._segments[-1] if self._segments else None
        if last is None or len(last.offsets) >= self._bounds.index_segment_lines:
            last = _Segment(self._folder / f"index-{self.next_number:010d}.ndjson", self.next_number)
            self._open = Appender(last.path)
            self._segments.append(last)
        else:
            self._open = Appender(last.path)
