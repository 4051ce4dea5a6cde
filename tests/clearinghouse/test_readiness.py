"""Readiness, which anybody may ask about without a key."""

from __future__ import annotations

import asyncio

from clearinghouse.readiness import Check, Readiness


async def test_however_many_ask_at_once_each_part_is_looked_at_once() -> None:
    looks, begun, may_end = 0, asyncio.Event(), asyncio.Event()

    async def probe() -> str:
        nonlocal looks
        looks += 1
        begun.set()
        await may_end.wait()
        return f"look {looks}"

    readiness = Readiness({"database": probe})
    impatient = asyncio.create_task(readiness.checks())
    await begun.wait()
    impatient.cancel()  # its look goes on for the others
    asking = [asyncio.create_task(readiness.checks()) for _ in range(100)]
    await asyncio.sleep(0)  # each of them has asked
    may_end.set()
    answers = await asyncio.gather(*asking)
    assert answers == [[Check("database", True, "look 1")]] * 100
    assert await readiness.checks() == [Check("database", True, "look 2")]
