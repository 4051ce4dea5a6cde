"""Deadlines: what takes too long is cancelled, and nothing else is."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from clearinghouse.deadlines import Deadlines


async def test_work_in_time_gives_its_result_and_its_error() -> None:
    deadlines = Deadlines(5)

    async def double(number: int) -> int:
        await asyncio.sleep(0)
        if number < 0:
            raise ValueError(number)
        return 2 * number

    assert await asyncio.gather(*(deadlines.run(double, number) for number in range(50))) == [*range(0, 100, 2)]
    with pytest.raises(ValueError, match="-1"):
        await deadlines.run(double, -1)


async def test_work_that_takes_too_long_is_cancelled_and_its_task_goes_on() -> None:
    deadlines, ended = Deadlines(0.05), []

    async def hang(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def call(name: str) -> str:
        try:
            await deadlines.run(hang, name)
        except TimeoutError:
            await asyncio.sleep(0)  # not cancelled any more
            return f"{name} was late"
        raise AssertionError

    assert await asyncio.gather(call("a"), call("b")) == ["a was late", "b was late"]
    assert ended == ["a", "b"]
    assert await call("c") == "c was late", "the timer is set again"


async def test_a_slow_call_does_not_end_those_that_began_later(monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines, may_end, loop = Deadlines(10), asyncio.Event(), asyncio.get_running_loop()
    now_s = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now_s)

    async def work(number: int) -> int:
        await may_end.wait()
        return number

    slow = asyncio.create_task(deadlines.run(work, 1))
    await asyncio.sleep(0)
    now_s += 4
    later = asyncio.create_task(deadlines.run(work, 2))
    await asyncio.sleep(0)
    now_s += 9
    with pytest.raises(TimeoutError):
        await slow
    may_end.set()
    assert await later == 2


async def test_cancelling_the_caller_stays_a_cancellation() -> None:
    deadlines = Deadlines(5)
    task = asyncio.create_task(deadlines.run(asyncio.sleep, 60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_by_both_is_cancelled() -> None:
    deadlines = Deadlines(0.02)

    async def stubborn(_: None) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            task.cancel()
            raise

    task = asyncio.create_task(deadlines.run(stubborn, None))
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_nothing_is_kept_of_work_that_has_ended() -> None:
    """Kept until its time is up, it would be let go of all at once, in a turn of the loop that takes milliseconds."""
    deadlines = Deadlines(60)

    async def work(_: None) -> None:
        """Ends at once."""

    tracemalloc.start()
    try:
        await deadlines.run(work, None)
        before_bytes = tracemalloc.get_traced_memory()[0]
        for _ in range(1000):
            await deadlines.run(work, None)
        assert tracemalloc.get_traced_memory()[0] - before_bytes < 10_000
    finally:
        tracemalloc.stop()
