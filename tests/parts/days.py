"""The schedule under a clock that a test moves: days pass in seconds.

async with days(database, started_at) as passing:
    await passing.until(started_at + timedelta(days=3), [job])      # every run that is due by then, in its order
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from clearinghouse.job_runs import Run
from settlement.lease import Lease
from settlement.runs import Runner, tick_engine
from settlement.schedule import Job


@dataclass
class Days:
    """`now` is the clock; between two times at which a job is due nothing happens, so it jumps there."""

    now: datetime
    lease: Lease
    runner: Runner

    async def run(self, job: Job, *, by_hand: bool = False) -> Run | None:
        """At once, as `Runner.run`."""
        return await self.runner.run(job, by_hand=by_hand)

    async def until(self, end: datetime, jobs: Sequence[Job]) -> list[Run]:
        """The clock moves to `end`. The runs that there were on the way."""
        runs = []
        while (due_at := min(job.times.next_at(self.now) for job in jobs)) <= end:
            self.now = due_at
            runs += [run for job in jobs if (run := await self.runner.run(job)) is not None]
        self.now = end
        return runs


@asynccontextmanager
async def days(conninfo: str, now: datetime, *, name: str = "test") -> AsyncIterator[Days]:
    engine = tick_engine(conninfo)
    try:
        async with await Lease.connected(conninfo) as lease:
            passing = Days(now, lease, Runner(lease, engine, name, lambda: passing.now))
            yield passing
    finally:
        await engine.dispose()
