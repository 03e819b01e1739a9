"""Postfix as a peer: a private instance that relays to the sink, where it is installed and we may start it (root).

`smtp-source` hands the messages in and the clock runs until the sink has the last one, so its queue on disk counts as our
ledger does. Nothing of an installed Postfix is touched: configuration, queue and ports are the benchmark's own.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

from midsource.bench import limits
from midsource.bench.sink import LightSink
from midsource.bench.stage import Bench, wait_until
from midsource.model.errors import Failed

SESSIONS = 20
START_SECONDS = 15.0
RELAY_SECONDS = 300.0
_MAIN = """\
compatibility_level = 3.6
config_directory = {folder}/etc
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log/postfix.log
maillog_file_prefixes = {folder}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
alias_maps =
alias_database =
smtpd_relay_restrictions = permit_mynetworks, reject
relayhost = [127.0.0.1]:{sink}
smtp_destination_concurrency_limit = 100
default_destination_concurrency_limit = 100
"""


def why_not() -> str:
    """Return why Postfix cannot be measured here, "" where it can."""
    if shutil.which("postfix", path=limits.SYSTEM_FOLDERS) is None:
        return "not installed"
    if os.geteuid() != 0:
        return "needs root to be started"
    return "" if Path("/etc/postfix/master.cf").exists() else "installed without master.cf"


class Postfix:
    """A running private Postfix."""

    def __init__(self, bench: Bench, sink: LightSink) -> None:
        self._sink = sink
        self._folder = bench.folder / "postfix"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._prepare()
        self._control("start")
        bench.finally_(lambda: self._control("stop"))
        wait_until(self._answers, "Postfix", START_SECONDS)

    def relayed_a_second(self, messages: int) -> float:
        """Hand ``messages`` messages in; return how many a second came out at the sink."""
        before = self._sink.counted().messages
        began = time.perf_counter()
        limits.smtp_source(f"127.0.0.1:{self.port}", messages, sessions=SESSIONS)
        wait_until(lambda: self._sink.counted().messages >= before + messages, "the last message", RELAY_SECONDS)
        return messages / (time.perf_counter() - began)

    def _prepare(self) -> None:
        owner = pwd.getpwnam("postfix")
        for name in ("etc", "queue", "data", "log"):
            (self._folder / name).mkdir(parents=True)
        self._folder.chmod(0o755)
        os.chown(self._folder / "data", owner.pw_uid, owner.pw_gid)
        (self._folder / "etc" / "main.cf").write_text(
            _MAIN.format(folder=self._folder, sink=self._sink.port), encoding="ascii"
        )
        (self._folder / "etc" / "master.cf").write_text(self._master(), encoding="utf-8")

    def _master(self) -> str:
        """Return the installed services, none in a chroot, with smtpd at our port."""
        services = Path("/etc/postfix/master.cf").read_text(encoding="utf-8").splitlines()
        return "\n".join(map(self._service, services)) + "\n"

    def _service(self, line: str) -> str:
        words = line.split()
        if line.startswith(("#", " ", "\t")) or len(words) < 8:
            return line
        words[4] = "n"
        if words[:2] == ["smtp", "inet"]:
            words[0] = f"127.0.0.1:{self.port}"
        return " ".join(words)

    def _control(self, verb: str) -> None:
        program = shutil.which("postfix", path=limits.SYSTEM_FOLDERS)
        assert program is not None
        done = subprocess.run(
            [program, "-c", self._folder / "etc", verb], capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode and verb == "start":
            raise Failed(f"Postfix does not start ({done.stderr.strip()[-300:]})", "see what it says by itself")

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as line:
                return line.recv(3) == b"220"
        except OSError:
            return False
