"""Who may see the console, until operators exist: whoever holds the token in ``<home>/keys/console.token``.

Order of events: ``midsource up`` and ``demo`` print an address with ``?token=…``; the first request trades it for a
cookie (HttpOnly, SameSite=Strict) that proves the token without holding it. A new token file ends every session.
A request that changes something must also come from our own pages (``same_origin``).
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from pathlib import Path

from midsource.security.keys import read_or_make

COOKIE = "midsource_console"
PARAMETER = "token"
_CHANGES_NOTHING = frozenset({"GET", "HEAD", "OPTIONS"})


class ConsoleAccess:
    """Checks tokens and sessions of one instance's console. ``token`` is 256 random bits as text."""

    def __init__(self, token: str, instance: str) -> None:
        self._token = token
        self.session = hmac.digest(token.encode(), b"console session of " + instance.encode(), "sha256").hex()
        """The value of the cookie: cookies do not keep ports apart, so each instance has its own."""
        self.csrf = hmac.digest(token.encode(), b"console forms of " + instance.encode(), "sha256").hex()
        """What the forms of such a session carry."""
        self.cookie = f"{COOKIE}_{instance}"

    @classmethod
    def load(cls, home: Path, instance: str) -> ConsoleAccess:
        """Read the token of ``home``, making it where there is none. Raises Unhealthy like the other keys."""
        return cls(token(home), instance)

    def admits_token(self, given: str) -> bool:
        """Tell whether ``given`` is the token; takes the same time for any wrong one."""
        return hmac.compare_digest(given.encode(), self._token.encode())

    def admits_session(self, cookie: str) -> bool:
        """Tell whether the cookie was given by us for the present token."""
        return hmac.compare_digest(cookie.encode(), self.session.encode())


def token(home: Path) -> str:
    """Return the console's token of ``home``, made where there is none; for the address that is printed."""
    return read_or_make(home / "keys" / "console.token", lambda: secrets.token_urlsafe(32))


def same_origin(method: str, headers: Mapping[str, str]) -> bool:
    """Tell whether a request may change something: browsers say where it comes from; other clients say nothing.

    ``headers`` has lower-case names.
    """
    if method in _CHANGES_NOTHING:
        return True
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host")
