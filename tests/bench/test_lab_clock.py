"""A wall clock that jumps for the processes of one home: forward, back, and not for the monotonic ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from midsource.bench.lab.clock import LabClock
from midsource.config import environment

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="SKIPPED: needs a C compiler")
SAY = "import time,sys\nfor _ in sys.stdin: print(time.time(), time.monotonic(), flush=True)"


def test_a_running_process_sees_the_jump_at_once_and_the_way_back(tmp_path: Path) -> None:
    clock = LabClock(tmp_path)
    env = {**environment(), **clock.env}
    with subprocess.Popen([sys.executable, "-c", SAY], env=env, stdin=-1, stdout=-1, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None

        def ask() -> tuple[float, float]:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write("\n")
            child.stdin.flush()
            wall, steady = child.stdout.readline().split()
            return float(wall), float(steady)

        wall, steady = ask()
        for jump in (300, -300, 0):
            clock.set(jump)
            now_wall, now_steady = ask()
            assert abs(now_wall - wall - jump - (now_steady - steady)) < 1
            assert 0 <= now_steady - steady < 60
        child.stdin.close()
