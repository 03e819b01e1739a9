"""Where the embedded PostgreSQL of a home keeps its things, and as whom it runs.

In the home: ``run/`` (locks, state), ``keys/`` (two passwords), ``log/`` and, as a rule, ``postgres/`` (the *base*):
``data`` 0700, ``socket`` 0700, ``postmaster.lock``, our two configuration files.

Run by root, PostgreSQL refuses to work, so it runs as the owner of existing data, else as the first of ``ACCOUNTS`` that
exists. (`nobody` comes last: it exists everywhere, but other services may share it. Make a user `midsource` to have one
alone.) When that user cannot reach into the home (a home below ``/root``, say), the base is a folder below the system
folder (``/var/lib/midsource``) and the home's file ``postgres.location`` says which. **The mode of a folder that we did
not make is never changed**, and one that exists is used only when its owner and mode are as we would have made them.

A socket's path may have about 100 bytes, whence ``SOCKET_LIMIT_BYTES`` for its folder; a longer one is replaced by a
short hashed folder in the user's runtime folder, in ``/tmp/midsource-<uid>`` or, for root, in the system folder.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from midsource.model.errors import NotFound, Unhealthy
from midsource.store.files import write_whole
from midsource.supervise.spawn import Account, can_enter

ACCOUNTS = ("midsource", "postgres", "_postgres", "pgsql", "nobody")
SYSTEM_FOLDER = Path("/var/lib/midsource")
SHORT_FOLDERS = Path("/tmp")  # noqa: S108 - only below it, in a folder whose owner and mode are checked
SOCKET_LIMIT_BYTES = 90  # sun_path has 104 (macOS) or 108 (Linux) bytes; "/.s.PGSQL.5432.lock" takes 19 of them


@dataclass(frozen=True, slots=True)
class HomeFiles:
    """The files of one home that the embedded server and its users share."""

    home: Path

    @property
    def users_lock(self) -> Path:
        """Locked shared by everyone who needs the server."""
        return self.home / "run" / "postgres.users.lock"

    @property
    def owner_lock(self) -> Path:
        """Locked by the holder, the one process that owns the server."""
        return self.home / "run" / "postgres.owner.lock"

    @property
    def state(self) -> Path:
        """What the holder says of the server, as JSON."""
        return self.home / "run" / "postgres.state"

    @property
    def stop_request(self) -> Path:
        """Exists while somebody asks the holder to stop whoever uses the server."""
        return self.home / "run" / "postgres.stop"

    @property
    def location(self) -> Path:
        """Names the base folder where it is not in the home."""
        return self.home / "postgres.location"

    @property
    def log(self) -> Path:
        """What PostgreSQL says."""
        return self.home / "log" / "postgres.log"

    @property
    def holder_log(self) -> Path:
        """What the holder says: empty unless it crashed."""
        return self.home / "log" / "postgres-holder.log"

    def password(self, role: str) -> Path:
        """Return the file holding the password of a role (0600)."""
        return self.home / "keys" / f"postgres-{role}.password"

    def make(self) -> None:
        """Make the folders that are missing (0700). Raises ``NotFound`` when there is no home."""
        if not self.home.is_dir():
            raise NotFound(f"there is no home folder at {self.home}", "run 'midsource init' first")
        for name in ("run", "keys", "log"):
            make_folder(self.home / name, 0o700)

    def short_name(self) -> str:
        """Return a name for this home that fits where its path does not: 12 hex digits of its hash."""
        return hashlib.sha256(os.fsencode(self.home.resolve())).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the server lives: ``base`` holds data and configuration; ``account`` is None when it runs as ourselves."""

    base: Path
    account: Account | None

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.base / "data"

    @property
    def postmaster_lock(self) -> Path:
        """Locked, by inheritance, as long as any process of the server lives."""
        return self.base / "postmaster.lock"


def make_folder(path: Path, mode: int, account: Account | None = None) -> None:
    """Make ``path`` with exactly ``mode`` (and owner) unless it exists; an existing one is left as it is."""
    try:
        path.mkdir(mode=mode)
    except FileExistsError:
        return
    path.chmod(mode)
    if account is not None:
        os.chown(path, account.uid, account.gid)


def private_folder(path: Path, account: Account | None) -> Path:
    """Make ``path`` 0700 for the account, or check that it is so. Raises ``Unhealthy`` on one somebody else planted."""
    make_folder(path, 0o700, account)
    found = path.lstat()
    owner = os.geteuid() if account is None else account.uid
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or stat.S_IMODE(found.st_mode) & 0o077:
        raise Unhealthy(
            f"{path} exists but is not a folder of user {Account.of_uid(owner).name} alone (mode 0700)",
            "look who made it, then remove it and start again",
        )
    return path


