"""One language at work: texts, numbers, times and lengths as its readers write them. Times are UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from midsource.web.console.catalogue import texts
from midsource.web.console.sentences import translated

_STEPS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_LARGEST_FROM = {"d": 2 * 86_400, "h": 2 * 3_600, "min": 120}
"""A unit is used from twice its length on: '90 min ago' says more than '1 h ago'."""


@dataclass(frozen=True, slots=True)
class Words:
    """The texts of one language, and how it writes figures."""

    language: str

    def __call__(self, key: str, **values: object) -> str:
        """Return the text of ``key`` with ``values`` filled in; numbers are written in this language's manner."""
        written = {name: self.number(value) if type(value) is int else value for name, value in values.items()}
        return texts(self.language)[key].format(**written)

    def has(self, key: str) -> bool:
        """Tell whether there is a text: for names that others may add to, such as technical workflows."""
        return key in texts(self.language)

    def count(self, key: str, n: int, **values: object) -> str:
        """Return the text for ``n`` things: ``key_one`` or ``key_other``. French counts nothing as one."""
        one = n in (0, 1) if self.language == "fr" else n == 1
        return self(f"{key}_{'one' if one else 'other'}", n=n, **values)

    def spoken(self, sentence: str) -> str:
        """Return what another part of the product said in this language; '' where it is known in English only."""
        return translated(sentence, self.language)

    def number(self, n: int) -> str:
        """Write a whole number with its thousands apart."""
        return f"{n:,}".replace(",", self("format.group"))

    def fixed(self, value: float, digits: int = 1) -> str:
        """Write a number with that many decimals."""
        whole, _, rest = f"{value:.{digits}f}".partition(".")
        written = self.number(int(whole))
        return f"{written}{self('format.decimal')}{rest}" if rest else written

    def size(self, count: int) -> str:
        """Write a number of bytes with three digits: '812 B', '8.4 MB'; a unit is 1 000 of the one before."""
        units, value, step = self("format.bytes").split(), float(count), 0
        while abs(value) >= 999.5 and step < len(units) - 1:
            value, step = value / 1_000, step + 1
        return f"{self.fixed(value, 1 if step and abs(value) < 99.95 else 0)}\u00a0{units[step]}"

    def share(self, part: int, whole: int) -> str:
        """Write ``part`` of ``whole`` in per cent; never 0 or 100 for what is not."""
        if whole <= 0:
            return ""
        value = 100 * part / whole
        if 0 < part < whole:
            value = min(99.9, max(0.1, value))
        digits = 0 if part in (0, whole) else 1
        return self("format.percent", n=self.fixed(value, digits))

    def moment(self, at: datetime) -> str:
        """Write date and time to the second."""
        at = at.astimezone(UTC)
        month = self("format.months").split()[at.month - 1]
        return self("format.moment", day=str(at.day), month=month, year=str(at.year), time=f"{at:%H:%M:%S}")

    def hour(self, at: datetime) -> str:
        """Write the time of the day to the second."""
        return f"{at.astimezone(UTC):%H:%M:%S}"

    def apart(self, at: datetime, now: datetime) -> str:
        """Say how far ``at`` is from ``now``: '3 min ago', 'in 2 h'."""
        seconds = (at - now).total_seconds()
        unit, n = _largest(abs(seconds))
        return self(f"{'in' if seconds > 0 else 'ago'}.{unit}", n=n)

    def length(self, seconds: float) -> str:
        """Say a length of time: '5 d', '36 h', '2.4 s', '12 ms'."""
        if 0 < seconds < 1:
            return self("length.ms", n=max(1, round(seconds * 1_000)))
        if seconds < 60 and seconds != int(seconds):
            return self("length.s", n=self.fixed(seconds))
        unit, n = _largest(seconds)
        return self(f"length.{unit}", n=n)


def _largest(seconds: float) -> tuple[str, int]:
    whole = round(seconds)
    for length, unit in _STEPS:
        exact = whole >= length and whole % length == 0 and unit != "s"
        if whole >= _LARGEST_FROM.get(unit, 0) or exact:
            return unit, whole // length
    return "s", whole
