"""Errors name their reader and their remedy.

    MidsourceError                  one sentence: cause, then what to do
    ├── UserError          exit 2   the caller's input is wrong: change the input
    │   ├── ConfigError             midsource.toml: lists every problem at once
    │   └── NotFound                no such delivery, list, option: names what exists
    ├── Conflict           exit 1   the state forbids it, or somebody else was first
    ├── Failed             exit 1   the thing was tried and failed for the reason given
    ├── RemoteUnavailable  exit 1   the other side may answer later (``retry_after_seconds``)
    ├── RemoteRefused      exit 1   the other side said no, and will say no again
    ├── Unhealthy          exit 3   something that must run does not
    └── Bug                exit 1   ours: an invariant does not hold

The mapping to exit codes and HTTP statuses is the two class attributes, nowhere else. Any other exception that leaves
midsource is a bug of ours; the command line then says so and shows the traceback with ``--debug`` only.
"""

from __future__ import annotations

from collections.abc import Sequence


class MidsourceError(Exception):
    """An expected failure. ``cause`` says what is wrong, ``remedy`` what the reader can do; both without a final dot."""

    code = "MS-000"
    exit_code = 1
    http_status = 500

    def __init__(self, cause: str, remedy: str = "") -> None:
        super().__init__(cause, remedy)
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        """Return the one sentence an operator reads."""
        return f"{self.cause}: {self.remedy}." if self.remedy else f"{self.cause}."


class UserError(MidsourceError):
    """The input is wrong; nothing was changed."""

    code = "MS-100"
    exit_code = 2
    http_status = 422


class ConfigError(UserError):
    """The configuration is wrong; ``problems`` holds every problem found, each naming key, expected and got."""

    code = "MS-110"

    def __init__(self, problems: Sequence[str], remedy: str = "correct midsource.toml and try again") -> None:
        super().__init__("; ".join(problems), remedy)
        self.problems = tuple(problems)


class NotFound(UserError):
    """What was named does not exist."""

    code = "MS-120"
    http_status = 404


class Conflict(MidsourceError):
    """The present state forbids it, or another writer was first; reading again shows why."""

    code = "MS-200"
    http_status = 409


class Failed(MidsourceError):
    """It was tried and failed; the cause is known and nothing was half-done."""

    code = "MS-300"


class RemoteUnavailable(MidsourceError):
    """The other side did not answer or asked to wait. Trying again later is right."""

    code = "MS-400"
    http_status = 503

    def __init__(
        self, cause: str, remedy: str = "", *, status: int = 0, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(cause, remedy)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class RemoteRefused(MidsourceError):
    """The other side refused for good: wrong key, wrong version, wrong content. Trying again changes nothing."""

    code = "MS-410"
    http_status = 502

    def __init__(self, cause: str, remedy: str = "", *, status: int = 0) -> None:
        super().__init__(cause, remedy)
        self.status = status


class Unhealthy(MidsourceError):
    """Something that must run does not: a database, a worker, the supervisor."""

    code = "MS-500"
    exit_code = 3
    http_status = 503


class Bug(MidsourceError):
    """An invariant of ours does not hold. Please report it with the journal."""

    code = "MS-900"


def first_line(exc: BaseException) -> str:
    """Name an unexpected failure by its class and first line: what a database says after it quotes rows, and so addresses."""
    return f"{type(exc).__name__}: {(str(exc).splitlines() or [''])[0]}"


def said(exc: BaseException) -> str:
    """Return what is shown of a failure: our own sentence, or of what nobody foresaw its class and first line."""
    return str(exc) if isinstance(exc, MidsourceError) else first_line(exc)