def settle(files: HomeFiles, system_folder: Path = SYSTEM_FOLDER) -> Place:
    """Find or decide the base folder and the account, and make the base. Raises ``Unhealthy`` with the reason."""
    known = _recorded_base(files)
    if known is not None and (known / "data").is_dir():
        return Place(known, _account_of_data(known / "data"))
    if os.geteuid() != 0:
        base = known or files.home / "postgres"
        make_folder(base, 0o700)
        return Place(base, None)
    account = next((found for name in ACCOUNTS if (found := Account.named(name))), None)
    if account is None:
        raise Unhealthy(
            "PostgreSQL does not run as root and this system has none of the users " + ", ".join(ACCOUNTS),
            "make a system user named midsource, or run midsource as an ordinary user",
        )
    return Place(known or _base_for(files, account, system_folder), account)


def _recorded_base(files: HomeFiles) -> Path | None:
    try:
        base = Path(files.location.read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        inside = files.home / "postgres"
        return inside if (inside / "data").is_dir() else None
    if not base.is_dir() or base.stat().st_uid != os.geteuid():
        raise Unhealthy(
            f"{files.location} names {base}, which is no folder of user {Account.of_uid(os.geteuid()).name}",
            "mount or restore that folder, or correct the file",
        )
    return base


def _account_of_data(data: Path) -> Account | None:
    owner = data.stat().st_uid
    if owner == os.geteuid() != 0:
        return None
    if os.geteuid() != 0:
        raise Unhealthy(
            f"the database in {data} belongs to user {Account.of_uid(owner).name}",
            "run midsource as the user who made this home, or as root",
        )
    if owner == 0:
        raise Unhealthy(
            f"the database in {data} belongs to root, and PostgreSQL does not run as root",
            "give the folder to the user it shall run as: chown -R",
        )
    return Account.of_uid(owner)


def _base_for(files: HomeFiles, account: Account, system_folder: Path) -> Path:
    if can_enter(files.home, account):
        base = files.home / "postgres"
        make_folder(base, 0o711)
        return base
    make_folder(system_folder, 0o711)
    base = _unclaimed(system_folder / files.short_name(), files)
    make_folder(base, 0o711)
    if not can_enter(base, account):
        raise Unhealthy(
            f"user {account.name}, as whom PostgreSQL runs, reaches neither {files.home} nor {base}",
            f"let that user pass through {system_folder} and its parents, or use a home elsewhere",
        )
    write_whole(files.location, f"{base}\n", is_lasting=True)
    return base


def _unclaimed(wanted: Path, files: HomeFiles) -> Path:
    """Return ``wanted``, or a numbered sibling where it holds the database of an earlier home at this path.

    A home that was removed leaves its database behind, and a new one neither knows its password nor may delete it. With
    the passwords at hand the home is the same one, and has lost the file that says where its database is.
    """
    base, number = wanted, 1
    while (base / "data").exists() and not any((files.home / "keys").glob("postgres-*.password")):
        number += 1
        base = wanted.with_name(f"{wanted.name}-{number}")
    return base


def socket_folder(
    files: HomeFiles, place: Place, runtime_folder: Path | None, system_folder: Path = SYSTEM_FOLDER
) -> Path:
    """Return the folder of the server's socket, 0700, made if missing. Raises ``Unhealthy`` where none is possible."""
    inside = place.base / "socket"
    if fits_a_socket(inside):
        return private_folder(inside, place.account)
    if place.account is not None:
        make_folder(system_folder, 0o711)
        make_folder(system_folder / files.short_name(), 0o711)
        return private_folder(system_folder / files.short_name() / "socket", place.account)
    return short_folder(files, runtime_folder)


def short_folder(files: HomeFiles, runtime_folder: Path | None) -> Path:
    """Return a folder of ours (0700) with a short path, for the sockets of a home whose own path is long."""
    if runtime_folder is not None and runtime_folder.is_dir() and runtime_folder.stat().st_uid == os.geteuid():
        hashed = runtime_folder / f"midsource-{files.short_name()}"
        if fits_a_socket(hashed):
            return private_folder(hashed, None)
    return private_folder(private_folder(SHORT_FOLDERS / f"midsource-{os.geteuid()}", None) / files.short_name(), None)


def fits_a_socket(folder: Path) -> bool:
    """Tell whether a socket in ``folder`` has a path that the operating system takes."""
    return len(os.fsencode(folder)) < SOCKET_LIMIT_BYTES
