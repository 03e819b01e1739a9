"""How often somebody may try to log in: a wait that doubles with each failure, by name and by address, and ends.

Nobody is locked out for ever: a name waits at most NAME_SECONDS, so whoever wants to keep its owner out has to come back
every minute and still makes 1 440 guesses a day at a password of twelve characters; an address waits up to
ADDRESS_SECONDS. A try counts as failed before its password is looked at, so tries that run at the same time cannot get
past the count; the one that succeeds takes the name's count back.

This memory is one process's, bounded to MAX_KEYS, the oldest forgotten first. Names are counted here whether an operator
has them or not, so that waiting says nothing about who exists; those that exist are counted in ``operator`` as well, which
outlives the process (security/operators.py).
"""

from __future__ import annotations

import ipaddress
import threading
from collections import OrderedDict
from dataclasses import dataclass

from midsource.model.errors import MidsourceError

FREE_TRIES = 5
"""Somebody who types badly notices nothing."""
NAME_SECONDS = 60
ADDRESS_SECONDS = 900
FORGET_SECONDS = 3_600
"""After this without a try the count begins again."""
MAX_KEYS = 20_000
"""Some 4 MB."""


class TooManyTries(MidsourceError):
    """Too many log-ins at once, or too many that failed: the same may pass later."""

    code = "MS-421"
    http_status = 429

    def __init__(self, cause: str, retry_after_seconds: int) -> None:
        super().__init__(cause, f"try again in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


def wait_after(failures: int, longest_seconds: int) -> int:
    """Return the seconds before the next try, after that many failures in a row."""
    over = failures - FREE_TRIES
    return 0 if over <= 0 else min(longest_seconds, 2 ** min(over, 20))


@dataclass(slots=True)
class _Count:
    failures: int
    at: float
    not_before: float


class Throttle:
    """Counts tries of names and addresses; safe to use from several threads. Times are seconds of ``Clock.boot_seconds``."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, str], _Count] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, name: str, address: str, now: float) -> None:
        """Count a try as failed. Raises TooManyTries, counting nothing, where the wait is not over."""
        keys = {("name", name): NAME_SECONDS, ("address", network(address)): ADDRESS_SECONDS}
        with self._lock:
            waits = [count.not_before - now for key in keys if (count := self._counts.get(key))]
            if (wait := max(waits, default=0)) > 0:
                raise TooManyTries("too many log-ins failed", max(1, round(wait)))
            for key, longest in keys.items():
                self._fail(key, longest, now)

    def succeeded(self, name: str, address: str) -> None:
        """Take the count of ``name`` back, and of ``address`` the try that was counted."""
        with self._lock:
            self._counts.pop(("name", name), None)
            if count := self._counts.get(("address", network(address))):
                count.failures, count.not_before = count.failures - 1, count.at

    def _fail(self, key: tuple[str, str], longest: int, now: float) -> None:
        count = self._counts.pop(key, None)
        failures = 1 if count is None or now - count.at > FORGET_SECONDS else count.failures + 1
        self._counts[key] = _Count(failures, now, now + wait_after(failures, longest))
        if len(self._counts) > MAX_KEYS:
            self._counts.popitem(last=False)


def network(address: str) -> str:
    """Return what of an address belongs to one machine: an IPv4 address, the first 64 bits of an IPv6 one."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
