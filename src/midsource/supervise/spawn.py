"""Starting children that cannot outlive us: parent-death signal, another user, a clean environment.

The parent-death signal (Linux ``PR_SET_PDEATHSIG``) is sent when the *thread* that forked ends, so children are started
from the main thread only; a change of user clears it, so it is set after that change (``subprocess`` changes user first,
then calls ``preexec_fn``). A parent that dies between fork and prctl would never be noticed: the child therefore
compares its parent afterwards and ends itself. Where the system has no such signal (macOS) children of a killed parent
live on; whoever comes next finds them by the lock they inherited (``locks``).
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the operating system that a child runs as."""

    name: str
    uid: int
    gid: int

    @classmethod
    def named(cls, name: str) -> Account | None:
        """Return the account of that name, or None where the system has none."""
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return None
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    @classmethod
    def of_uid(cls, uid: int) -> Account:
        """Return the account with that number; one the system cannot name is called by its number."""
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            return cls(str(uid), uid, uid)
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    def group_name(self) -> str:
        """Return the group's name, or its number where it has none."""
        try:
            return grp.getgrgid(self.gid).gr_name
        except KeyError:
            return str(self.gid)


def dies_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """Return what the child runs between fork and exec so that ``death_signal`` reaches it when its parent dies."""
    parent = os.getpid()

    def before_exec() -> None:
        if sys.platform == "linux":
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(127)

    return before_exec


def spawn(
    argv: Sequence[str],
    *,
    death_signal: signal.Signals,
    output: int | IO[bytes],
    account: Account | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    keep: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start ``argv`` in its own process group, stdin empty, stdout and stderr to ``output``, bound to our life.

    ``account``: run as that user (needs root). ``keep``: descriptors the child inherits. Raises ``OSError``.
    """
    return subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=None if env is None else dict(env),
        cwd=cwd,
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else [],
        pass_fds=tuple(keep),
        process_group=0,
        # The one way to set a parent-death signal; only async-signal-safe work and two system calls happen in it.
        preexec_fn=dies_with_parent(death_signal),  # noqa: PLW1509 - see above; children start from the main thread
    )


def run_as(
    argv: Sequence[str],
    *,
    account: Account | None,
    env: Mapping[str, str],
    timeout_seconds: float,
    keep: Sequence[int] = (),
) -> subprocess.CompletedProcess[str]:
    """Run ``argv`` to its end as ``account`` and return code and output; killed when we die or after the time.

    Raises ``OSError`` and ``subprocess.TimeoutExpired``.
    """
    child = spawn(
        argv,
        death_signal=signal.SIGKILL,
        output=subprocess.PIPE,
        account=account,
        env=env,
        cwd=Path("/"),
        keep=keep,
    )
    with child:
        try:
            output, _ = child.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            raise
    return subprocess.CompletedProcess(list(argv), child.returncode, output.decode("utf-8", "replace"))


def can_enter(path: Path, account: Account) -> bool:
    """Tell whether ``account`` reaches into ``path``: the kernel is asked, so access lists count. Needs root."""
    child = os.fork()
    if child == 0:
        verdict = 1
        try:
            os.setgroups([])
            os.setgid(account.gid)
            os.setuid(account.uid)
            verdict = 0 if os.access(path, os.X_OK) else 1
        finally:
            os._exit(verdict)
    return os.waitpid(child, 0)[1] == 0
