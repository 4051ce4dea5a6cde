"""The worker in this process: its clock, slow and failing jobs, the end of a lead, and the end of the worker."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from clearinghouse.job_runs import jobs_document, lead, standings
from settlement.lease import Lease
from settlement.runs import Runner, tick_engine
from settlement.schedule import Job, Tick
from settlement.work_metrics import WorkMetrics
from settlement.worker import Worker
from tests.parts.database_link import database_link
from tests.parts.watched_workers import BUSY, LEADER_CHANGE_MAX_S
from tests.settlement.conftest import Owner
from tests.settlement.test_runs import lose, said

PATIENCE_S = 60


@dataclass
class Turns:
    """A job that notes when it began and ended, and how many were under way at most."""

    takes_s: float = 0
    begun: list[datetime] = field(default_factory=list)
    ended: int = 0
    cancelled: int = 0
    at_once_max: int = 0

    async def tick(self, tick: Tick) -> str:
        self.begun.append(tick.now)
        self.at_once_max = max(self.at_once_max, len(self.begun) - self.ended - self.cancelled)
        try:
            await asyncio.sleep(self.takes_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.ended += 1
        return "done"


@dataclass
class Working:
    registry: CollectorRegistry
    stop: asyncio.Event
    task: asyncio.Task[None]

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"clearinghouse_{name}", labels)


@asynccontextmanager
async def working(database: str, jobs: Sequence[Job], *, shutdown_timeout_s: float = 5) -> AsyncIterator[Working]:
    registry, stop = CollectorRegistry(), asyncio.Event()
    metrics = WorkMetrics(registry, jobs=[job.name for job in jobs])
    worker = Worker(database, jobs, observer=metrics, shutdown_timeout_s=shutdown_timeout_s)
    task = asyncio.create_task(worker.run(stop))
    try:
        yield Working(registry, stop, task)
    finally:
        stop.set()
        await task


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.02)


def outcomes(owner: Owner, job: str) -> list[str | None]:
    return [outcome for (outcome,) in owner.execute("SELECT outcome FROM job_run WHERE job = %s ORDER BY id", [job])]


async def test_jobs_run_at_whole_multiples_of_their_interval_and_at_once_where_they_are_due(
    database: str, owner: Owner
) -> None:
    turns = Turns()
    started_at = datetime.now(UTC)
    async with working(database, [Job("each-second", 1, turns.tick)]):
        await until(lambda: len(turns.begun) >= 4)
    assert (turns.begun[0] - started_at).total_seconds() < PATIENCE_S
    _, late, _ = sorted(begun.microsecond for begun in turns.begun[1:4])  # one of them may have been held up
    assert late < 500_000, "the clock strikes with the second"
    due = [at for (at,) in owner.execute("SELECT due_at FROM job_run ORDER BY id")]
    assert len(set(due)) == len(due)
    assert all(at.microsecond == 0 for at in due)


async def test_a_slow_job_does_not_stack_and_holds_up_no_other(database: str, owner: Owner) -> None:
    slow, quick = Turns(takes_s=2.5), Turns()
    async with working(database, [Job("slow", 1, slow.tick), Job("quick", 1, quick.tick)]):
        await until(lambda: slow.ended >= 2)
        assert slow.at_once_max == 1
        assert len(quick.begun) >= 4
    assert len(slow.begun) <= 3


async def test_a_failing_job_is_tried_at_its_next_time_and_stops_no_other(database: str, owner: Owner) -> None:
    quick = Turns()

    async def fail(tick: Tick) -> str:
        raise ValueError("nothing goes")

    async with working(database, [Job("failing", 1, fail), Job("quick", 1, quick.tick)]) as worker:
        await until(lambda: len(outcomes(owner, "failing")) >= 3 and len(quick.begun) >= 3)
    assert set(outcomes(owner, "failing")) == {"failed"}
    assert set(outcomes(owner, "quick")) == {"ok"}
    assert (worker.metric("job_runs_total", job="failing", outcome="failed") or 0) >= 3
    assert worker.metric("job_runs_total", job="failing", outcome="ok") == 0


async def test_told_to_stop_it_lets_turns_end(database: str, owner: Owner) -> None:
    turns = Turns(takes_s=1)
    async with working(database, [Job("slow", 60, turns.tick)]):
        await until(lambda: turns.begun)
    assert (turns.ended, turns.cancelled) == (1, 0)
    assert outcomes(owner, "slow") == ["ok"]


async def test_told_to_stop_it_waits_no_longer_than_it_may_and_the_next_begins_anew(
    database: str, owner: Owner
) -> None:
    endless, again = Turns(takes_s=3600), Turns()
    async with working(database, [Job("slow", 86_400, endless.tick)], shutdown_timeout_s=0.3) as worker:
        await until(lambda: endless.begun)
        begun_s = time.monotonic()
        worker.stop.set()
        await worker.task
        assert time.monotonic() - begun_s < 30, "it would take an hour"
    assert endless.cancelled == 1
    assert outcomes(owner, "slow") == ["lost"]
    async with working(database, [Job("slow", 86_400, again.tick)]):
        await until(lambda: again.ended)
    assert outcomes(owner, "slow") == ["lost", "ok"]


async def test_when_the_lead_is_lost_turns_end_at_once_and_another_makes_up_for_them(
    database: str, owner: Owner
) -> None:
    first, second = Turns(takes_s=3600), Turns()
    async with working(database, [Job("slow", 86_400, first.tick)]) as one:
        await until(lambda: first.begun)
        async with working(database, [Job("slow", 86_400, second.tick)]) as two:
            await until(lambda: two.metric("work_leads") == 0)
            # The server ends the leader's session; the other is there before it can come back.
            leader = owner.execute("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted").fetchone()
            assert leader is not None
            lost_s = time.monotonic()
            owner.execute("SELECT pg_terminate_backend(%s)", leader)
            await until(lambda: first.cancelled)
            assert time.monotonic() - lost_s < 15, "it said its word a second later, and was not heard"
            await until(lambda: len(first.begun) + second.ended >= 2)
            if second.ended:
                assert (one.metric("work_leads"), two.metric("work_leads")) == (0, 1)
            one.stop.set()
            first.takes_s = 0
            await one.task
            await until(lambda: outcomes(owner, "slow")[-1] == "ok")
    assert Counter(outcomes(owner, "slow"))["ok"] == 1


async def test_a_worker_without_a_word_from_its_database_goes_on_when_there_is_one(database: str, owner: Owner) -> None:
    turns = Turns()
    async with working(database, [Job("each-second", 1, turns.tick)]):
        await until(lambda: turns.ended)
        for application in ("clearinghouse-work-lease", "clearinghouse-work"):
            await lose(owner, application)
        seen = turns.ended
        await until(lambda: turns.ended >= seen + 2)
    due = [at for (at,) in owner.execute("SELECT due_at FROM job_run WHERE outcome = 'ok' ORDER BY id")]
    assert len(set(due)) == len(due)


async def test_a_leader_that_is_cut_off_from_the_database_stops_by_itself_and_another_leads(
    database: str, periods: Owner
) -> None:
    """The network is silent: nothing is reset, nothing arrives. What it has begun in a transaction never stays."""
    begun: list[int | None] = []
    cancelled: list[float] = []

    async def write(tick: Tick) -> str:
        async with tick.transaction() as connection:
            await connection.execute(text("INSERT INTO period VALUES (now(), :id)"), {"id": tick.run_id})
            begun.append(tick.run_id)
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancelled.append(time.monotonic())
                raise
        return "written"

    later = Turns()
    with tempfile.TemporaryDirectory() as folder:
        async with (
            database_link(database, Path(folder)) as link,
            working(link.conninfo, [Job("write", 86_400, write)]) as cut_off,
        ):
            await until(lambda: begun)
            async with working(database, [Job("write", 86_400, later.tick)]) as other:
                link.partition()
                cut_s = time.monotonic()
                await until(lambda: cancelled)
                assert cut_off.metric("work_leads") == 0
                assert cancelled[0] - cut_s < 5 * BUSY
                await until(lambda: later.ended)
                assert time.monotonic() - cut_s < LEADER_CHANGE_MAX_S * BUSY
                assert other.metric("work_leads") == 1
            link.cut()
            await link.mend()
    assert outcomes(periods, "write") == ["lost", "ok"]
    assert periods.execute("SELECT count(*) FROM period WHERE run_id > 0").fetchone() == (0,)


async def test_a_clock_that_was_ahead_for_a_moment_stops_no_job(
    database: str, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock strikes a year ahead, and then is set: the next time must not be a year away."""

    class Ahead(datetime):
        by = timedelta(0)

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + cls.by

    monkeypatch.setattr("apscheduler.schedulers.base.datetime", Ahead)
    monkeypatch.setattr("settlement.worker.WATCH_EVERY_S", 0.5)
    turns = Turns()
    async with working(database, [Job("each-second", 1, turns.tick)]):
        await until(lambda: turns.ended)
        Ahead.by = timedelta(days=365)
        seen = turns.ended
        await until(lambda: turns.ended > seen)
        Ahead.by = timedelta(0)
        seen = turns.ended
        await until(lambda: turns.ended >= seen + 3)


