"""What runs on this machine, as /proc has it. Elsewhere than on Linux only what `ps` can tell."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_ENDING_S = 60


@dataclass(frozen=True)
class Process:
    """`state` is the kernel's letter; `arguments` are separated by NUL."""

    pid: int
    parent_pid: int
    state: str
    arguments: str


def running() -> list[Process]:
    if sys.platform != "linux":
        return list(_by_ps())
    found = [_read(int(entry.name)) for entry in _PROC.iterdir() if entry.name.isdigit()]
    return [process for process in found if process is not None]


def is_alive(pid: int) -> bool:
    """Neither gone nor a zombie: one stays where PID 1 does not reap, as in many containers, and holds nothing."""
    return any(process.pid == pid and process.state not in "ZX" for process in running())


def descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for process in running():
        children.setdefault(process.parent_pid, []).append(process.pid)
    found, ahead = [], [pid]
    while ahead:
        born = children.get(ahead.pop(), [])
        found += born
        ahead += born
    return found


def of_folder(folder: Path) -> list[Process]:
    """Live processes that were started with a path below `folder` in their arguments."""
    return [process for process in running() if str(folder) in process.arguments and process.state not in "ZX"]


def left_in(folder: Path) -> list[Process]:
    """Those of `of_folder` that do not end: PostgreSQL says that it has stopped a moment before its process is gone."""
    give_up_at_s = time.monotonic() + _ENDING_S
    while (left := of_folder(folder)) and time.monotonic() < give_up_at_s:
        time.sleep(0.05)
    return left


@contextmanager
def watched_arguments() -> Iterator[set[str]]:
    """The arguments of every process seen while the block runs, those of short-lived ones as far as possible."""
    seen: set[str] = set()
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.005):
            seen.update(process.arguments for process in running())

    watcher = threading.Thread(target=watch, name="watch-arguments")
    watcher.start()
    try:
        yield seen
    finally:
        is_over.set()
        watcher.join()
        seen.update(process.arguments for process in running())


def _read(pid: int) -> Process | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        arguments = (_PROC / str(pid) / "cmdline").read_text(encoding="utf-8", errors="surrogateescape")
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # ended meanwhile, or hidden from us
        return None
    state, parent_pid, *_ = stat.rpartition(")")[2].split()
    return Process(pid, int(parent_pid), state, arguments)


def _by_ps() -> Iterator[Process]:
    answer = subprocess.run(
        ["/bin/ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,command="], capture_output=True, text=True, check=True
    )
    for line in answer.stdout.splitlines():
        pid, parent_pid, state, arguments = line.split(None, 3)
        yield Process(int(pid), int(parent_pid), state[0], arguments.replace(" ", "\0"))
