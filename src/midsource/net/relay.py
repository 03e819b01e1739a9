"""One mail to one person by a relay that is not this system's own delivery: what tells a supervisor.

The session is that of the mta (smtp/session.py, net/sender.py); the journal, rules and queues of deliveries have no part in it. TLS where
the relay offers it. Bounds: SECONDS for all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from midsource.model.errors import RemoteRefused, RemoteUnavailable
from midsource.model.outcome import Attempt, Reply
from midsource.net.dialer import Endpoint, TcpDialer
from midsource.net.sender import ConnectionEnd, run_connection
from midsource.net.source import TransactionQueue
from midsource.net.timeouts import Timeouts
from midsource.smtp.events import Transaction
from midsource.smtp.session import ClientSession

SECONDS = 30.0
"""A supervisor's relay is near; a run of the doctor has a minute for all of them."""
TIMEOUTS = Timeouts(
    connect_seconds=5, banner_seconds=10, command_seconds=10, data_seconds=10, body_seconds=15, tls_seconds=10
)
TOKEN = 1


class _Once:
    """Remembers what became of the one message."""

    def __init__(self) -> None:
        self.attempt: Attempt | None = None

    def may_send_body(self, token: int) -> bool:  # noqa: ARG002 - the shape of a recorder
        """Send it: nobody else has it."""
        return True

    def started(self, token: int, go: Callable[[BaseException | None], None]) -> None:  # noqa: ARG002 - likewise
        """Go on at once: a second copy after a crash does no harm."""
        asyncio.get_running_loop().call_soon(go, None)

    def finished(self, token: int, attempt: Attempt) -> None:  # noqa: ARG002 - likewise
        """Keep it."""
        self.attempt = attempt


def send(host: str, port: int, helo: str, sender: str, recipient: str, content: bytes) -> str:
    """Send one mail and return the relay's reply. Raises RemoteUnavailable (later may work), RemoteRefused."""
    try:
        address = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
    except (OSError, UnicodeError) as exc:
        raise RemoteUnavailable(f"the relay {host} has no address ({exc})", "check the name, and DNS") from exc
    where = Endpoint(host, address, port)
    transaction = Transaction(TOKEN, sender, recipient, content, eightbit=True)
    recorder = _Once()
    end: ConnectionEnd | None = None
    with contextlib.suppress(TimeoutError):
        end = asyncio.run(asyncio.wait_for(_run(where, helo, transaction, recorder), SECONDS))
    answer = recorder.attempt.answer if recorder.attempt else (end.answer if end else None)
    if isinstance(answer, Reply) and answer.code < 300 and recorder.attempt is not None:
        return str(answer)
    said = f"the relay {host}:{port} did not take the mail ({answer or f'no answer within {SECONDS:g} s'})"
    if isinstance(answer, Reply) and answer.is_permanent:
        raise RemoteRefused(said, "let it accept mail of this machine to that address")
    raise RemoteUnavailable(said, "check that it listens there, and firewalls")


async def _run(where: Endpoint, helo: str, transaction: Transaction, recorder: _Once) -> ConnectionEnd:
    source = TransactionQueue([transaction])
    source.close()
    return await run_connection(TcpDialer(), where, ClientSession(helo), source, recorder, TIMEOUTS)
