"""Who a request comes from: the session of a cookie, or the key in ``Authorization``; and log-in and log-out.

    cookie  ``home.…``              the holder of the home's token (security/access.py); needs no database
    cookie, anything else           an operator's session (security/sessions.py)
    bearer, the home's token        the same holder, as a program
    bearer, ``<key id>.<secret>``   an API key (security/api_keys.py)

One door an instance; the guard asks it, the pages of log-in and log-out use it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http.cookies import CookieError
from typing import TypeVar
from urllib.parse import urlsplit

from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import Scope

from midsource.model.clock import Clock
from midsource.security import sessions
from midsource.security.access import SESSION_SECONDS, ConsoleAccess
from midsource.security.api_keys import Keys
from midsource.security.log_in import LogIn
from midsource.security.passwords import AT_ONCE, WAITING, Hashing
from midsource.security.roles import Permission, Visitor
from midsource.store.database import Database
from midsource.web.lookups import Lookups

LOOKUPS_AT_ONCE = 4
"""Threads; they take turns at one connection."""
LOG_INS_AT_ONCE = AT_ONCE + WAITING + 2
"""Threads: as many as ``Hashing`` has room for, and two to be refused."""

T = TypeVar("T")


class Door:
    """Finds out who asks; see the module."""

    def __init__(self, access: ConsoleAccess, database: Database, clock: Clock, public_url: str = "") -> None:
        self.access = access
        public = urlsplit(public_url)
        self._https_host = public.netloc.lower() if public.scheme == "https" else ""
        self.hashing = Hashing()
        self.keys = Keys()
        self._hash_threads = CapacityLimiter(LOG_INS_AT_ONCE)
        self._clock = clock
        self._lookups = Lookups(database, clock)
        self.log_ins = LogIn(database, clock, self.hashing)
        self._lookup_threads = CapacityLimiter(LOOKUPS_AT_ONCE)

    async def visitor(self, scope: Scope) -> Visitor | None:
        """Return who asks; None for a stranger. Raises Unhealthy where the database is needed and away."""
        headers = Headers(scope=scope)
        if cookie := self.cookie(scope):
            now = self._clock.now()
            if found := self.access.visitor(cookie, now):
                return found
            # What a page does by itself keeps no session open.
            active = "hx-request" not in headers
            look = partial(sessions.find, cookie=cookie, now=now, active=active)
            if found := await to_thread.run_sync(self._lookups.ask, look, limiter=self._lookup_threads):
                return found
        if text := bearer(headers):
            return await self._program(text)
        return None

    async def _program(self, text: str) -> Visitor | None:
        if self.access.admits_token(text):
            return Visitor("home", frozenset(Permission), "api")
        now, seconds = self._clock.now(), self._clock.boot_seconds()
        if found := self.keys.cached(text, now, seconds):
            return found
        look = partial(self.keys.find, text=text, now=now, seconds=seconds)
        return await to_thread.run_sync(self._lookups.ask, look, limiter=self._lookup_threads)

    async def hashed(self, work: Callable[[], T]) -> T:
        """Return what ``work``, which hashes a password (``hashing``, ``log_ins``), returns; raises what it raises."""
        return await to_thread.run_sync(work, limiter=self._hash_threads)

    async def log_out(self, cookie: str) -> None:
        """End the session of ``cookie``."""
        if self.access.visitor(cookie, self._clock.now()):
            self.access.end(cookie)
            return
        await to_thread.run_sync(self._lookups.ask, partial(sessions.end, cookie=cookie), limiter=self._lookup_threads)

    def cookie(self, scope: Scope) -> str:
        """Return the value of the session's cookie, '' without one."""
        name, _ = self.access.cookie_over(https=self._is_https(scope))
        try:
            return cookie_parser(Headers(scope=scope).get("cookie", "")).get(name, "")
        except CookieError:
            return ""

    def give(self, scope: Scope, response: Response, cookie: str) -> None:
        """Have the browser keep a session."""
        name, kept = self.access.cookie_over(https=self._is_https(scope))
        response.set_cookie(name, cookie, max_age=SESSION_SECONDS, **kept)

    def take_back(self, scope: Scope, response: Response) -> None:
        """Have the browser forget its session."""
        name, kept = self.access.cookie_over(https=self._is_https(scope))
        response.delete_cookie(name, **kept)

    def _is_https(self, scope: Scope) -> bool:
        """Tell whether the browser speaks TLS: with us, with a proxy that says so, or because it uses our public name."""
        host = Headers(scope=scope).get("host", "").lower()
        return scope.get("scheme") == "https" or (bool(host) and host == self._https_host)

    def close(self) -> None:
        """Give the connection back."""
        self._lookups.close()


def bearer(headers: Headers) -> str:
    """Return the key in ``Authorization``, '' without one."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""
