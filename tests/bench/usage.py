"""What processes use: CPU time in nanoseconds, memory, and how much of the machine others took. Linux."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


def cpu_ns(pid: int) -> int:
    """CPU time of a process with all its threads, also those that ended.

    The clock's id is what clock_getcpuclockid(3) makes of a pid: ~pid << 3, and 2 for the scheduler's own accounting,
    which counts nanoseconds where /proc/PID/stat counts hundredths of a second. ProcessLookupError when it has ended.
    """
    try:
        return time.clock_gettime_ns(~pid << 3 | 2)
    except OSError as error:
        raise ProcessLookupError(f"process {pid} has ended") from error


def postgres_pids(postmaster_pid_file: Path) -> list[int]:
    """The postmaster and its children, who do the work."""
    postmaster = int(postmaster_pid_file.read_text(encoding="ascii").split("\n", 1)[0])
    return [postmaster, *(pid for pid in _all_pids() if _parent(pid) == postmaster)]


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def _parent(pid: int) -> int | None:
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # it ended meanwhile
        return None
    return int(text.rpartition(")")[2].split()[1])


class Memory(NamedTuple):
    """Resident memory of a process: now, and at its highest."""

    now_bytes: int
    peak_bytes: int


def memory(pid: int) -> Memory:
    status = (PROC / str(pid) / "status").read_text(encoding="utf-8")
    kib = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", status, re.MULTILINE))
    return Memory(int(kib["VmRSS"]) * 1024, int(kib["VmHWM"]) * 1024)


def machine_busy_ns() -> int:
    """CPU time spent by everybody on all cores since the machine started, in steps of a hundredth of a second.

    Includes what a hypervisor took away: it is time that nobody here could use.
    """
    fields = [int(field) for field in (PROC / "stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq + steal) * 1_000_000_000 // ticks_per_s
