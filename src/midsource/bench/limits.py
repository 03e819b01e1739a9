"""Limits and peers measured in the same run: OpenSSL's RSA speed, Postfix's smtp-source, the naive Python sender."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from midsource.mail.dkim import generate_key
from midsource.model.errors import Failed

OPENSSL_SECONDS = 3
SIZE_BYTES = 20_200
"""Of a message that others send: as many as the newsletter has."""
SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin"
"""Where Postfix's programs are although a user's PATH does not name it."""
_SIGNS = re.compile(r"^rsa\s*2048 bits\s+\S+\s+\S+\s+([\d.]+)\s", re.MULTILINE)


def rsa_signs_a_second(processes: int = 2) -> float | None:
    """Return RSA-2048 signatures a second of ``openssl speed`` with this many processes; None where it is not installed."""
    program = shutil.which("openssl")
    if program is None:
        return None
    argv = [program, "speed", "-seconds", str(OPENSSL_SECONDS), "-multi", str(processes), "rsa2048"]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False).stdout
    found = _SIGNS.search(said)
    if found is None:
        raise Failed(f"openssl speed says something new ({said.strip()[-200:]!r})", "report it")
    return float(found[1])


def smtp_source(address: str, messages: int, *, sessions: int) -> float | None:
    """Return the messages a second of Postfix's ``smtp-source`` into a server; None where it is not installed.

    It sends one message of the newsletter's size again and again, keeps its connections (``-d``), personalises nothing,
    signs nothing and remembers nothing.
    """
    program = shutil.which("smtp-source") or shutil.which("smtp-source", path=SYSTEM_FOLDERS)
    if program is None:
        return None
    argv = [program, "-d", "-m", str(messages), "-s", str(sessions), "-l", str(SIZE_BYTES), "-f", "a@exemple.fr"]
    began = time.perf_counter()
    done = subprocess.run(
        [*argv, "-t", "b@exemple.fr", address], capture_output=True, text=True, timeout=300, check=False
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise Failed(f"smtp-source failed ({done.stderr.strip()[-200:]})", "see whether Postfix is installed whole")
    return messages / seconds


def naive_a_second(folder: Path, port: int, messages: int) -> float | None:
    """Return the signed messages a second of the naive Python sender, one process for each core; None without its packages."""
    if not all(importlib.util.find_spec(name) for name in ("aiosmtplib", "dkim")):
        return None
    key = folder / "naive.pem"
    if not key.exists():
        key.write_text(generate_key("rsa"), encoding="ascii")
    cores = os.cpu_count() or 1
    argv = [sys.executable, "-P", "-m", "midsource.bench.naive", str(port), str(messages // cores), str(key)]
    children = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(cores)]
    seconds = [float(child.communicate(timeout=300)[0] or "nan") for child in children]
    if any(child.returncode for child in children):
        raise Failed("the naive Python sender failed", "see what it said above")
    return sum(messages // cores / spent for spent in seconds)
