"""What the holder tells the users of the embedded PostgreSQL, and how it is asked to work.

``Order`` travels once, as an argument of the holder process; ``State`` is a small file replaced as a whole. A state is only as true as its writer is alive: readers ask ``owner_lock`` first.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from midsource.model.errors import Failed, MidsourceError, Unhealthy
from midsource.store.files import write_whole
from midsource.supervise.places import HomeFiles


class Phase(StrEnum):
    """Where the server is in its life."""

    ABSENT = "absent"  # no holder: nobody needs it
    PREPARING = "preparing"  # binaries, initdb
    STARTING = "starting"  # postgres runs and does not answer yet: it may be recovering
    RUNNING = "running"
    FAILING = "failing"  # it fell over more than once; the holder tries again, ever more slowly
    STOPPING = "stopping"
    FAILED = "failed"  # the holder gave up for the reason in ``sentence``


@dataclass(frozen=True, slots=True)
class State:
    """One report of the holder; pids are 0 where there is no such process."""

    phase: Phase
    sentence: str
    remedy: str = ""
    unhealthy: bool = True  # which class a failure has
    socket: str = ""
    data: str = ""
    holder: int = 0
    postmaster: int = 0
    major: int = 0

    def write(self, files: HomeFiles) -> None:
        """Replace the state file; on a full disk overwrite it in place, which takes no new space."""
        text = json.dumps(asdict(self))
        try:
            write_whole(files.state, text)
        except OSError:
            with contextlib.suppress(OSError), files.state.open("r+", encoding="utf-8") as stream:
                stream.write(text)
                stream.truncate()

    @classmethod
    def read(cls, files: HomeFiles) -> State:
        """Return the last report; an absent one, or one of another version of midsource, is ``ABSENT``."""
        try:
            values = json.loads(files.state.read_text(encoding="utf-8"))
            return cls(**{**values, "phase": Phase(values["phase"])})
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return cls(Phase.ABSENT, "PostgreSQL does not run")

    def error(self) -> MidsourceError:
        """Return this failure as an exception."""
        return (Unhealthy if self.unhealthy else Failed)(self.sentence, self.remedy)


@dataclass(frozen=True, slots=True)
class Order:
    """What the holder of a home's server needs to know."""

    home: str
    postgres_bin: str = ""
    runtime_folder: str = ""
    system_folder: str = ""
    idle_seconds: float = 5.0
    settings: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the order as one argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Order:
        """Parse ``to_json``'s text."""
        return cls(**json.loads(text))

    @property
    def files(self) -> HomeFiles:
        """The files of the home."""
        return HomeFiles(Path(self.home))
