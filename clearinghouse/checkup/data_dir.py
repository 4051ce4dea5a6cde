"""The data directory and the secrets in it: ours, and nobody else's to read."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from clearinghouse.checkup.findings import Finding, error, ok
from clearinghouse.config import Settings
from clearinghouse.secrets import SECRETS_DIR_NAME

NAME: Final = "data directory"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def check(settings: Settings) -> list[Finding]:
    """Nothing where no part of this configuration keeps anything in it."""
    path = settings.data_dir.absolute()
    keeps_key = settings.signer.kind == "native" and settings.signer.native.keystore_file is None
    if settings.database_url is not None and not keeps_key:
        return [ok(NAME, "not used: database and ticket key are elsewhere")]
    if not path.exists():
        return [_about_its_parent(path)]
    if not path.is_dir():
        return [error(NAME, f"{path} is not a directory", "Move it away, or choose another with data_dir.")]
    found = path.stat()
    if found.st_uid != os.geteuid():
        return [
            error(
                NAME,
                f"{path} belongs to user {found.st_uid}, this is user {os.geteuid()}",
                f"Run as that user, or: chown -R {os.geteuid()} '{path}'",
            )
        ]
    open_to_others = [each for each in (path, *_secrets(path)) if each.lstat().st_mode & _OTHERS]
    if open_to_others:
        return [_too_open(each) for each in open_to_others]
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return [error(NAME, f"{path} cannot be written", f"chmod 700 '{path}'; is the disk mounted read-only?")]
    return [ok(NAME, f"{path}, closed to other users")]


def _secrets(data_dir: Path) -> list[Path]:
    """The directory of secrets and everything in it."""
    directory = data_dir / SECRETS_DIR_NAME
    return [directory, *sorted(directory.iterdir())] if directory.is_dir() else []


def _too_open(path: Path) -> Finding:
    mode = stat.S_IMODE(path.lstat().st_mode)
    return error(
        NAME,
        f"{path} is open to other users (mode {mode:04o})",
        f"chmod {'700' if path.is_dir() else '600'} '{path}'; what others may have read should be replaced.",
    )


def _about_its_parent(path: Path) -> Finding:
    above = next(parent for parent in path.parents if parent.exists())
    if os.access(above, os.W_OK | os.X_OK):
        return ok(NAME, f"{path} does not exist yet: the first start makes it")
    return error(NAME, f"{path} does not exist and {above} cannot be written", "Choose another with data_dir.")
