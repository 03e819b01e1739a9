"""What can go wrong on the link, each case as one sentence with its remedy.

    LinkFailure (RemoteUnavailable)   nobody there, too slow, cut, 408, 413, 425, 429, 5xx: later may work
    RemoteRefused                     wrong key, other version, wrong content: later changes nothing
      NotAMid                         somebody else answers there: what it says, a 404 too, is not the mid's word

``answer`` is the short clause for the journal line that operators search for: ``HTTP 408``, ``no answer (time-out)``.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import httpx2
import msgspec

from midsource.model.errors import MidsourceError, RemoteRefused, RemoteUnavailable
from midsource.wire.schema import Problem

PASSING = frozenset({408, 413, 425, 429})
"""Statuses below 500 after which another try, later or smaller, is right."""
MAX_RETRY_AFTER_SECONDS = 3600.0
MAX_TOLD = 300
"""Characters of the other side's words in our sentence."""


class LinkFailure(RemoteUnavailable):
    """The mid did not answer in time, or asked to wait. ``reached``: the request may have been carried out."""

    def __init__(
        self,
        cause: str,
        remedy: str,
        *,
        answer: str,
        reached: bool,
        status: int = 0,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(cause, remedy, status=status, retry_after_seconds=retry_after_seconds)
        self.answer = answer
        self.reached = reached


class NotAMid(RemoteRefused):
    """Somebody answers at the mid's address who is no mid-sourcing server: a proxy, another site (F12)."""

    code = "MS-415"


def answer_of(error: MidsourceError) -> str:
    """Return the short clause for the journal."""
    if isinstance(error, LinkFailure):
        return error.answer
    if isinstance(error, RemoteRefused) and error.status:
        return f"HTTP {error.status} ({error.cause[:MAX_TOLD]})"
    return error.cause[:MAX_TOLD]


def status_of(error: MidsourceError) -> int:
    """Return the HTTP code, 0 where there was no answer."""
    return error.status if isinstance(error, RemoteUnavailable | RemoteRefused) else 0


def from_transport(exc: Exception, url: str, seconds: float) -> MidsourceError:
    """Name a failure below HTTP: no host, nobody listening, TLS, time-out, cut."""
    for cause in _chain(exc):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _certificate(cause, url)
        if isinstance(cause, socket.gaierror):
            return _unreached(
                f"the host of {url} has no address", "check the URL of the external account, and DNS", "no such host"
            )
        if isinstance(cause, ConnectionRefusedError):
            return _unreached(
                f"nobody listens at {url}",
                "check the URL of the external account, and that the mid's web process runs (`midsource status`)",
                "connection refused",
            )
        if isinstance(cause, ssl.SSLError):
            return _unreached(
                f"{url} does not speak TLS ({cause.reason or cause})", "check http or https in the URL", "no TLS"
            )
    if isinstance(
        exc, httpx2.InvalidURL | httpx2.UnsupportedProtocol | UnicodeError
    ):  # of an account stored before hosts were checked
        return RemoteRefused(
            f"{url!r} is no address of a mid", "give the external account a URL like https://mid.example"
        )
    if isinstance(exc, httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return _unreached(
            f"{url} took no connection in time", "check network and firewall between the halves", "time-out at connect"
        )
    if isinstance(exc, httpx2.TimeoutException):
        return timed_out(url, seconds)
    if isinstance(exc, httpx2.ConnectError):
        return _unreached(
            f"{url} cannot be reached ({_short(exc)})", "check network and firewall between the halves", _short(exc)
        )
    return cut(url, _short(exc))


def timed_out(url: str, seconds: float) -> LinkFailure:
    """Say that the whole answer did not come within its time."""
    return LinkFailure(
        f"{url} did not answer within {seconds:.0f} s",
        "it is tried again with less; if it stays, look at load and time-outs of the mid and of proxies before it",
        answer=f"no answer (time-out after {seconds:.0f} s)",
        reached=True,
    )


def cut(url: str, why: str) -> LinkFailure:
    """Say that the connection ended in mid-request or mid-answer."""
    return LinkFailure(
        f"the connection to {url} was cut ({why})",
        "it is tried again; if it stays, look at proxies between the halves",
        answer="no answer (connection cut)",
        reached=True,
    )


def from_answer(status: int, headers: httpx2.Headers, body: bytes, url: str) -> MidsourceError:
    """Turn an answer that is not 2xx into the error that says what to do; ``body`` is bounded by the caller."""
    problem = _problem(headers, body)
    told = f"{problem.cause[:MAX_TOLD]}" if problem else ""
    if status in PASSING or status >= 500:
        return LinkFailure(
            f"{url} answered HTTP {status}" + (f": {told}" if told else ""),
            (problem.remedy if problem else "") or "it is tried again; if it stays, see the mid's log at that time",
            answer=f"HTTP {status}",
            reached=status not in (413, 429),
            status=status,
            retry_after_seconds=_retry_after(headers),
        )
    if 300 <= status < 400:
        target = headers.get("location", "elsewhere")[:MAX_TOLD]
        return RemoteRefused(
            f"{url} redirects to {target}", "put the mid's final address into the external account", status=status
        )
    if status == 401:
        return RemoteRefused(
            f"{url} does not know the key of this external account" + (f" ({told})" if told else ""),
            "create a key on the mid (`midsource account add --role mid`) and store it with the external account",
            status=status,
        )
    if problem is None:
        return not_a_mid(url, f"HTTP {status}", status)
    if status == 426:
        return RemoteRefused(
            f"another version: {told}", problem.remedy or "upgrade the mid first, then marketing", status=status
        )
    return RemoteRefused(told or f"{url} answered HTTP {status}", problem.remedy, status=status)


def not_a_mid(url: str, what: str, status: int = 0) -> NotAMid:
    """Say that somebody answers there who is no mid-sourcing server (F12)."""
    return NotAMid(
        f"{url} answers, but is not a mid-sourcing server ({what})",
        "check host, port and path in the URL of the external account",
        status=status,
    )


def _unreached(cause: str, remedy: str, short: str) -> LinkFailure:
    return LinkFailure(cause, remedy, answer=f"no answer ({short})", reached=False)


def _certificate(exc: ssl.SSLCertVerificationError, url: str) -> LinkFailure:
    why = exc.verify_message or "verification failed"
    remedy = (
        "renew the certificate of the mid"
        if "expired" in why
        else "install a certificate this machine trusts (F05, F06)"
    )
    return LinkFailure(
        f"the TLS certificate of {url} is refused: {why}", remedy, answer=f"no answer (TLS: {why})", reached=False
    )


def _chain(exc: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = exc
    for _ in range(10):  # deeper chains than the client library makes
        if current is None:
            return
        yield current
        current = current.__cause__ or current.__context__


def _short(exc: BaseException) -> str:
    return (str(exc) or type(exc).__name__).splitlines()[0][:120]


def _problem(headers: httpx2.Headers, body: bytes) -> Problem | None:
    if "json" not in headers.get("content-type", ""):
        return None
    try:
        return msgspec.json.decode(body, type=Problem)
    except msgspec.DecodeError:
        return None


def _retry_after(headers: httpx2.Headers) -> float | None:
    text = headers.get("retry-after", "")
    return min(MAX_RETRY_AFTER_SECONDS, float(text)) if text.isdigit() else None
