"""Which mail servers offer TLS and cannot do it: they get their mail in plain text for a while, and TLS is tried anew after it.

Under opportunistic TLS an unencrypted delivery is better than none (RFC 7435 3). Kept in memory of one process: another learns it
by one connection. Bounds: MOST servers, PLAIN_SECONDS each.
"""

from __future__ import annotations

from collections import OrderedDict

from midsource.net.dialer import Endpoint

PLAIN_SECONDS = 3600.0
"""A server mended meanwhile is encrypted to within the hour; one that stays broken costs a connection an hour."""
MOST = 10_000
"""Servers remembered, about 3 MB; the one noted first goes first and costs one more try."""


class PlainServers:
    """Those whose TLS broke lately. ``now`` is the loop's time throughout."""

    def __init__(self) -> None:
        self._until: OrderedDict[Endpoint, float] = OrderedDict()

    def __len__(self) -> int:
        """Return how many are kept, those whose time is over among them."""
        return len(self._until)

    def has(self, endpoint: Endpoint, now: float) -> bool:
        """Whether to speak to it in plain text."""
        return self._until.get(endpoint, 0.0) > now

    def add(self, endpoint: Endpoint, now: float) -> bool:
        """Note that its TLS broke; return whether that is news."""
        if self.has(endpoint, now):
            return False
        self._until[endpoint] = now + PLAIN_SECONDS
        self._until.move_to_end(endpoint)
        if len(self._until) > MOST:
            self._until.popitem(last=False)
        return True

    def forget(self, endpoint: Endpoint) -> None:
        """Try TLS again next time: plain text led no further."""
        self._until.pop(endpoint, None)
