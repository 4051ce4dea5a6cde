"""One run of a job, on the real database: claims, records, and the fence that keeps a lost run from committing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from clearinghouse.job_runs import Outcome, Run, standings
from settlement.runs import RunsElsewhere
from settlement.schedule import Job, JobFailed, RunLost, Tick
from tests.parts.days import days
from tests.parts.worker_process import NOT_ONCE, periods_job
from tests.settlement.conftest import Owner

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
WRITE = text("INSERT INTO period VALUES (:at, :run_id)")


def said(words: str) -> Any:
    async def tick(tick: Tick) -> str:
        return words

    return tick


def records(owner: Owner) -> list[tuple[Any, ...]]:
    return owner.execute("SELECT job, due_at, outcome, said FROM job_run ORDER BY id").fetchall()


async def test_days_of_two_jobs_pass_in_seconds_and_each_is_run_once_at_each_of_its_times(
    database: str, owner: Owner
) -> None:
    hourly, daily = Job("hourly", 3600, said("h")), Job("daily", 86_400, said("d"), offset_s=3 * 3600)
    async with days(database, NOON) as passing:
        runs = await passing.until(NOON + timedelta(days=3), [hourly, daily])
    assert [run.due_at for run in runs if run.job == "hourly"] == [NOON + timedelta(hours=n) for n in range(1, 73)]
    # The first is the one that was due before there was anybody to run it.
    assert [run.due_at for run in runs if run.job == "daily"] == [NOON + timedelta(hours=24 * n - 9) for n in range(4)]
    assert all(run.outcome is Outcome.OK for run in runs)
    assert len(records(owner)) == 76


async def test_after_a_long_downtime_one_run_does_all_that_was_due(database: str, periods: Owner) -> None:
    (begun,) = periods.execute("SELECT max(due_at) FROM period").fetchone() or ()
    job = periods_job(takes_s=0)
    async with days(database, begun) as passing:
        await passing.until(begun + timedelta(seconds=5), [job])
        passing.now = begun + timedelta(hours=2)  # nobody was there
        (run,) = [each for each in [await passing.run(job), await passing.run(job)] if each is not None]
    assert run.said == f"{7200 - 5} periods"
    assert periods.execute(NOT_ONCE).fetchall() == []
    assert periods.execute("SELECT count(*) FROM period").fetchone() == (7201,)


async def test_a_job_is_not_run_twice_for_one_time_by_two_leaders_in_turn(database: str, owner: Owner) -> None:
    job = Job("hourly", 3600, said("done"))
    async with days(database, NOON, name="first") as passing:
        assert await passing.run(job) is not None
    async with days(database, NOON + timedelta(minutes=59), name="second") as passing:
        assert await passing.run(job) is None
        passing.now = NOON + timedelta(minutes=60)
        assert await passing.run(job) is not None
    async with days(database, NOON, name="whose clock is slow") as passing:
        assert await passing.run(job) is None


async def test_a_clock_that_was_ahead_keeps_no_job_from_its_times_once_it_is_right(database: str, owner: Owner) -> None:
    """A machine begins with a wrong clock, and a minute later it is set."""
    job = Job("hourly", 3600, said("done"))
    async with days(database, NOON) as passing:
        assert await passing.run(job) is not None
        passing.now = NOON + timedelta(days=365)
        assert await passing.run(job) is not None
        passing.now = NOON + timedelta(minutes=61)
        assert (run := await passing.run(job)) is not None
        assert run.due_at == NOON + timedelta(minutes=60)
        assert await passing.run(job) is None
        owner.execute("INSERT INTO job VALUES ('hourly', 3600, 0, %s)", [NOON])
        async with passing.runner.engine.connect() as connection:
            (standing,) = await standings(connection)
    assert standing.last is not None
    assert standing.last.id == run.id
    assert standing.late(passing.now) is None


async def test_words_that_no_text_can_hold_are_recorded_as_far_as_it_can(database: str, owner: Owner) -> None:
    async def fail(tick: Tick) -> str:
        raise ValueError("half of a pair \ud800, and a \0")

    async with days(database, NOON) as passing:
        run = await passing.run(Job("failing", 60, fail))
    assert run is not None
    assert (run.outcome, run.error) == (Outcome.FAILED, "half of a pair ?, and a ")


async def test_a_failure_is_recorded_and_the_next_run_is_at_the_next_time(database: str, owner: Owner) -> None:
    class ThreeRowsMissing(JobFailed):
        pass

    failures: list[Exception] = [ThreeRowsMissing("3 rows"), ValueError("postgresql://u:secret@h/db\nmore"), KeyError()]

    async def fail(tick: Tick) -> str:
        if failures:
            raise failures.pop(0)
        return "well"

    job = Job("failing", 60, fail)
    async with days(database, NOON - timedelta(seconds=1)) as passing:
        runs = await passing.until(NOON + timedelta(minutes=3), [job])
    kinds = [(run.outcome, run.error_kind, run.error) for run in runs]
    assert kinds[:2] == [
        (Outcome.FAILED, "ThreeRowsMissing", "3 rows"),
        (Outcome.FAILED, "ValueError", "postgresql://[redacted]@h/db"),
    ]
    assert (kinds[2][:2], kinds[3]) == ((Outcome.FAILED, "KeyError"), (Outcome.OK, None, None))
    assert [run.due_at for run in runs] == [NOON + timedelta(minutes=n) for n in range(4)]


async def test_one_that_is_being_run_is_run_nowhere_else_and_who_asks_is_told_where(
    database: str, owner: Owner
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(tick: Tick) -> str:
        begun.set()
        await go_on.wait()
        return "waited"

    job = Job("slow", 60, wait)
    async with days(database, NOON, name="a:1") as first, days(database, NOON, name="b:2") as second:
        running = asyncio.create_task(first.run(job))
        await begun.wait()
        for by_hand in (True, False):
            with pytest.raises(RunsElsewhere, match=r"slow is being run by a:1 since 2026-11-21 12:00:00 UTC"):
                await second.run(job, by_hand=by_hand)
        go_on.set()
        assert (run := await running) is not None
        assert run.said == "waited"
        assert await second.run(job) is None
        assert (run := await second.run(job, by_hand=True)) is not None
        assert run.by_hand


async def test_a_run_by_hand_counts_for_the_time_that_it_did_and_not_for_the_next(database: str) -> None:
    job = Job("hourly", 3600, said("done"))
    async with days(database, NOON + timedelta(minutes=5)) as passing:
        assert await passing.run(job, by_hand=True) is not None
        assert await passing.run(job) is None
        passing.now = NOON + timedelta(minutes=60)
        assert await passing.run(job) is not None


async def lose(owner: Owner, name: str = "clearinghouse-work-lease") -> None:
    """What a server does to a session that fell silent."""
    owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", [name])


async def test_a_run_that_was_given_up_commits_nothing_and_is_made_up_for(database: str, periods: Owner) -> None:
    """The process is stopped between its work and its commit; another takes over; then it goes on."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    raised: list[Exception] = []

    async def write(tick: Tick) -> str:
        try:
            async with tick.transaction() as connection:
                await connection.execute(WRITE, {"at": tick.now, "run_id": tick.run_id})
                if not begun.is_set():
                    begun.set()
                    await go_on.wait()
        except RunLost as lost:
            raised.append(lost)
            raise
        return "written"

    job = Job("write", 60, write)
    async with days(database, NOON, name="first") as first:
        stopped = asyncio.create_task(first.run(job))
        await begun.wait()
        await lose(periods)
        async with days(database, NOON, name="second") as second:
            assert (run := await second.run(job)) is not None
        go_on.set()
        with pytest.raises(psycopg.OperationalError):  # there is nothing left to record it through
            await stopped
    assert len(raised) == 1
    assert periods.execute("SELECT run_id FROM period WHERE run_id > 0").fetchall() == [(run.id,)]
    assert [each[2] for each in records(periods)] == ["lost", "ok"]


