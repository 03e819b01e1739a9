"""The key of the home folder: what encrypts secrets at rest and authenticates tokens, kept outside every database.

``<home>/keys/home.key`` holds 32 random bytes (base64), mode 0600, made once; whoever copies a database without it
gets no secret. From it a key is derived for each purpose (HKDF-SHA256), so what was encrypted for one purpose is
nothing for another. Encryption is Fernet (AES-128-CBC and HMAC-SHA256), tokens are HMAC-SHA256.

The file belongs into the backup of the home folder, apart from the databases. Lost: secrets are entered again, links
in mails already sent stop working.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from midsource.model.errors import Failed, Unhealthy
from midsource.store.files import keep_names

ACCOUNT_SECRET = "account secret"  # noqa: S105 - the name of a purpose
"""Purpose: what a marketing instance says to a mid."""
DKIM_KEY = "dkim private key"
"""Purpose: private keys of sender domains."""
KEY_BYTES = 32


class HomeKey:
    """The key of one home folder; made by `load`. Safe to use from several threads."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise ValueError("a home key has 32 bytes")
        self._secret = secret

    def derive(self, purpose: str) -> bytes:
        """Return the 32 bytes that belong to ``purpose``, for ever the same."""
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=b"midsource " + purpose.encode()).derive(self._secret)

    def encrypt(self, purpose: str, plain: bytes) -> bytes:
        """Return ``plain`` encrypted and authenticated, as ASCII."""
        return self._fernet(purpose).encrypt(plain)

    def decrypt(self, purpose: str, token: bytes) -> bytes:
        """Return what was encrypted for ``purpose``; raises Failed where it was done with another key, or altered."""
        try:
            return self._fernet(purpose).decrypt(token)
        except InvalidToken as exc:
            raise Failed(
                f"the stored {purpose} was not encrypted with the key of this home folder",
                "put keys/home.key back from the backup, or enter the secret again",
            ) from exc

    def mac(self, purpose: str, message: bytes) -> bytes:
        """Return the 32 bytes that prove ``message`` for ``purpose``; compare with ``hmac.compare_digest``."""
        return hmac.digest(self.derive(purpose), message, "sha256")

    def _fernet(self, purpose: str) -> Fernet:
        return Fernet(base64.urlsafe_b64encode(self.derive(purpose)))


def load(home: Path) -> HomeKey:
    """Read the key of ``home``, making it where there is none. Raises Unhealthy where it is unreadable or open to others."""
    path = home / "keys" / "home.key"
    text = read_or_make(path, lambda: base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode())
    try:
        return HomeKey(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError) as exc:
        raise Unhealthy(f"{path} does not hold a key", "put it back from the backup of the home folder") from exc


def read_or_make(path: Path, make: Callable[[], str]) -> str:
    """Return the text of the private file ``path``, written by ``make`` where it is missing. Several may race: one wins."""
    try:
        if not path.exists():
            _write_once(path, make())
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise Unhealthy(f"{path} cannot be read or made ({exc})", "check the owner and the mode of the folder") from exc
    if mode & 0o077:
        raise Unhealthy(
            f"{path} can be read by others (mode {mode:03o})", f"run `chmod 600 {path}`, then renew what it guards"
        )
    return text


def _write_once(path: Path, text: str) -> None:
    """Make the file whole or not at all: a link either is made by us or already there, and never half written."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            return
        for folder in (path.parent, path.parent.parent):  # else it would be made anew, and open nothing
            keep_names(folder)
    finally:
        draft.unlink()
