"""What checks may know besides the database: the configuration, the clock, and what each mid said a moment ago.

Mids are asked before any check opens a transaction, all at once, each within ``ASK_SECONDS``: a check never waits for a
network while it holds a snapshot.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from midsource.config import Config, InstanceConfig
from midsource.marketing import accounts
from midsource.model.clock import Clock
from midsource.model.errors import MidsourceError
from midsource.model.finding import Finding
from midsource.security import keys
from midsource.store.database import Database
from midsource.wire.client import MidClient, Timeouts
from midsource.wire.schema import Hello

ASK_SECONDS = 5.0
"""A mid that needs longer to say who it is, is in trouble; a look must end within a minute."""
ASKED_AT_ONCE = 4
MAX_ACCOUNTS = 40
"""Mids asked in one look: ten turns of four; those after them are looked at by what their workflows left."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a mid said a moment ago, or why it said nothing; ``skew_seconds``: its clock ahead of ours."""

    account: str
    url: str
    hello: Hello | None = None
    error: MidsourceError | None = None
    skew_seconds: float = 0.0
    certificate_ends: datetime | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the checks of one look share. ``before``: what earlier checks of this look found."""

    config: Config
    instance: InstanceConfig
    clock: Clock
    mids: Mapping[str, Said] = field(default_factory=dict)
    before: Sequence[Finding] = ()

    @property
    def home(self) -> Path:
        """The home folder."""
        return self.config.home

    @property
    def journals(self) -> Path:
        """Where mta processes of this instance write their journals on this machine."""
        return self.config.home / "journal" / self.instance.name


def gather(config: Config, instance: InstanceConfig, database: Database, clock: Clock) -> Facts:
    """Ask what is outside the database. Raises Unhealthy where the database cannot be reached."""
    if instance.role != "marketing":
        return Facts(config, instance, clock)
    with database.connection() as conn:
        active = [account for account in accounts.list_accounts(conn) if account.active][:MAX_ACCOUNTS]
        secrets = dict(conn.execute("select name, secret from external_account where active limit %s", (MAX_ACCOUNTS,)))
    if not active:
        return Facts(config, instance, clock)

    def ask(account: accounts.ExternalAccount) -> Said:
        return _ask(config.home, account, bytes(secrets.get(account.name, b"")), clock)

    with ThreadPoolExecutor(ASKED_AT_ONCE, thread_name_prefix="doctor-asks") as threads:
        said = list(threads.map(ask, active))
    return Facts(config, instance, clock, {one.account: one for one in said})


def _ask(home: Path, account: accounts.ExternalAccount, secret: bytes, clock: Clock) -> Said:
    try:
        key = keys.load(home).decrypt(keys.ACCOUNT_SECRET, secret).decode()
        with MidClient(account.url, key, clock, timeouts=Timeouts(call=ASK_SECONDS)) as client:
            hello = client.hello()
            skew = client.skew_seconds(hello.now)
    except MidsourceError as exc:
        return Said(account.name, account.url, error=exc)
    ends = _certificate_ends(account.url) if account.url.startswith("https:") else None
    return Said(account.name, account.url, hello, skew_seconds=skew, certificate_ends=ends)


def _certificate_ends(url: str) -> datetime | None:
    """Return when the certificate at ``url`` ends; None where it cannot be told (the call itself said what is wrong)."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        with (
            socket.create_connection((host, parts.port or 443), ASK_SECONDS) as plain,
            ssl.create_default_context().wrap_socket(plain, server_hostname=host) as secured,
        ):
            text = (secured.getpeercert() or {}).get("notAfter")
    except (OSError, ValueError):  # ValueError: a host that no resolver takes, among the errors of certificates
        return None
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC) if isinstance(text, str) else None
