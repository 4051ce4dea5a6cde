"""Secrets that the clearinghouse makes for itself on first use, each in a file of mode 0600 below the data directory.

DATA_DIR/secrets/          0700
  api_key_pepper           64 hex digits
  keystore.json            the ticket key, encrypted        running.py
  keystore_password        64 hex digits                    running.py
  admin_token              of the management API            demo.py
  demo_api_key             the demo gateway's               demo.py
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clearinghouse.database.cluster_files import prepare_data_dir

if TYPE_CHECKING:
    from clearinghouse.config import Settings

SECRETS_DIR_NAME: Final = "secrets"
PEPPER_FILE_NAME: Final = "api_key_pepper"
DEMO_API_KEY_FILE_NAME: Final = "demo_api_key"
_PEPPER_BYTES: Final = 32
_TOKEN_BYTES: Final = 32


class SecretMissing(Exception):
    """A secret is needed that must not be made up here. The message says which setting gives it."""


def api_key_pepper(settings: Settings) -> bytes:
    """The key of the HMAC under which API keys are stored: the bytes of the setting, or of a file made on first use.

    Made only for the embedded database: instances that share a database must share the pepper too, and one made up
    here would give keys that no other instance accepts. SecretMissing then. EmbeddedPostgresError where the data
    directory is not ours, OSError where the file cannot be used.
    """
    if settings.api_key_pepper is not None:
        return settings.api_key_pepper.get_secret_value().encode()
    if settings.database_url is not None or settings.admin_database_url is not None:
        raise SecretMissing(
            "With a database of your own the pepper of the API keys must be given: set "
            "CLEARINGHOUSE_API_KEY_PEPPER_FILE to the file that every instance uses (`openssl rand -hex 32` makes one)."
        )
    prepare_data_dir(settings.data_dir)
    path = settings.data_dir / SECRETS_DIR_NAME / PEPPER_FILE_NAME
    return read_or_create(path, lambda: secrets.token_hex(_PEPPER_BYTES)).encode()


def read_or_create(path: Path, make: Callable[[], str]) -> str:
    """The text of a secret file, made with `make` where there is none. Of two creators at once one wins, for both.

    The file appears complete, durable and with mode 0600, or not at all. OSError where it cannot be read or written;
    ValueError for an empty one, which nothing here writes.
    """
    if not path.exists():
        _create(path, make())
    text = path.read_text(encoding="utf-8").rstrip("\r\n")
    if not text:
        raise ValueError(f"the secret file {path} is empty: restore it, or remove it to have a new one made")
    return text


def new_token() -> str:
    """A secret nobody can guess: 256 random bits, in characters that need no escaping in a header or a shell."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def replace(path: Path, text: str) -> None:
    """Put a secret in the place of whatever was there, mode 0600: at every instant the old text or the new one.

    Durable when it returns. OSError where it cannot be written; the old text is then still there.
    """
    for directory in (path.parent.parent, path.parent):  # the data directory may not exist yet: it is private too
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = _written_beside(path, text)
    try:
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink()
        raise
    _sync_directory(path.parent)


def _create(path: Path, text: str) -> None:
    """Write beside the place, then link into it: a link, unlike a rename, does not replace what a rival put there."""
    for directory in (path.parent.parent, path.parent):  # the data directory may not exist yet: it is private too
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = _written_beside(path, text)
    try:
        try:
            path.hardlink_to(unfinished)
        except FileExistsError:
            return  # the rival's secret is as good as ours
        _sync_directory(path.parent)
    finally:
        unfinished.unlink()


def _written_beside(path: Path, text: str) -> Path:
    """A file in the same directory that holds `text` and a newline, complete and durable, mode 0600."""
    descriptor, unfinished = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        Path(unfinished).unlink()
        raise
    return Path(unfinished)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