async def test_a_run_by_hand_makes_the_schedule_wait_and_not_miss_its_time(database: str, owner: Owner) -> None:
    by_hand, scheduled = Turns(takes_s=1.5), Turns()
    begun_meanwhile = []

    async def runs(tick: Tick) -> str:
        said = await by_hand.tick(tick)
        begun_meanwhile.extend(scheduled.begun)
        return said

    engine = tick_engine(database)
    async with await Lease.connected(database) as lease:
        runner = Runner(lease, engine, "somebody:1", lease.now)
        running = asyncio.create_task(runner.run(Job("job", 1, runs), by_hand=True))
        await until(lambda: by_hand.begun)
        async with working(database, [Job("job", 1, scheduled.tick)]):
            assert await running is not None
            assert not begun_meanwhile
            await until(lambda: scheduled.ended)
    await engine.dispose()


async def test_what_is_shown_of_jobs_is_how_they_stand(database: str, owner: Owner) -> None:
    async def fail(tick: Tick) -> str:
        raise ValueError("nothing goes")

    jobs = [Job("failing", 1, fail), Job("well", 3600, said("done"))]
    engine = tick_engine(database)

    async def shown() -> dict[str, Any]:
        async with engine.connect() as connection:
            return jobs_document(await standings(connection), await lead(connection), datetime.now(UTC))

    assert await shown() == {"leader": None, "leads_since": None, "items": []}
    async with working(database, jobs) as worker:
        await until(lambda: len(outcomes(owner, "failing")) >= 2 and outcomes(owner, "well") == ["ok"])
        document = await shown()
        assert document["leader"]
        await until(lambda: (worker.metric("job_failures", job="failing") or 0) >= 1)
        assert worker.metric("job_late", job="failing") == 0
        assert worker.metric("work_leads") == 1
    failing, well = document["items"]
    assert (failing["name"], failing["last"]["error_kind"], failing["last_ok_at"]) == ("failing", "ValueError", None)
    assert failing["failures_count"] >= 2
    assert (well["last"]["outcome"], well["last"]["said"]) == ("ok", "done")
    assert (well["failures_count"], well["late"]) == (0, None)
    assert (await shown())["leader"] is None, "nobody leads any more"
    assert worker.metric("work_leads") == 0
    assert worker.metric("job_late", job="failing") is None
    await engine.dispose()