async def test_a_commit_that_is_under_way_is_waited_for_before_the_job_is_taken_over(
    database: str, periods: Owner
) -> None:
    """The process has asked the fence and is about to commit: its row must be seen by whoever comes next."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def write(tick: Tick) -> str:
        async with tick.transaction() as connection:
            await connection.execute(WRITE, {"at": tick.now, "run_id": tick.run_id})
            await tick.require(connection)
            asked.set()
            await go_on.wait()
        return "written"

    seen: list[int] = []

    async def count(tick: Tick) -> str:
        async with tick.engine.connect() as connection:
            seen.append((await connection.execute(text("SELECT count(*) FROM period WHERE run_id > 0"))).scalar_one())
        return "counted"

    async with days(database, NOON, name="first") as first, days(database, NOON, name="second") as second:
        stopped = asyncio.create_task(first.run(Job("write", 60, write)))
        await asked.wait()
        (pid,) = periods.execute("SELECT pid FROM pg_locks WHERE locktype = 'advisory'").fetchone() or ()
        periods.execute("SELECT pg_terminate_backend(%s)", [pid])
        while periods.execute("SELECT pid FROM pg_locks WHERE locktype = 'advisory'").fetchone():
            await asyncio.sleep(0.01)
        taking_over = asyncio.create_task(second.run(Job("write", 60, count)))
        await asyncio.sleep(0.3)
        assert not taking_over.done()
        go_on.set()
        with pytest.raises(psycopg.OperationalError):
            await stopped
        await taking_over
    assert seen == [1]


async def test_what_a_turn_writes_past_the_fence_is_refused_by_the_database(database: str, periods: Owner) -> None:
    async def write(tick: Tick) -> str:
        async with tick.engine.begin() as connection:
            await connection.execute(WRITE, {"at": tick.now, "run_id": tick.run_id})
        return "written"

    async with days(database, NOON) as passing:
        run = await passing.run(Job("write", 60, write))
    assert isinstance(run, Run)
    assert run.error == "cannot execute INSERT in a read-only transaction"
