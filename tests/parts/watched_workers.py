"""Workers as processes of their own over one database, what befalls the one that leads, and whether anything of their
job was lost or done twice.

The job (worker_process.py) writes one row for each second; it reads what is there, waits, then writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.parts.program import wait_until
from tests.parts.worker_process import NOT_ONCE, WorkerProcess, workers

LEADER_CHANGE_MAX_S = 10
#: A machine that is busy with other things gets as much again.
BUSY = 2
#: The superuser, each statement in a transaction of its own.
Owner = psycopg.Connection[tuple[Any, ...]]


@dataclass
class Watched:
    """Workers, one of which leads."""

    owner: Owner
    made: list[WorkerProcess]
    conninfo: str
    folder: Path
    changes_s: list[float] = field(default_factory=list)

    def leader(self) -> WorkerProcess | None:
        """Whose lock it is, whatever the record says."""
        held = self.owner.execute(
            "SELECT leader FROM job_lead WHERE EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND"
            " (classid::bigint << 32 | objid::bigint) = hashtextextended('job lead', 0))"
        ).fetchone()
        return next((each for each in self.made if held and held[0].endswith(f":{each.pid}")), None)

    def wait_for_leader(self, *, other_than: WorkerProcess | None = None) -> WorkerProcess:
        wait_until(lambda: (self.leader() or other_than) is not other_than, "a leader", timeout_s=60)
        leader = self.leader()
        assert leader is not None
        return leader

    def changes(self, fault: Callable[[WorkerProcess], None]) -> WorkerProcess:
        """What befalls the leader; the one that leads next, and how long that took is noted."""
        leader = self.wait_for_leader()
        begun_s = time.monotonic()
        fault(leader)
        after = self.wait_for_leader(other_than=leader)
        self.changes_s.append(time.monotonic() - begun_s)
        return after

    def replace(self, worker: WorkerProcess) -> None:
        worker.kill()
        self.made.remove(worker)
        self.made.append(WorkerProcess(self.conninfo, worker.log_file))

    def rows(self) -> int:
        row = self.owner.execute("SELECT count(*) FROM period").fetchone()
        assert row is not None
        return int(row[0])

    def wait_for_rows(self, more: int) -> None:
        wanted = self.rows() + more
        wait_until(lambda: self.rows() >= wanted, f"{more} more rows\n{self.made[0].log[-4000:]}")

    def require_each_once(self) -> None:
        assert self.owner.execute(NOT_ONCE).fetchall() == []
        assert self.rows() > 5


@contextmanager
def watched(conninfo: str, folder: Path, owner: Owner, *, count: int = 2) -> Iterator[Watched]:
    with workers(conninfo, folder, count) as made:
        yield Watched(owner, made, conninfo, folder)
