"""Locks between processes that a dead process cannot keep: the kernel releases a `flock` with its last descriptor.

Python opens descriptors close-on-exec, so no program started under a lock inherits it. That matters: a database
server holding our lock would look like a user of itself for ever.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_INTERVAL_S = 0.02


@contextmanager
def exclusive_lock(path: Path, *, timeout_s: int) -> Iterator[None]:
    """Hold `path` alone. TimeoutError when others keep it longer than `timeout_s`; `flock` itself knows no limit."""
    descriptor = _open(path)
    try:
        _lock(descriptor, fcntl.LOCK_EX, path, timeout_s)
        yield
    finally:
        os.close(descriptor)


class SharedLock:
    """One of any number of holders of `path`, from construction until `release`.

    TimeoutError from the constructor when somebody holds the file alone for longer than `timeout_s`.
    """

    def __init__(self, path: Path, *, timeout_s: int) -> None:
        self._descriptor = _open(path)
        try:
            _lock(self._descriptor, fcntl.LOCK_SH, path, timeout_s)
        except BaseException:
            os.close(self._descriptor)
            raise

    def is_the_only_one(self) -> bool:
        """Whether nobody else holds the file. Ends the shared hold either way: `flock` converts by letting go first."""
        return _try_lock(self._descriptor, fcntl.LOCK_EX)

    def release(self) -> None:
        os.close(self._descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _lock(descriptor: int, kind: int, path: Path, timeout_s: int) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not _try_lock(descriptor, kind):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"another process has held {path} for more than {timeout_s} s")
        time.sleep(_POLL_INTERVAL_S)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
