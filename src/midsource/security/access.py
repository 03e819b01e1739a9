"""The first way into a console: whoever holds the token in ``<home>/keys/console.token``, that is, the home folder.

Order of events: ``midsource up`` and ``demo`` print an address with ``?token=…``; the first request trades it for a cookie
that proves the token without holding it and needs no database, so the console can say that its database is away. Such a
session (its visitor is ``home``, with every permission) ends after SESSION_SECONDS, at log-out, and with a new token file.
Operators (security/log_in.py) have sessions in the database instead, under the same cookie name.

A request that changes something must also come from our own pages (``same_origin``).
"""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from midsource.security.keys import read_or_make
from midsource.security.roles import Permission, Visitor

COOKIE = "midsource_console"
PARAMETER = "token"
SESSION_SECONDS = 12 * 3600
"""A working day."""
MAX_ENDED = 1_000
"""Sessions logged out of that are remembered until they would have ended; the process forgets them when it ends."""
MAX_NEXT = 500
_CHANGES_NOTHING = frozenset({"GET", "HEAD", "OPTIONS"})
_MARK = "home."


class ConsoleAccess:
    """Checks tokens and sessions of one instance's console. ``token`` is 256 random bits as text."""

    def __init__(self, token: str, instance: str) -> None:
        self._token = token
        self._instance = instance
        self._ended: OrderedDict[str, None] = OrderedDict()
        self.cookie = f"{COOKIE}_{instance}"
        """Cookies do not keep ports apart, so each instance has its own name."""

    @classmethod
    def load(cls, home: Path, instance: str) -> ConsoleAccess:
        """Read the token of ``home``, making it where there is none. Raises Unhealthy like the other keys."""
        return cls(token(home), instance)

    def cookie_over(self, *, https: bool) -> tuple[str, dict[str, Any]]:
        """Return name and attributes of the cookie; over https no other host and no plain connection can set or read it."""
        kept: dict[str, Any] = {"httponly": True, "samesite": "strict", "path": "/", "secure": https}
        return (f"__Host-{self.cookie}" if https else self.cookie), kept

    def admits_token(self, given: str) -> bool:
        """Tell whether ``given`` is the token; takes the same time for any wrong one."""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())

    def start(self, now: datetime) -> str:
        """Return the cookie of a new session."""
        claim = f"{_MARK}{int(now.timestamp()) + SESSION_SECONDS}.{secrets.token_hex(16)}"
        return f"{claim}.{self._mac('session', claim)}"

    def visitor(self, cookie: str, now: datetime) -> Visitor | None:
        """Return ``home`` for a session that this instance gave for the present token and that has not ended."""
        claim, _, mac = cookie.rpartition(".")
        if not claim.startswith(_MARK) or not hmac.compare_digest(
            mac.encode("utf-8", "replace"), self._mac("session", claim).encode()
        ):
            return None
        if int(claim.split(".")[1]) <= now.timestamp() or claim in self._ended:
            return None
        return Visitor("home", frozenset(Permission), "console", self._mac("forms", claim))

    def end(self, cookie: str) -> None:
        """End a session of ``home``."""
        self._ended[cookie.rpartition(".")[0]] = None
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)

    def _mac(self, purpose: str, claim: str) -> str:
        message = f"console {purpose} of {self._instance}: {claim}"
        return hmac.digest(self._token.encode(), message.encode("utf-8", "replace"), "sha256").hex()


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


def own_path(given: str) -> str:
    """Return ``given`` where it is a path of this instance, else '/': nobody is led elsewhere after a log-in."""
    ours = given.startswith("/") and not given.startswith(("//", "/\\")) and given.isprintable() and "\\" not in given
    return given if ours and len(given) <= MAX_NEXT else "/"
