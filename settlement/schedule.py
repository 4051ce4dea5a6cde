"""What is done on a schedule: jobs, and what each turn of one works with.

A job is registered by code, in settlement/jobs.py, and has no memory of its own: each turn derives from the database
what is due by now, and does it. So a turn may come late, once for many that were missed, or again after one that was
cut off. What it changes, it changes within `Tick.transaction`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from clearinghouse.job_runs import Times


class RunLost(Exception):
    """This run was given up: another process has the job now, or may have it. Nothing of the transaction stays."""


class JobFailed(Exception):
    """A turn that failed in a way that is expected, such as books that are not in order: recorded, without a trace.

    What is recorded as its kind is the name of the class.
    """


@dataclass(frozen=True, slots=True)
class Tick:
    """One turn of a job: the database in role clearinghouse_work, and the time it is.

    `engine` reads; on a schedule its transactions are read-only unless they come from `transaction`. `now` is UTC by
    the database's clock, and the only clock of a turn: tests give another. `run_id` is None outside a schedule, as
    where a test calls a job by itself: then there is nothing to be fenced off from.
    """

    engine: AsyncEngine
    now: datetime
    run_id: int | None = None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """What is done in the block stays if it ends well and the run is still this process's. Raises RunLost if not.

        A process can be stopped for any length of time, between any two of its steps, and then go on as if nothing had
        been: only the database knows by then that the job is somebody else's. It is asked last, and its answer holds
        until the commit, because whoever takes the job over has to wait for that row. Keep such blocks short: one that
        is idle for 5 s is ended by the server.
        """
        async with self.engine.connect() as reading:
            connection = await reading.execution_options(postgresql_readonly=False)
            async with connection.begin():
                yield connection
                await self.require(connection)

    async def require(self, connection: AsyncConnection) -> None:
        """Raises RunLost if the job is not this process's any more. What `transaction` ends with.

        Before what cannot be taken back, such as a message, an empty transaction asks the same.
        """
        if self.run_id is None:
            return
        running = text("SELECT FROM job_run WHERE id = :id AND ended_at IS NULL FOR SHARE")
        if (await connection.execute(running, {"id": self.run_id})).first() is None:
            raise RunLost(f"run {self.run_id} was given up: another process has its job now")


@dataclass(frozen=True, slots=True)
class Job:
    """`tick` derives what is due from the database, does it, and returns one line of what it did.

    It is due once in every `every_s` seconds, at whole multiples of it since 1970 plus `offset_s`, UTC: with 86,400 and
    3 hours every day at 03:00. A turn that raises has failed: that is recorded, and the next is at the next time.
    `name` never changes: the job's history goes by it. A turn must not block the event loop for longer than a second.
    """

    name: str
    every_s: int
    tick: Callable[[Tick], Awaitable[str]]
    offset_s: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.offset_s < self.every_s:
            raise ValueError(f"job {self.name}: an offset of {self.offset_s} s does not lie in {self.every_s} s")

    @property
    def times(self) -> Times:
        """When it is due."""
        return Times(self.every_s, self.offset_s)
