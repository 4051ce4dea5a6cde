from __future__ import annotations

import asyncio
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
