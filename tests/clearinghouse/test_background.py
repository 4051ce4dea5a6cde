from __future__ import annotations

import asyncio
import time
from functools import partial

from structlog.testing import capture_logs

from clearinghouse.background import Repeated

EVERY_S = 0.01


class Work:
    """Fails in its first turn."""

    def __init__(self) -> None:
        self.turns_count = 0

    async def __call__(self) -> None:
        self.turns_count += 1
        if self.turns_count == 1:
            raise ZeroDivisionError("a bug")

    async def until(self, turns_count: int) -> None:
        async with asyncio.timeout(10):
            while self.turns_count < turns_count:
                await asyncio.sleep(EVERY_S)


async def test_a_failure_is_logged_under_the_works_name_and_ends_nothing() -> None:
    work = Work()
    repeated = Repeated("tidy", work, every_s=EVERY_S)
    with capture_logs() as logs:
        repeated.start()
        await work.until(3)
        await repeated.stop()
    assert [(entry["event"], entry["work"]) for entry in logs] == [("background_work_failed", "tidy")]


async def test_where_a_turn_was_just_taken_a_pause_comes_first() -> None:
    work = Work()
    repeated = Repeated("tidy", work, every_s=60)
    repeated.start(at_once=False)
    await asyncio.sleep(EVERY_S)
    await repeated.stop()
    assert work.turns_count == 0


async def test_stopping_does_not_wait_for_a_turn_that_hangs_and_may_be_done_twice() -> None:
    repeated = Repeated("tidy", partial(asyncio.sleep, 3600), every_s=60)
    await repeated.stop()
    repeated.start()
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await repeated.stop()
        await repeated.stop()


async def test_stopping_ends_work_whose_driver_says_something_else_when_it_is_cancelled() -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise ConnectionError("the connection broke meanwhile") from None

    repeated = Repeated("tidy", work, every_s=60)
    repeated.start()
    await begun.wait()
    with capture_logs() as logs:
        async with asyncio.timeout(30):
            await repeated.stop()
    assert [entry["event"] for entry in logs] == ["background_work_failed"]


async def test_whoever_is_woken_begins_at_once_and_pauses_all_the_same_however_often_it_is_woken() -> None:
    work = Work()
    repeated = Repeated("tidy", work, every_s=60, woken_every_s=0.2)
    repeated.start()
    await work.until(1)
    begun_s = time.monotonic()
    for _ in range(60):
        repeated.wake()
        await asyncio.sleep(EVERY_S)
    assert 3 <= work.turns_count <= 2 + (time.monotonic() - begun_s) / 0.2
    took_s = []
    for _ in range(3):  # in one of them at least the machine does not stand still
        await asyncio.sleep(0.3)
        turns_count = work.turns_count
        await asyncio.sleep(0.3)
        assert work.turns_count == turns_count, "nobody wakes it any more"
        begun_s = time.monotonic()
        repeated.wake()
        await work.until(turns_count + 1)
        took_s.append(time.monotonic() - begun_s)
        if min(took_s) < 0.15:
            break
    assert min(took_s) < 0.15, took_s
    await repeated.stop()
