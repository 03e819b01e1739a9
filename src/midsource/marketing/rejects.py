"""The file of what an import refused: line, reason, text; beside the home's data, readable by its owner only.

Bounded: after MAX_LINES the rest is counted, not written, and the last line says so. Cells that a spreadsheet would run
as a formula get an apostrophe in front.
"""

from __future__ import annotations

import csv
import os
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO

from midsource.marketing.cells import harmless
from midsource.model.errors import Failed

MAX_LINES = 100_000
"""About 20 MB; whoever has more bad lines than that has the wrong file."""
MAX_RAW_CHARS = 500


class RejectsFile:
    """Opened at the first reject; ``path`` is None as long as there was none. A context manager."""

    def __init__(self, home: Path, source: Path, now: datetime) -> None:
        self.count = 0
        self.path: Path | None = None
        self._target = home / "rejects" / f"{source.stem[:100]}-{now:%Y%m%dT%H%M%S}.csv"
        self._file: IO[str] | None = None

    def add(self, line: int, why: str, raw: str) -> None:
        """Count a reject and write it. Raises Failed when the disk does not take it."""
        self.count += 1
        if self.count > MAX_LINES:
            return
        try:
            if self._file is None:
                self._file = self._open()
                csv.writer(self._file).writerow(("line", "reason", "raw"))
            csv.writer(self._file).writerow((line, why, harmless(raw.rstrip("\r\n")[:MAX_RAW_CHARS])))
        except OSError as exc:
            raise Failed(
                f"the rejects file {self._target} cannot be written ({exc.strerror})",
                "free space there and import the file again; what is stored is found again and updated",
            ) from exc

    def __enter__(self) -> RejectsFile:
        """Use as a context: closed at the end."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Say how many were not written, and close."""
        if self._file is not None:
            if self.count > MAX_LINES:
                csv.writer(self._file).writerow(("", f"and {self.count - MAX_LINES} more lines, not written", ""))
            self._file.close()

    def _open(self) -> IO[str]:
        self._target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path, number = self._target, 1
        while True:
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:  # two imports of one file within a second
                number += 1
                path = self._target.with_stem(f"{self._target.stem}-{number}")
            else:
                self.path = path
                return os.fdopen(handle, "w", encoding="utf-8", newline="")
