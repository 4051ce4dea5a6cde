"""Readiness, which anybody may ask about without a key."""

from __future__ import annotations

import asyncio

from clearinghouse.readiness import Check, Readiness


async def test_however_many_ask_at_once_each_part_is_looked_at_once() -> None:
    looks = 0

    async def probe() -> str:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0.05)
        return f"look {looks}"

    readiness = Readiness({"database": probe})
    impatient = asyncio.create_task(readiness.checks())
    await asyncio.sleep(0.01)
    impatient.cancel()  # its look goes on for the others
    answers = await asyncio.gather(*(readiness.checks() for _ in range(100)))
    assert answers == [[Check("database", True, "look 1")]] * 100
    assert await readiness.checks() == [Check("database", True, "look 2")]
