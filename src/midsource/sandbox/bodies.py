"""The raw messages, the most recent ones only: at least the last ``Bounds.body_messages`` while they
fit in ``Bounds.body_bytes``.

They lie one after another in segment files ``bodies-<number>.eml``; the oldest file goes when the others hold enough.
The index says in which segment, where and how long a message is; a segment that is gone is "not kept any more". What a
killed process wrote and did not index stays between two messages, and nothing points to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from midsource.sandbox.files import Appender, Bounds, read_at


@dataclass(slots=True)
class _Segment:
    path: Path
    messages: int
    size: int


class Bodies:
    """Segment files of one folder; the event loop writes, threads may read."""

    def __init__(self, folder: Path, bounds: Bounds) -> None:
        self._folder = folder
        self._bounds = bounds
        self._segments: dict[int, _Segment] = {
            int(path.stem.partition("-")[2]): _Segment(path, 0, path.stat().st_size)
            for path in sorted(folder.glob("bodies-*.eml"))
        }
        self._next = max(self._segments, default=0) + 1
        self._open: tuple[int, Appender] | None = None

    def found_in_index(self, segment: int) -> None:
        """Count a message of an earlier process: called once for each line of the index at start."""
        if segment in self._segments:
            self._segments[segment].messages += 1

    def append(self, bodies: Sequence[bytes]) -> list[tuple[int, int]]:
        """Write messages, return (segment, offset) of each; OSError: none of them is kept."""
        number, appender = self._open or self._begin()
        start = appender.append(bodies[0] if len(bodies) == 1 else b"".join(bodies))
        places = []
        for body in bodies:
            places.append((number, start))
            start += len(body)
        segment = self._segments[number]
        segment.messages += len(bodies)
        segment.size = appender.size
        if self._is_complete(segment):
            self.close()
            self._forget_old()
        return places

    def read(self, segment: int, offset: int, length: int) -> bytes | None:
        """Return a message, or None where it is not kept any more."""
        kept = self._segments.get(segment)
        data = read_at(kept.path, offset, length) if kept else b""
        return data if data and len(data) == length else None

    def clear(self) -> None:
        """Forget everything."""
        self.close()
        for segment in self._segments.values():
            segment.path.unlink(missing_ok=True)
        self._segments.clear()

    def close(self) -> None:
        """Close the segment being written; the next message begins another."""
        if self._open:
            self._open[1].close()
            self._open = None

    def _begin(self) -> tuple[int, Appender]:
        last = max(self._segments, default=0)
        if not last or self._is_complete(self._segments[last]):
            last = self._next
            self._segments[last] = _Segment(self._folder / f"bodies-{last:06d}.eml", 0, 0)
            self._next += 1
        self._open = last, Appender(self._segments[last].path)
        return self._open

    def _is_complete(self, segment: _Segment) -> bool:
        return segment.size >= self._bounds.body_segment_bytes or segment.messages >= self._bounds.body_segment_messages

    def _forget_old(self) -> None:
        messages = sum(one.messages for one in self._segments.values())
        size = sum(one.size for one in self._segments.values())
        for number, segment in list(self._segments.items())[:-1]:
            is_small = size <= self._bounds.body_bytes - self._bounds.body_segment_bytes
            if is_small and messages - segment.messages < self._bounds.body_messages:
                break
            segment.path.unlink(missing_ok=True)
            del self._segments[number]
            messages -= segment.messages
            size -= segment.size
