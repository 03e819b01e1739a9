"""The options of an instance: read, list, set, by the table of its role (model/options.py).

A value is checked at the door by its unit and bounds: a delay without unit is refused, because the field's option list holds
seconds and its wizard days. A value written behind our back that cannot be meant counts as the default, and one out of
bounds as the nearest bound, so that no option can stop the work that reads it. Every change is one row in
`workflow_journal`: who, old, new. Durable with the caller's transaction.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from midsource.model.durations import UNITS, parse_duration, show_bounds
from midsource.model.errors import NotFound, UserError
from midsource.model.options import Option
from midsource.store.database import Connection, scalar

_NUMBER = re.compile(r"^[0-9]{1,9}$")
_ANY = (0, 10**9)
KEPT_SECONDS = (UNITS["d"], 3_650 * UNITS["d"])
"""How long `cleanup` may be told to keep something: a day to ten years."""
PAUSED_SECONDS = (UNITS["d"], 365 * UNITS["d"])
"""How long a technical workflow may be paused without a word: a day to a year."""


@dataclass(frozen=True, slots=True)
class OptionView:
    """One option as `option list` shows it. ``modified_by`` '': it has its default; 'pointer': it moved by itself.

    ``stream``: the stream whose pointer it is, None for any other option. ``base``: its name in the table of options,
    without the account: what texts about it are called. ``written_by``: see `model.options.Option`.
    """

    name: str
    value: str
    default: str
    unit: str
    description: str
    modified_by: str = ""
    modified_at: datetime | None = None
    stream: str | None = None
    base: str = ""
    written_by: str = ""

    @property
    def is_default(self) -> bool:
        """Whether nobody has set it."""
        return self.stream is None and self.value == self.default


@dataclass(frozen=True, slots=True)
class OptionTable:
    """The options of one role. ``counts`` and ``delays``: bounds of those that count something or are a time (seconds)."""

    known: Sequence[Option]
    counts: Mapping[str, tuple[int, int]]
    delays: Mapping[str, tuple[int, int]]
    forms: Mapping[str, Callable[[str], str]] = field(default_factory=dict)
    """Options of another form: what returns a value as it is kept, or raises UserError."""

    def list_options(self, conn: Connection) -> list[OptionView]:
        """Return every option in the order of the table."""
        rows = conn.execute("select name, value, modified_by, modified_at from option").fetchall()
        stored: dict[str, tuple[str, str, datetime]] = {row[0]: row[1:] for row in rows}
        views = []
        for option, names in self._named(conn):
            for name in names:
                value, by, at = stored.get(name, (option.default, "", None))
                stream, base = self._pointer(name)
                views.append(
                    OptionView(
                        name, value, option.default, option.unit, option.description, by, at, stream, base,
                        option.written_by,
                    )
                )  # fmt: skip
        return views

    def view(self, conn: Connection, name: str) -> OptionView:
        """Return one option as lists show it. Raises NotFound for an unknown name."""
        self._find(conn, name)
        return next(found for found in self.list_options(conn) if found.name == name)

    def get_value(self, conn: Connection, name: str) -> str:
        """Return the value of an option, its default where none was set. Raises NotFound for an unknown name."""
        option = self._find(conn, name)
        value = scalar(conn, "select value from option where name = %s", (name,))
        return option.default if value is None else str(value)

    def integer(self, conn: Connection, name: str) -> int:
        """Return an option that counts something; a value broken behind our back gives the default."""
        text = self.get_value(conn, name)
        least, most = self.counts.get(name, _ANY)
        return min(most, max(least, int(text if _NUMBER.match(text) else self._find(conn, name).default)))

    def seconds(self, conn: Connection, name: str) -> int:
        """Return an option that is a delay, in seconds; a value broken behind our back gives the default, or the nearest bound."""
        least, most = self.delays[name]
        try:
            delay = parse_duration(self.get_value(conn, name))
        except UserError:
            delay = parse_duration(self._find(conn, name).default)
        return min(most, max(least, delay))

    def set_value(
        self,
        conn: Connection,
        name: str,
        value: str,
        *,
        by: str,
        now: datetime,  # noqa: ARG002 - the tables of both roles are called alike: pointers look at the clock
        yes: bool = False,  # noqa: ARG002 - likewise
    ) -> str:
        """Set an option and return the sentence that says what changed.

        Raises UserError for a value that cannot be meant, NotFound for an unknown name.
        """
        option = self._find(conn, name)
        _refuse_written(option)
        new = self._checked(option, value)
        old = self.get_value(conn, name)
        if new == option.default:
            conn.execute("delete from option where name = %s", (name,))
        else:
            write(conn, name, new, by=by)
        return audited(conn, "options", f"{name} set from {old!r} to {new!r} by {by}")

    def revert(self, conn: Connection, name: str, *, by: str) -> str:
        """Give an option its default again and return the sentence that says so. Raises NotFound, UserError for a pointer."""
        option = self._find(conn, name)
        _refuse_written(option)
        if self._pointer(name)[0] is not None:
            raise UserError(f"{name} is a pointer and has no default", "set it to a time")
        old = self.get_value(conn, name)
        conn.execute("delete from option where name = %s", (name,))
        return audited(conn, "options", f"{name} set from {old!r} to its default {option.default!r} by {by}")

    def bounds(self, name: str) -> str:
        """Say the bounds of an option, "" where it has none."""
        if name in self.delays:
            return show_bounds(*self.delays[name])
        return f"{self.counts[name][0]} to {self.counts[name][1]}" if name in self.counts else ""

    def _named(self, conn: Connection) -> list[tuple[Option, list[str]]]:  # noqa: ARG002 - pointers ask for accounts
        """Return each option with the names it exists under."""
        return [(option, [option.name]) for option in self.known]

    def _pointer(self, name: str) -> tuple[str | None, str]:
        """Return the stream of which ``name`` is the pointer, None for none, and its name in the table."""
        return None, name

    def _find(self, conn: Connection, name: str) -> Option:  # noqa: ARG002 - pointers ask for accounts
        for option in self.known:
            if option.name == name:
                return option
        raise NotFound(f"there is no option {name!r}", "see `midsource option list`")

    def _checked(self, option: Option, value: str) -> str:
        """Return the value as it is kept, or raise UserError with the accepted form."""
        text = value.strip()
        if option.name in self.forms:
            return self.forms[option.name](text)
        if option.name in self.delays:
            return _checked_delay(option, text, self.delays[option.name])
        if option.unit == "0 or 1":
            if text not in ("0", "1"):
                raise UserError(f"{option.name} is 0 or 1, not {value!r}", "write 1 for yes, 0 for no")
            return text
        number = text.removesuffix(option.unit).strip()
        least, most = self.counts.get(option.name, _ANY)
        if not _NUMBER.match(number) or not least <= int(number) <= most:
            raise UserError(
                f"{option.name} is a number of {option.unit} from {least} to {most}, not {value!r}",
                f"as in {option.default}",
            )
        return number


def write(conn: Connection, name: str, value: str, *, by: str) -> None:
    """Store a value as it is."""
    conn.execute(
        "insert into option (name, value, modified_by) values (%s, %s, %s) on conflict (name) do update set "
        "value = excluded.value, modified_by = excluded.modified_by, modified_at = now(), version = option.version + 1",
        (name, value, by),
    )


def audited(conn: Connection, workflow: str, line: str) -> str:
    """Write a change into the journal, and return it."""
    conn.execute("insert into workflow_journal (workflow, level, line) values (%s, 'info', %s)", (workflow, line))
    return line


def _refuse_written(option: Option) -> None:
    if option.written_by:
        raise UserError(
            f"{option.name} is written by {option.written_by} itself", f"`midsource {option.written_by}` moves it"
        )


def _checked_delay(option: Option, text: str, bounds: tuple[int, int]) -> str:
    if _NUMBER.match(text):
        raise UserError(
            f"{option.name} is a delay, and {text} has no unit ({text} seconds or {text} days?)",
            f"write {text}s or {text}d; lists of options elsewhere hold seconds where their wizards show days",
        )
    try:
        delay = parse_duration(text)
    except UserError as exc:
        raise UserError(
            f"{text[:40]!r} is not a delay", f"write a number and s, min, h or d, as in {option.default}"
        ) from exc
    if not bounds[0] <= delay <= bounds[1]:
        raise UserError(f"{option.name} is {show_bounds(*bounds)}, not {text[:40]}", f"as in {option.default}")
    return text.replace(" ", "")
