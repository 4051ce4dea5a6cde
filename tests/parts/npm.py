"""Programs that tests run and npm has: installed from the lock in their folder."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from clearinghouse.database.file_locks import exclusive_lock

INSTALL_TIMEOUT_S = 240


class NotInstalled(Exception):
    """This machine cannot have the program; the text says why."""


def installed(folder: Path, program: str) -> Path:
    """The program (a path below node_modules), installed by `npm ci` where it is missing or older than the lock.

    Raises NotInstalled where it cannot be had, RuntimeError where npm fails.
    """
    lock_digest = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    stamp = folder / "node_modules" / ".installed-from"
    path = folder / "node_modules" / program
    with exclusive_lock(folder / ".install.lock", timeout_s=INSTALL_TIMEOUT_S):
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != lock_digest:
            _install(folder, path)
            stamp.write_text(lock_digest, encoding="utf-8")
    return path


def _install(folder: Path, program: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise NotInstalled("npm (node) is not installed")
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    if "EBADPLATFORM" in done.stderr:
        raise NotInstalled("the lock has the program for Linux on x86-64 only")
    if done.returncode != 0 or not program.exists():
        raise RuntimeError(f"`npm ci` in {folder} failed:\n{done.stdout}\n{done.stderr}")