async def test_a_job_that_is_no_more_is_forgotten_and_one_whose_time_was_changed_keeps_its_history(
    database: str, owner: Owner
) -> None:
    async with working(database, [Job("old", 60, said("x")), Job("kept", 60, said("x"))]):
        await until(lambda: outcomes(owner, "kept") == outcomes(owner, "old") == ["ok"])
    registered = owner.execute("SELECT registered_at FROM job WHERE name = 'kept'").fetchone()
    async with working(database, [Job("kept", 3600, said("x"))]) as worker:
        await until(lambda: worker.metric("work_leads") == 1)
        await until(lambda: owner.execute("SELECT every_s FROM job").fetchall() == [(3600,)])
    assert owner.execute("SELECT registered_at FROM job").fetchall() == [registered]


def test_two_jobs_of_one_name_and_an_offset_beyond_the_interval_are_refused() -> None:
    with pytest.raises(ValueError, match="two jobs have one name"):
        Worker(
            "", [Job("a", 1, said("")), Job("a", 2, said(""))],
            observer=WorkMetrics(CollectorRegistry(), jobs=["a"]), shutdown_timeout_s=1,
        )  # fmt: skip
    with pytest.raises(ValueError, match="does not lie in"):
        Job("a", 60, said(""), offset_s=60)
