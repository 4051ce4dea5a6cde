"""A virtual environment for the official client, made once beside our own packages and used again.

The client may not share our environment: it brings its own protobuf code for the package `net`, which a process can
hold only once, and it pins what we must be free to choose. It declares Python 3.12 or newer; on 3.11 its signer client
runs all the same, so the lock is installed as it stands: every package named, every file's hash checked, nothing
resolved.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_FILE = Path(__file__).with_name("requirements.lock")
ENVIRONMENTS = Path(sys.prefix) / "sdk-env"


def ensure_sdk_python(lock_file: Path = LOCK_FILE, environments: Path = ENVIRONMENTS) -> Path:
    """The interpreter of an environment that holds exactly `lock_file`; makes it when it is missing or half made.

    A new lock or another Python version gets a new environment, so a stale one is never used. Any number of processes
    may call this at once: one makes the environment, the others wait for it. Raises CalledProcessError when the
    installation fails; the half-made environment is then thrown away by the next call.
    """
    digest = hashlib.sha256(lock_file.read_bytes()).hexdigest()[:16]
    root = environments / f"{sys.implementation.cache_tag}-{digest}"
    python, complete = root / "bin" / "python", root / "complete"
    if complete.exists():
        return python
    with _only_one_maker(environments / f"{root.name}.lock"):
        if not complete.exists():
            _make(root, python, lock_file)
            complete.touch()  # last: whoever dies before this line leaves nothing that counts
    return python


@contextmanager
def _only_one_maker(path: Path) -> Iterator[None]:
    """The kernel drops the lock with its holder, so a killed maker blocks nobody."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _make(root: Path, python: Path, lock_file: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    _tell(f"making an environment for the official client in {root}")
    subprocess.run([sys.executable, "-m", "venv", str(root)], check=True)
    install = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    exactly_the_lock = ["--ignore-requires-python", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    _tell("installing it from the lock, hashes checked")
    subprocess.run([*install, *exactly_the_lock, "--requirement", str(lock_file)], check=True)
    _tell("ready")


def _tell(message: str) -> None:
    print(f"sdk environment: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(ensure_sdk_python())
