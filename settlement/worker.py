"""`clearinghouse work`: of all that run, one leads, and its clock starts the jobs.

APScheduler is a clock in memory: it is made when the lead is taken and thrown away when the lead is lost. What was run,
and so what is due, is in the database alone, and so is the time: this machine's clock only counts the seconds to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, Protocol

import psycopg
import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.background import Repeated
from clearinghouse.database.connect import DATABASE_FAILED
from clearinghouse.instants import rfc3339
from clearinghouse.job_runs import LEAD, Outcome, Standing, standings
from clearinghouse.readiness import NotReady
from settlement.lease import Lease
from settlement.runs import Clock, Observer, Runner, RunsElsewhere, process_name, tick_engine
from settlement.schedule import Job

log = structlog.get_logger(__name__)

#: How often one that stands by looks whether the lead is free.
LOOK_EVERY_S: Final = 1
#: How often who leads looks at how the jobs do, for the metrics.
WATCH_EVERY_S: Final = 10
#: Ends what waits for a database that does not answer. The driver asks it to cancel, for 5 s.
_CUT_OFF_MAX_S: Final = 6
#: How soon a turn is tried again that could not be begun.
_RETRY_S: Final = 1
#: A job that is struck so little before its time waits for it: two clocks do not tick as one.
_EARLY_MAX_S: Final = 1


class LeadObserver(Observer, Protocol):
    """Who is told of the lead, too."""

    def leads(self) -> None: ...

    def saw(self, standings: Sequence[Standing], now: datetime) -> None: ...

    def stands_by(self) -> None: ...


class Worker:
    """Leads, or stands by until it may."""

    def __init__(
        self,
        conninfo: str,
        jobs: Sequence[Job],
        *,
        observer: LeadObserver,
        shutdown_timeout_s: float,
    ) -> None:
        """`conninfo` needs the rights of clearinghouse_work, and a server without a pooler between."""
        if len({job.name for job in jobs}) != len(jobs):
            raise ValueError("two jobs have one name")
        self._conninfo = conninfo
        self._jobs = tuple(jobs)
        self._observer = observer
        self._shutdown_timeout_s = shutdown_timeout_s
        self._name = process_name()
        self._is_away = False
        self._stands = "begins"

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set: then turns under way have `shutdown_timeout_s` to end. Outlives a database that ends."""
        while not stop.is_set():
            try:
                async with await Lease.connected(self._conninfo) as lease:
                    self._is_away = False
                    if await self._takes_lead(lease, stop):
                        await self._lead(lease, stop)
            except psycopg.OperationalError as error:
                self._say_away(error)
            await _pause(stop, LOOK_EVERY_S)

    async def probe(self) -> str:
        """What it does, for readiness.Readiness. Raises NotReady while the database is away."""
        if self._is_away:
            raise NotReady("the database does not answer: check that it runs and that database_url is right")
        return self._stands

    async def _takes_lead(self, lease: Lease, stop: asyncio.Event) -> bool:
        """Stands by until the lead is free. False where there is nothing to lead with, or no time left."""
        self._stands = "stands by"
        while not (stop.is_set() or lease.lost.is_set()):
            if await lease.take(LEAD):
                return True
            await _pause(stop, LOOK_EVERY_S)
        return False

    async def _lead(self, lease: Lease, stop: asyncio.Event) -> None:
        since = lease.now()
        await lease.rows(
            "SELECT register_jobs(%s, %s, %s, %s, %s)", self._name, since, [job.name for job in self._jobs],
            [job.every_s for job in self._jobs], [job.offset_s for job in self._jobs],
        )  # fmt: skip
        await _give_up_left_over(lease, since)
        self._stands = f"leads since {rfc3339(since)}"
        log.info("lead_taken", leader=self._name, jobs=len(self._jobs))
        self._observer.leads()
        engine = tick_engine(self._conninfo)
        turns = _Turns(Runner(lease, engine, self._name, lease.now, self._observer), lease)
        clock = _clock_of(self._jobs, turns.turn, lease.now)
        watch = Repeated("watch-jobs", partial(self._watch, engine, clock, lease.now), every_s=WATCH_EVERY_S)
        watch.start()
        clock.start()
        try:
            await _first(stop, lease.lost)
            clock.pause()
            if not lease.lost.is_set():
                await turns.ended(within_s=self._shutdown_timeout_s, unless=lease.lost)
        finally:
            self._observer.stands_by()
            clock.pause()
            await turns.cut_off()
            clock.shutdown(wait=False)
            await _within(_CUT_OFF_MAX_S, watch.stop())
            await engine.dispose()
            log.info("lead_ended", leader=self._name, reason="lost" if lease.lost.is_set() else "told to stop")

    async def _watch(self, engine: AsyncEngine, clock: AsyncIOScheduler, time: Clock) -> None:
        _put_right(clock, self._jobs, time)
        try:
            async with engine.connect() as connection:
                found = await standings(connection)
        except DATABASE_FAILED as error:
            log.warning("jobs_not_watched", reason=type(error).__name__, retry_in_s=WATCH_EVERY_S)
            return
        self._observer.saw(found, time())

    def _say_away(self, error: psycopg.OperationalError) -> None:
        """Once: it is tried every second."""
        if not self._is_away:
            log.warning("database_away", reason=str(error).partition("\n")[0], retry_in_s=LOOK_EVERY_S)
        self._is_away = True


