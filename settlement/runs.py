"""One run of a job, from its claim to its record, whoever starts it: the clock or somebody by hand."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.database.connect import WORK_ROLE, async_engine, in_role
from clearinghouse.job_runs import Outcome, Run, run_of
from clearinghouse.log import without_secrets
from settlement.lease import SILENCE_MAX_S, Lease
from settlement.schedule import Job, JobFailed, RunLost, Tick

log = structlog.get_logger(__name__)

Clock = Callable[[], datetime]

_LINE_CHARS_MAX: Final = 500
_STATEMENT_TIMEOUT: Final = "60s"
#: Jobs run beside one another, and each may want a second connection.
_POOL_SIZE: Final = 8


class RunsElsewhere(Exception):
    """Another process is at this job. The text says which, and since when, as far as it is known."""


class Observer(Protocol):
    """Who is told of every run that has ended."""

    def ran(self, run: Run) -> None: ...


def process_name() -> str:
    """Of this process, for the record."""
    return f"{socket.gethostname()}:{os.getpid()}"


def tick_engine(conninfo: str) -> AsyncEngine:
    """What turns work with: read-only but for `Tick.transaction`, and freed soon of what a stopped process holds."""
    settings = {
        "idle_in_transaction_session_timeout": f"{SILENCE_MAX_S}s",
        "statement_timeout": _STATEMENT_TIMEOUT,
    }
    chosen = in_role(conninfo, WORK_ROLE, application_name="clearinghouse-work", **settings)
    return async_engine(chosen, pool_size=_POOL_SIZE).execution_options(postgresql_readonly=True)


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs jobs under the locks of `lease`. `leader` is what the record calls this process.

    `clock` says what is due and what time it is for a turn: `lease.now`, or what a test gives.
    """

    lease: Lease
    engine: AsyncEngine
    leader: str
    clock: Clock
    observer: Observer | None = None

    async def run(self, job: Job, *, by_hand: bool = False) -> Run | None:
        """None where it is not due; by hand it is always. The run says how it ended: a job's failure is not raised.

        Raises RunsElsewhere, and psycopg.OperationalError where the lease is lost or the record cannot be kept.
        """
        lock = f"job {job.name}"
        if not await self.lease.take(lock):
            raise RunsElsewhere(await self._who_runs(job))
        try:
            run_id = await self._begin(job, by_hand)
            run = await self._taken_through(job, run_id) if run_id is not None else None
        finally:
            if not self.lease.lost.is_set():
                await self.lease.give_back(lock)
        if run is not None and self.observer is not None:
            self.observer.ran(run)
        return run

    async def _begin(self, job: Job, by_hand: bool) -> int | None:
        now = self.clock()
        query = "SELECT begin_job_run(%s, %s, %s, %s, %s)"
        run_id: int | None = await self.lease.value(query, job.name, job.times.due_at(now), now, self.leader, by_hand)
        return run_id

    async def _taken_through(self, job: Job, run_id: int) -> Run:
        try:
            outcome, said, kind, error = await _ticked(job, Tick(self.engine, self.clock(), run_id))
        except asyncio.CancelledError:
            if not self.lease.lost.is_set():  # told to stop: whoever leads next need not guess
                await self._end(run_id, Outcome.LOST)
            raise
        return await self._end(run_id, outcome, said, kind, error)

    async def _end(
        self, run_id: int, outcome: Outcome, said: str | None = None, kind: str | None = None, error: str | None = None
    ) -> Run:
        """What was recorded: given up by another before, it stays so."""
        await self.lease.rows(
            "UPDATE job_run SET ended_at = greatest(%s, started_at), outcome = %s, said = %s, error_kind = %s,"
            " error = %s WHERE id = %s AND ended_at IS NULL",
            self.clock(), outcome.value, said, kind, error, run_id,
        )  # fmt: skip
        (row,) = await self.lease.rows(
            "SELECT id, job, due_at, started_at, ended_at, outcome, said, error_kind, error, leader, by_hand"
            "  FROM job_run WHERE id = %s", run_id,
        )  # fmt: skip
        return run_of(row)

    async def _who_runs(self, job: Job) -> str:
        query = "SELECT leader, started_at FROM job_run WHERE job = %s AND ended_at IS NULL"
        for leader, started_at in await self.lease.rows(query, job.name):
            return f"{job.name} is being run by {leader} since {started_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        return f"{job.name} is being begun by another process"


async def _ticked(job: Job, tick: Tick) -> tuple[Outcome, str | None, str | None, str | None]:
    """Outcome, what was said, and of a failure its kind and its text."""
    try:
        said = await job.tick(tick)
    except RunLost as lost:
        log.warning("job_run_lost", job=job.name, reason=str(lost))
        return Outcome.LOST, None, None, None
    except JobFailed as failure:
        log.warning("job_failed", job=job.name, kind=type(failure).__name__, reason=str(failure))
        return Outcome.FAILED, None, type(failure).__name__, one_line(str(failure))
    except Exception as error:
        log.exception("job_failed", job=job.name, kind=type(error).__name__)
        return Outcome.FAILED, None, type(error).__name__, one_line(words_of(error))
    log.debug("job_ran", job=job.name, said=said)
    return Outcome.OK, one_line(said), None, None


def words_of(error: BaseException) -> str:
    """Of the database's errors the server's own: SQLAlchemy would add the statement and what was in it."""
    return str(error.orig) if isinstance(error, DBAPIError) else str(error)


def one_line(words: str) -> str:
    """The first line, as far as a text of the database can hold it."""
    line = without_secrets(words.strip().partition("\n")[0])[:_LINE_CHARS_MAX].replace("\0", "")
    return line.encode(errors="replace").decode()
