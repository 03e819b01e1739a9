"""What an mta process has begun and what came of it, on its own disk: the difference is what is *uncertain*.

One folder per process life, ``<home>/journal/<instance>/<executor>/``, held by flock while the process lives, with
segments ``000001.log``, ``000002.log``, … of length, CRC-32 and MessagePack, and a file ``boot`` that says under which boot of the
machine it is written. Order of events:

1. `started` is written (write(2), no fsync) before the first byte of a body leaves, one write for all that begin in a
   turn of the event loop; `withdrawn` takes it back when the final dot was never sent.
2. `outcome` is buffered, handed to the system with the next `started` or `flush`, and made durable by `sync`, which the
   caller runs every 50 ms in a thread. Outcomes collect under a *number*.
3. `seal` ends the number: its outcomes are one PostgreSQL transaction, which also writes (executor, segment, number)
   into ``journal_applied``. A COMMIT of unknown fate is simply done again: the row says whether it was done.
4. `applied` says so here too; a segment goes when everything in it and before it is applied, no start is open, and what
   closed its starts is durable: an outcome that is only in memory dies with the process, and its start must not go first.

Durable: a `started` survives the death of the process at once and of the machine after the next sync; likewise an
outcome. So under another boot what is read of outcomes is true, and what is missing of starts says nothing (`mid.recovery`).
Bounds: a segment ends after SEGMENT_BYTES, the folder takes at most JOURNAL_BYTES; beyond that, or on a full
disk, `has_room` is false and the caller takes no more work. A torn tail is cut off when it is read.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from midsource.mid import replay
from midsource.mid.records import Applied, Key, Numbered, Outcome, Sealed, Start, Withdrawn, frame
from midsource.model.errors import Failed
from midsource.store.files import keep_names

SEGMENT_BYTES = 16 * 2**20
"""About 60 000 messages; small enough to be read in a fraction of a second at recovery."""
JOURNAL_BYTES = 256 * 2**20
"""A process that cannot write to PostgreSQL stops far below this (it leases nothing more); a wall, not a target."""

BATCH_OUTCOMES = 2_000
"""Outcomes of one transaction: a COPY by thousands costs 2 to 4 µs a row, and the commit disappears in it."""

_NOTHING = frame(Applied(0, 0))
"""A record that says nothing: segments and numbers count from 1."""
_make_durable: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
"""macOS has no fdatasync."""


class JournalFull(Failed):
    """The journal cannot be written: nothing may be sent any more, because nobody could tell afterwards."""

    code = "MS-321"


@dataclass(slots=True)
class _Segment:
    number: int
    path: Path
    fd: int
    size: int = 0
    open_starts: int = 0
    closed_by: int = 0
    """The flush that writes what closed the last of its starts so far."""
    unapplied: set[int] = field(default_factory=set)


class Journal:
    """The journal of this process. All methods belong to one thread, except `sync`, which may run in another."""

    def __init__(self, root: Path, executor: str, boot_id: str, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.executor = executor
        self._segment_bytes = segment_bytes
        self.directory, self._lock = _claim_directory(root, executor, boot_id)
        self._segments: deque[_Segment] = deque()
        self._open: dict[Key, _Segment] = {}
        self._buffer: list[bytes] = []
        self._collected: list[Outcome] = []
        self._sealed: deque[Sealed] = deque()
        self._number = 0
        self._retiring: deque[int] = deque()
        self._flushed = self._synced = 0
        """How many flushes there were, and how many of them are durable."""
        self._torn = False
        self.trouble = ""
        """Why the last write failed, "" when it did not."""
        self._new_segment()

    @property
    def has_room(self) -> bool:
        """Whether more work may be taken: the disk takes writes and the journal is within its bound."""
        if self.trouble:
            self._buffer.append(_NOTHING)  # the disk is tried with something, be nothing else waiting
            self._try_flush()
        self._remove_done()  # here too: at the bound nothing is leased, so nothing would be `applied` any more
        return not self.trouble and sum(segment.size for segment in self._segments) < JOURNAL_BYTES

    @property
    def collected(self) -> int:
        """Outcomes that are not applied."""
        return len(self._collected) + sum(len(sealed.outcomes) for sealed in self._sealed)

    @property
    def is_dirty(self) -> bool:
        """Whether something waits for `flush` or `sync`."""
        return bool(self._buffer) or self._flushed > self._synced

    def started(self, *starts: Start) -> None:
        """Write that these bodies begin to leave, in one write. Raises JournalFull: then none of them may leave."""
        waiting = len(self._buffer)
        self._buffer += map(frame, starts)
        try:
            self.flush()
        except JournalFull:
            del self._buffer[waiting:]
            raise
        segment = self._segments[-1]
        segment.open_starts += len(starts)
        for start in starts:
            self._open[start.key] = segment

    def has_begun(self, key: Key) -> bool:
        """Whether a start is open: written, and neither withdrawn nor with an outcome."""
        return key in self._open

    def withdrawn(self, key: Key) -> None:
        """Take a start back: the final dot was never sent."""
        self._close_start(key)
        self._buffer.append(frame(Withdrawn(*key)))

    def outcome(self, outcome: Outcome) -> None:
        """Note what came of a try. It is written with the next flush and belongs to the next `seal`."""
        self._close_start(outcome.key)
        self._buffer.append(frame(outcome))
        self._collected.append(outcome)
        if len(self._collected) >= BATCH_OUTCOMES:
            self._seal_collected()

    def flush(self) -> None:
        """Hand everything buffered to the system in one write. Raises JournalFull and keeps it buffered."""
        if not self._buffer:
            return
        segment = self._segments[-1]
        data = b"".join(self._buffer)
        try:
            if self._torn:
                self._cut(segment)
            written = os.write(segment.fd, data)
            if written != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as exc:
            self._torn = True  # nothing may be written behind a torn record: it would never be read
            with suppress(OSError):
                self._cut(segment)
            raise self._full(exc) from exc
        segment.size += len(data)
        self._flushed += 1
        self._buffer.clear()
        self.trouble = ""

    def sync(self) -> None:
        """Make everything flushed durable (fdatasync). Blocks; raises JournalFull, and the next call does it again."""
        # First: what is flushed from here on, and where a new segment begins, is the next call's.
        flushed = self._flushed
        try:
            _make_durable(self._segments[-1].fd)
            while self._retiring:
                _make_durable(self._retiring[0])
                os.close(self._retiring.popleft())
        except OSError as exc:
            raise self._full(exc) from exc
        self._synced = flushed

    def seal(self) -> Sealed | None:
        """Return the oldest batch that is not applied, ending the current number when there is none; None: nothing waits."""
        if not self._sealed and self._collected:
            self._seal_collected()
        return self._sealed[0] if self._sealed else None

    def applied(self, sealed: Sealed) -> None:
        """Note that ``sealed`` is committed, and remove the segments nobody needs any more."""
        self._sealed.remove(sealed)
        for segment in self._segments:
            if segment.number == sealed.segment:
                segment.unapplied.discard(sealed.number)
        self._buffer.append(frame(Applied(sealed.segment, sealed.number)))
        self._remove_done()

    def close(self, *, settled: bool) -> None:
        """Release the folder. ``settled``: everything is applied, so it is removed; else the next recovery reads it."""
        self._try_flush()
        self.sync()
        if settled and not self._open and not self.collected and not any(s.unapplied for s in self._segments):
            replay.remove(self.directory)
        os.close(self._segments[-1].fd)
        os.close(self._lock)

    def _seal_collected(self) -> None:
        segment = self._segments[-1]
        self._number += 1
        self._buffer.append(frame(Numbered(self._number)))
        segment.unapplied.add(self._number)
        self._sealed.append(Sealed(segment.number, self._number, tuple(self._collected)))
        self._collected.clear()
        self._try_flush()
        if segment.size >= self._segment_bytes and not self._buffer:
            with suppress(OSError):  # no room for another file: the present one goes on, beyond its size
                self._new_segment()

    def _close_start(self, key: Key) -> None:
        segment = self._open.pop(key, None)
        if segment is not None:
            segment.open_starts -= 1
            segment.closed_by = self._flushed + 1

    def _remove_done(self) -> None:
        while len(self._segments) > 1:
            first = self._segments[0]
            if first.open_starts or first.unapplied or first.closed_by > self._synced:
                break  # in order only: a start must not outlive the segment of its outcome
            with suppress(OSError):  # its batches are in PostgreSQL, whoever reads it again
                self._segments.popleft().path.unlink(missing_ok=True)

    def _try_flush(self) -> None:
        try:
            self.flush()
        except JournalFull:
            return  # `trouble` says so; what is buffered is bounded by what was leased

    def _cut(self, segment: _Segment) -> None:
        os.ftruncate(segment.fd, segment.size)
        self._torn = False

    def _full(self, error: OSError) -> JournalFull:
        self.trouble = error.strerror or str(error)
        return JournalFull(
            f"the journal in {self.directory} cannot be written ({self.trouble})",
            "free space; sending goes on by itself",
        )

    def _new_segment(self) -> None:
        number = self._segments[-1].number + 1 if self._segments else 1
        path = self.directory / f"{number:06d}.log"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            os.fsync(self._lock)
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        if self._segments:
            self._retiring.append(self._segments[-1].fd)
        self._segments.append(_Segment(number, path, fd))


def _claim_directory(root: Path, executor: str, boot_id: str) -> tuple[Path, int]:
    """Make the folder, held from the first moment it can be seen. Durable: its name, or the machine would forget its outcomes."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    hidden, final = root / f".{executor}", root / executor
    hidden.mkdir(mode=0o700)
    if boot_id:
        (hidden / replay.BOOT).symlink_to(boot_id)  # needs no sync: a folder that lost it is of another boot
    fd = replay.hold(hidden)
    assert fd is not None
    hidden.rename(final)
    keep_names(root)
    return final, fd
