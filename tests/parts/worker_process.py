"""A worker as a process of its own, with one job of a test: for each second since it was last run, one row.

    python -m tests.parts.worker_process CONNINFO

The job reads what it has done, takes its time, and only then writes: whoever is stopped in between, and goes on as if
nothing had been, would write what another has written meanwhile. The table does not forbid that.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry
from sqlalchemy import text

from clearinghouse.config import LogSettings
from clearinghouse.job_runs import Times
from clearinghouse.log import configure_logging
from clearinghouse.process import run
from settlement.schedule import Job, Tick
from settlement.work_metrics import WorkMetrics
from settlement.worker import Worker

PERIODS = """
    CREATE TABLE period (due_at timestamptz NOT NULL, run_id bigint NOT NULL);
    GRANT SELECT, INSERT ON period TO clearinghouse_work;
    INSERT INTO period VALUES (date_trunc('second', now()), 0);
"""
#: Not exactly once each: (second, rows).
NOT_ONCE = """
    SELECT due, count(run_id) FROM (SELECT generate_series(min(due_at), max(due_at), '1 s') AS due FROM period) AS every
      LEFT JOIN period ON due_at = due GROUP BY 1 HAVING count(run_id) <> 1 ORDER BY 1
"""


def periods_job(*, every_s: int = 1, takes_s: float = 0.4) -> Job:
    async def tick(tick: Tick) -> str:
        async with tick.engine.connect() as connection:
            newest = (await connection.execute(text("SELECT max(due_at) FROM period"))).scalar_one()
        await asyncio.sleep(takes_s)
        async with tick.transaction() as connection:
            insert = """
                INSERT INTO period
                SELECT due, :id FROM generate_series(CAST(:after AS timestamptz) + '1 s', :now, '1 s') AS due
            """
            values = {"id": tick.run_id, "after": newest, "now": Times(1).due_at(tick.now)}
            return f"{(await connection.execute(text(insert), values)).rowcount} periods"

    return Job("periods", every_s, tick)


class WorkerProcess:
    """One of them; `log` is what it wrote."""

    def __init__(self, conninfo: str, log: Path, *, clock_wrong_by_s: float = 0) -> None:
        self.log_file = log
        wrong = ["tests.parts.wrong_clock", str(clock_wrong_by_s)] if clock_wrong_by_s else []
        command = [sys.executable, "-m", *wrong, "tests.parts.worker_process", conninfo]
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        self.pid = self._process.pid

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def wait(self, timeout_s: float = 30) -> int:
        return self._process.wait(timeout_s)


@contextmanager
def workers(conninfo: str, folder: Path, count: int) -> Iterator[list[WorkerProcess]]:
    """The list may be added to and changed; whoever is in it at the end is killed."""
    made = [WorkerProcess(conninfo, folder / f"worker-{number}.log") for number in range(count)]
    try:
        yield made
    finally:
        for each in made:
            each.kill()


def main(conninfo: str) -> None:
    configure_logging(LogSettings())
    job = periods_job()
    metrics = WorkMetrics(CollectorRegistry(), jobs=[job.name])
    worker = Worker(conninfo, [job], observer=metrics, shutdown_timeout_s=5)
    run(worker.run)


if __name__ == "__main__":
    main(sys.argv[1])
