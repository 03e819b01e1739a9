"""The rows of the benchmark, in the order of the table. Adding one is adding its module here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from midsource.bench import (
    catch_up,
    cleanup,
    cpu,
    growth,
    handover,
    idle,
    memory,
    prepare,
    render,
    send,
    send_unsigned,
    sync,
)
from midsource.bench.row import RowModule

ROWS: Sequence[RowModule] = cast(
    "Sequence[RowModule]",
    (send, send_unsigned, cpu, render, prepare, handover, sync, growth, catch_up, cleanup, memory, idle),
)
BY_NAME = {module.NAME: module for module in ROWS}