class _Turns:
    """The turns that are under way, each a task of the clock."""

    def __init__(self, runner: Runner, lease: Lease) -> None:
        self._runner = runner
        self._lease = lease
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_over = False

    async def turn(self, job: Job) -> None:
        """One run, if it is due; tried until it could be, as long as there is a lease to run it under."""
        task = asyncio.current_task()
        assert task is not None, "the clock makes tasks"
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        said = ""
        while not (self._is_over or self._lease.lost.is_set()):
            try:
                run = await self._runner.run(job)
                early_s = _seconds_to(job, self._lease.now)
                if run is None and early_s < _EARLY_MAX_S:
                    await asyncio.sleep(early_s)
                    continue
                if run is None or run.outcome is not Outcome.LOST:
                    return
                reason = "the run was given up"
            except (RunsElsewhere, psycopg.OperationalError) as error:
                reason = str(error).partition("\n")[0]
            if reason != said:
                log.warning("job_waits", job=job.name, reason=reason, retry_in_s=_RETRY_S)
            said = reason
            await asyncio.sleep(_RETRY_S)

    async def ended(self, *, within_s: float, unless: asyncio.Event) -> None:
        """Waits for all of them, so long at most."""
        if self._tasks:
            waiting = asyncio.ensure_future(asyncio.wait(self._tasks, timeout=within_s))
            lost = asyncio.ensure_future(unless.wait())
            await asyncio.wait([waiting, lost], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            lost.cancel()

    async def cut_off(self) -> None:
        """Ends all of them, at once. One that hangs at a database that is silent is left behind: it is fenced off."""
        self._is_over = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _, hanging = await asyncio.wait(self._tasks, timeout=_CUT_OFF_MAX_S)
            if hanging:
                log.warning("turns_left_behind", count=len(hanging))


class _AtTimes(BaseTrigger):  # type: ignore[misc] # untyped
    """At the times of the job, by the clock `time`; once for all that were missed."""

    def __init__(self, job: Job, time: Clock) -> None:
        self._job = job
        self._time = time

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """By this machine's clock, as `now` is."""
        return now + timedelta(seconds=_seconds_to(self._job, self._time))


def _seconds_to(job: Job, time: Clock) -> float:
    """Until it is due the next time."""
    now = time()
    return (job.times.next_at(now) - now).total_seconds()


def _clock_of(jobs: Sequence[Job], turn: Callable[[Job], Awaitable[None]], time: Clock) -> AsyncIOScheduler:
    """Each job at once, should it be due, and then at its times. A turn that is still under way has no second one."""
    quiet = logging.getLogger("apscheduler")
    quiet.setLevel(logging.CRITICAL)  # what a turn did is logged by the turn
    defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
    clock = AsyncIOScheduler(timezone=UTC, job_defaults=defaults, logger=quiet)
    now = datetime.now(UTC)
    for job in jobs:
        clock.add_job(partial(turn, job), _AtTimes(job, time), id=job.name, name=job.name, next_run_time=now)
    return clock


def _put_right(clock: AsyncIOScheduler, jobs: Sequence[Job], time: Clock) -> None:
    """Jobs that would be struck after their time: this machine's clock was ahead, and was set."""
    for job in jobs:
        waiting, next_at = clock.get_job(job.name), datetime.now(UTC) + timedelta(seconds=_seconds_to(job, time))
        if waiting is not None and waiting.next_run_time - next_at > timedelta(seconds=_EARLY_MAX_S):
            log.warning("clock_was_ahead", job=job.name, next_at=rfc3339(waiting.next_run_time))
            waiting.modify(next_run_time=next_at)


async def _give_up_left_over(lease: Lease, now: datetime) -> None:
    """Ends the runs of processes that are no more, also of jobs that are not due for a long time."""
    for (name,) in await lease.rows("SELECT job FROM job_run WHERE ended_at IS NULL"):
        if await lease.take(f"job {name}"):
            await lease.rows("SELECT give_up_job_run(%s, %s)", name, now)
            await lease.give_back(f"job {name}")


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    """So long, or until it is time to stop."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


async def _within(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    """So long at most; then it is left to itself."""
    await asyncio.wait([asyncio.ensure_future(work)], timeout=seconds)


async def _first(*events: asyncio.Event) -> None:
    """Until one of them is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
