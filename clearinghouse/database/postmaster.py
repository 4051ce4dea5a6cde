"""Is the server of this cluster alive? Pid files lie after a crash: the process and its memory are looked at too."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_SHARED_MEMORY_TABLE = Path("/proc/sysvipc/shm")


@dataclass(frozen=True, slots=True)
class PidFile:
    """What `postmaster.pid` says. `status` is its last line: starting, ready or stopping; empty if not yet written."""

    pid: int
    status: str


def read_pid_file(path: Path) -> PidFile | None:
    """None where there is no such file, or no number in it yet. A single-user server writes its pid negated."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        return PidFile(abs(int(lines[0])), lines[7].strip() if len(lines) > 7 else "")
    except (FileNotFoundError, IndexError, ValueError):
        return None


def is_live_postmaster(pid: int, cluster: Path) -> bool:
    """Whether process `pid` runs and is the postgres of `cluster`: not gone, not a zombie, not a recycled number.

    A zombie stays where PID 1 does not reap, as in many containers; it holds nothing, yet signals reach it.
    """
    state, arguments = _process(pid)
    if not state or state in "ZX":
        return False
    return "postgres" in arguments and f"-D\0{cluster}\0" in arguments + "\0"


def _process(pid: int) -> tuple[str, str]:
    """State letter and NUL-separated arguments of a process; empty where it does not exist."""
    if sys.platform != "linux":
        return _process_by_ps(pid)
    folder = Path("/proc") / str(pid)
    try:
        stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        arguments = (folder / "cmdline").read_text(encoding="utf-8", errors="surrogateescape")
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # the last: a process hidden from us is not ours
        return "", ""
    return stat.rpartition(")")[2].split()[0], arguments


def _process_by_ps(pid: int) -> tuple[str, str]:
    answer = subprocess.run(  # noqa: S603
        ["/bin/ps", "-ww", "-o", "stat=", "-o", "command=", "-p", str(pid)],
        capture_output=True, text=True, timeout=10, check=False,
    )  # fmt: skip
    state, _, command = answer.stdout.strip().partition(" ")
    return state[:1], command.replace(" -D ", "\0-D\0").strip() + "\0"


def memory_is_held(cluster: Path) -> bool | None:
    """Whether processes of an earlier server are still attached to the cluster's shared memory; None where unknown.

    PostgreSQL derives the key of its System V segment from the inode of the cluster directory and refuses to start
    while an orphaned backend of a killed server is attached to it.
    """
    if not _SHARED_MEMORY_TABLE.exists():
        return None
    key = cluster.stat().st_ino & 0xFFFFFFFF
    header, *rows = (line.split() for line in _SHARED_MEMORY_TABLE.read_text(encoding="ascii").splitlines())
    key_column, attached_column = header.index("key"), header.index("nattch")
    return any(int(row[key_column]) & 0xFFFFFFFF == key and int(row[attached_column]) > 0 for row in rows)
