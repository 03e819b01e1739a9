"""What an operator sets about maintenance, per instance: the options `Maintenance_*`, and the field's `XtkCleanup_NoStats`.

Read before each action, so a change holds at once. A value broken behind our back counts as its default, so that no option
can stop the work that reads it, and is named; a broken mode executes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from midsource.model.errors import UserError
from midsource.model.options import MAINTENANCE_MODE, MAINTENANCE_WINDOW, MAINTENANCE_ZONE, MARKETING_OPTIONS, NO_STATS
from midsource.policy.low_activity import LowActivity, parse
from midsource.policy.maintenance import Settings, Statistics
from midsource.store.database import Connection

MODES = ("execute", "advise")
NO_STATS_VALUES = ("0", "1", "2")
_NAMES = (MAINTENANCE_MODE, MAINTENANCE_WINDOW, MAINTENANCE_ZONE, NO_STATS)
DEFAULTS = {option.name: option.default for option in MARKETING_OPTIONS if option.name in _NAMES}
"""Both roles have the same."""


def read(conn: Connection) -> tuple[Settings, list[str]]:
    """Return the settings, and a sentence without final dot for each value that cannot be meant."""
    rows = conn.execute("select name, value from option where name = any(%s)", (list(_NAMES),)).fetchall()
    values, broken = DEFAULTS | {name: str(value).strip() for name, value in rows}, []
    try:
        window = parse(values[MAINTENANCE_WINDOW], values[MAINTENANCE_ZONE])
    except UserError as exc:
        broken.append(f"{exc.cause}, so {DEFAULTS[MAINTENANCE_WINDOW]} {DEFAULTS[MAINTENANCE_ZONE]} holds")
        window = LowActivity()
    if values[MAINTENANCE_MODE] not in MODES:
        broken.append(f"{MAINTENANCE_MODE} is {values[MAINTENANCE_MODE]!r}, so nothing is executed")
    if values[NO_STATS] not in NO_STATS_VALUES:
        broken.append(f"{NO_STATS} is {values[NO_STATS]!r}, so 0 holds")
        values[NO_STATS] = "0"
    statistics = Statistics(int(values[NO_STATS]))
    return Settings(advises=values[MAINTENANCE_MODE] != MODES[0], window=window, statistics=statistics), broken


def _one_of(name: str, values: tuple[str, ...]) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in values:
            raise UserError(
                f"{name} is {', '.join(values[:-1])} or {values[-1]}, not {text[:40]!r}", f"as in {values[0]}"
            )
        return text

    return check


def _window(text: str) -> str:
    return str(parse(text, "UTC"))


def _zone(text: str) -> str:
    return parse(DEFAULTS[MAINTENANCE_WINDOW], text).zone


FORMS: Mapping[str, Callable[[str], str]] = {
    MAINTENANCE_MODE: _one_of(MAINTENANCE_MODE, MODES),
    MAINTENANCE_WINDOW: _window,
    MAINTENANCE_ZONE: _zone,
    NO_STATS: _one_of(NO_STATS, NO_STATS_VALUES),
}
"""How each is checked when it is set: returns it as it is kept, or raises UserError with the accepted form."""
