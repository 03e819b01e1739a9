"""How whatever we run ends: each expected failure is one sentence and an exit code, a bug of ours too.

Exit codes (design 9): 0 fine, 1 the thing failed, 2 wrong use, 3 something is unhealthy; 130 as a shell counts an interruption.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable

from midsource.cli.output import say_error
from midsource.model.errors import MidsourceError, first_line


def exit_code_of(act: Callable[[], int], *, debug: bool) -> int:
    """Do it and return its exit code; a failure is said on standard error, with ``debug`` after its traceback."""
    try:
        return act()
    except MidsourceError as exc:
        _trace(debug)
        say_error(str(exc), exc.code)
        return exc.exit_code
    except KeyboardInterrupt:
        say_error("Interrupted; what was committed stays, the rest was not begun.", "MS-190")
        return 130
    except BrokenPipeError:  # who read us has enough
        return 0
    except Exception as exc:  # noqa: BLE001 - the last line of defence: a bug of ours becomes a sentence
        _trace(debug)
        say_error(f"A bug of midsource: {first_line(exc)}. Repeat with --debug and report it.", "MS-900")
        return 1


def _trace(debug: bool) -> None:
    if debug:
        traceback.print_exc()
