"""Structured logs of a process: one JSON object a line on standard error, which the supervisor keeps in files.

Each line has ``timestamp``, ``level``, ``event``, ``action`` and ``process``, and names what it is about by ids: delivery, part, account, run,
message. No address of a person and no secret leaves here (cli/masking.py). Level info and above is written; debug is not.
Files are bounded by who writes them: supervise/logs.py.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import structlog
from structlog.typing import EventDict

from midsource.cli.masking import masked, masked_value


def set_up_logging(process: str) -> None:
    """Send structlog and the libraries' warnings to standard error as JSON lines that name the process."""

    def of_this_process(_logger: Any, _method: str, line: EventDict) -> EventDict:
        return {**line, "process": process}  # not a context variable: threads of the engine would not have it

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            of_this_process,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _without_persons,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines(process))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def _without_persons(_logger: Any, _method: str, line: EventDict) -> EventDict:
    return {key: masked_value(value) for key, value in line.items()}


class _JsonLines(logging.Formatter):
    """What libraries log, in the form of our own lines, so that `logs --level` finds it."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return one JSON line."""
        line = {
            "logger": record.name,
            "event": masked(record.getMessage()),
            "action": "library",
            "process": self._process,
            "level": record.levelname.lower(),
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
        }
        if record.exc_info:
            line["exception"] = masked(self.formatException(record.exc_info))
        return json.dumps(line)
