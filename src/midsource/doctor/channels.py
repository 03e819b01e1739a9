"""Carry one letter to one supervisor by its channel. Raises RemoteUnavailable, RemoteRefused, Failed; returns what was answered.

A webhook is a POST of JSON with ``X-Midsource-Timestamp`` (Unix seconds) and ``X-Midsource-Signature``: ``v1=`` and the hex HMAC-SHA256 of
``<timestamp>.<body>`` under the secret that `supervisor add` showed. Who receives it compares in constant time and refuses what
is older than five minutes. Syslog gets a line a change; a relay one mail.
"""

from __future__ import annotations

import email.policy
import hmac
import re
import socket
import uuid
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path

import msgspec

from midsource import __version__
from midsource.config import Config, InstanceConfig
from midsource.doctor import letters
from midsource.doctor.letters import Letter
from midsource.doctor.supervisors import Channel, Server, Supervisor, server
from midsource.model.clock import Clock
from midsource.net import relay, syslog
from midsource.net.egress import Egress

SIGNATURE, TIMESTAMP = "X-Midsource-Signature", "X-Midsource-Timestamp"


@dataclass(frozen=True, slots=True)
class Carrier:
    """Everything that carrying needs of an instance."""

    home: Path
    instance: InstanceConfig
    egress: Egress
    clock: Clock

    @classmethod
    def of(cls, config: Config, instance: InstanceConfig, clock: Clock) -> Carrier:
        """Return the carrier of an instance as it is configured."""
        return cls(config.home, instance, Egress(clock, private=config.egress.private_networks), clock)

    def carry(self, supervisor: Supervisor, secret: bytes, letter: Letter) -> str:
        """Tell ``supervisor``; return what its side answered, as far as it does."""
        if supervisor.channel is Channel.WEBHOOK:
            return self._post(supervisor.address, secret, letter)
        where = server(supervisor.channel, supervisor.address)
        if supervisor.channel is Channel.SYSLOG:
            return self._log(where, supervisor.language, letter)
        content = _mail(letter, where, self._sender(where), self.clock)
        return relay.send(where.host, where.port, self._helo(), self._sender(where), where.recipient, content)

    def _post(self, url: str, secret: bytes, letter: Letter) -> str:
        body = msgspec.json.encode(letter.document)
        moment = str(int(self.clock.now().timestamp()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"midsource/{__version__}",
            TIMESTAMP: moment,
            SIGNATURE: signature(secret, moment, body),
        }
        return f"HTTP {self.egress.post(url, body, headers)}"

    def _log(self, where: Server, language: str, letter: Letter) -> str:
        about = {"instance": self.instance.name, "role": self.instance.role}
        now, host = self.clock.now(), socket.gethostname()
        messages = [
            syslog.message(
                str(one.severity),
                one.at,
                host,
                one.kind,
                {**about, "news": str(one.id), "subject": one.subject},
                letters.line(one, language),
            )
            for one in letter.news
        ] or [syslog.message("warning", now, host, str(letter.kind), about, letter.text)]
        for one in messages:
            syslog.send("udp" if where.protocol == "udp" else "tcp", where.host, where.port, one)
        return f"{len(messages)} {'line' if len(messages) == 1 else 'lines'} sent"

    def _helo(self) -> str:
        return self.instance.helo if self.instance.helo != "localhost" else _host()

    def _sender(self, where: Server) -> str:
        return where.sender or f"midsource@{self._helo()}"


def signature(secret: bytes, moment: str, body: bytes) -> str:
    """Return the value of the signature's header."""
    return "v1=" + hmac.new(secret, f"{moment}.".encode() + body, "sha256").hexdigest()


def _mail(letter: Letter, where: Server, sender: str, clock: Clock) -> bytes:
    mail = EmailMessage(policy=email.policy.SMTP)
    mail["From"] = sender
    mail["To"] = where.recipient
    mail["Subject"] = " ".join(letter.subject.split())[:200]
    mail["Date"] = format_datetime(clock.now())
    mail["Message-ID"] = f"<{uuid.uuid4().hex}@{sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Midsource-Severity"] = str(letter.severity)
    mail.set_content(letter.text, cte="quoted-printable")
    return mail.as_bytes()


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()) or "localhost"
